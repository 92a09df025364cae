package spf

// AuthResults tells the result as an Authentication-Results field does (RFC 8601, 2.7.2): of the identity that decides.
func (f Fact) AuthResults(say func(method, result, reason string, properties ...string)) {
	if f.Domain == "" {
		say("spf", f.Result, f.Reason)
		return
	}
	say("spf", f.Result, f.Reason, map[bool]string{true: "smtp.helo", false: "smtp.mailfrom"}[f.Identity == "helo"], f.Domain)
}
