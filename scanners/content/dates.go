package content

import (
	"errors"
	"math"
	"time"

	"sluice/pipeline/mime"
)

var errNoDate = errors.New("the mail has no Date that can be read")

// dateSkew returns how many seconds Date is ahead of the clock when the mail came.
func dateSkew(m *mime.Message, received time.Time) (seconds int, ok bool) {
	d, ok := m.Date()
	if !ok {
		return 0, false
	}
	// Sub ends at 292 years; years of four digits go further.
	s := d.Unix() - received.Unix()
	return int(min(max(s, math.MinInt32*64), math.MaxInt32*64)), true
}
