package arc

// AuthResults tells the result as an Authentication-Results field does (RFC 8617, 10.1).
func (f Fact) AuthResults(say func(method, result, reason string, properties ...string)) {
	if len(f.Sealers) == 0 {
		say("arc", f.Result, f.Why)
		return
	}
	say("arc", f.Result, f.Why, "header.d", f.Sealers[0])
}

// DMARC tells what a valid chain says of DMARC before its sealers got the mail: for each result the sealers that all have
// to be trusted for it, the last one first, for each of them could have put it onto another mail; the result; and the
// domain that it was about, "" where that is not said. Of a chain that is not valid it tells nothing.
func (f Fact) DMARC(say func(sealers []string, result, from string)) {
	if f.Result != passed || len(f.Sealers) == 0 {
		return
	}
	say(f.Sealers[:1], f.Last.DMARC, f.Last.HeaderFrom)
	say(f.Sealers, f.First.DMARC, f.First.HeaderFrom)
}
