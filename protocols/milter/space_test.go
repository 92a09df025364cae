package milter

import (
	"fmt"
	"testing"

	"sluice/mailstore"
)

// While the disk has no room mail stays with the MTA's client; the size that it announces counts.
func TestNoRoom(t *testing.T) {
	var asked []int64
	d := open(t, func(c *Config) {
		c.Space = func(size int64) error {
			if asked = append(asked, size); size > 1000 {
				return fmt.Errorf("too full: %w", mailstore.ErrFull)
			}
			return nil
		}
	})
	m := d.dial()
	m.talk(postfix)
	for _, x := range []struct{ args, reply string }{
		{"\x00BODY=8BITMIME\x00size=5000", "y 452 4.3.1 insufficient system storage, please try again later"},
		{"\x00SIZE=-1", "c"},
		{"\x00SIZE=99999999999999999999", "c"},
		{"\x00SIZE=1000", "c"},
		{"", "c"},
	} {
		m.raw('M', "<a@sender.example>"+x.args+"\x00")
		if got := m.hear(); got != x.reply {
			t.Errorf("MAIL with %q: %q, want %q", x.args, got, x.reply)
		}
	}
	if got := fmt.Sprint(asked); got != "[5000 0 0 1000 0]" {
		t.Errorf("asked for room for %s", got)
	}
}
