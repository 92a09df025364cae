package config

import "fmt"

// checkQueue finds what is wrong with the settings of the queue.
func (c *Config) checkQueue() {
	for i, wait := range c.Queue.Backoff {
		if wait <= 0 {
			c.d.wrong(fmt.Sprintf("queue.backoff[%d]", i), "mail would be tried without a pause", "write for example 5m")
		}
	}
	if to := c.Queue.DoubleBounces; to != "" && !isAddress(to) {
		c.d.wrong("queue.double_bounces", fmt.Sprintf("%q is no address", to), "write for example postmaster@example.org")
	}
}
