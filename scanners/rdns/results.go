package rdns

// AuthResults tells the result as an Authentication-Results field does (RFC 8601, 2.7.3).
func (f Fact) AuthResults(say func(method, result, reason string, properties ...string)) {
	say("iprev", f.Result, "")
}
