package config

// checkRelay reports what is wrong with the way out.
func (c *Config) checkRelay() {
	for _, x := range c.Relay.Problems() {
		c.d.wrong("relay."+x.Setting, x.Text, x.Remedy)
	}
}

// Where returns a problem with a setting, with its place.
func (c *Config) Where(setting, text string) Problem {
	if c.d == nil {
		return Problem{File: c.file, Text: setting + ": " + text}
	}
	p := c.placed(setting)
	p.Text = text
	return p
}
