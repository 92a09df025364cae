package config

import (
	"cmp"
	"fmt"
)

// checkQueue finds what is wrong with the settings of the queue.
func (c *Config) checkQueue() {
	for i, wait := range c.Queue.Backoff {
		if wait <= 0 {
			c.d.wrong(fmt.Sprintf("queue.backoff[%d]", i), "mail would be tried without a pause", "write for example 5m")
		}
	}
	if most, largest := c.Queue.Octets, cmp.Or(c.Limits.Submission.MessageSize, int64(c.Limits.MessageSize)); most > 0 && most < largest {
		c.d.wrong("queue.octets", fmt.Sprintf("a mail of %d octets, as submission takes it (message_size), would never be queued", largest),
			"write more, or lower limits.submission.message_size")
	}
	if to := c.Queue.DoubleBounces; to != "" && !isAddress(to) {
		c.d.wrong("queue.double_bounces", fmt.Sprintf("%q is no address", to), "write for example postmaster@example.org")
	}
}
