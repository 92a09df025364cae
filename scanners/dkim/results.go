package dkim

// AuthResults tells the result of each signature as an Authentication-Results field does (RFC 8601, 2.7.1).
func (f Fact) AuthResults(say func(method, result, reason string, properties ...string)) {
	if len(f.Signatures) == 0 {
		say("dkim", "none", "")
	}
	for _, s := range f.Signatures {
		say("dkim", s.Result, s.Reason, "header.d", s.Domain, "header.s", s.Selector, "header.a", s.Algorithm, "header.b", s.B)
	}
}
