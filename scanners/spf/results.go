package spf

// AuthResults tells the result as an Authentication-Results field does (RFC 8601, 2.7.2): of the identity that decides.
func (f Fact) AuthResults(say func(method, result, reason string, properties ...string)) {
	switch {
	case f.Domain == "":
		say("spf", f.Result, f.Reason)
	case f.Identity == "helo":
		say("spf", f.Result, f.Reason, "smtp.helo", f.Domain)
	default:
		say("spf", f.Result, f.Reason, "smtp.mailfrom", f.Domain)
	}
}
