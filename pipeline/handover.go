package pipeline

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"io"
	"strings"

	"sluice/pipeline/mime"
)

// IDField is the header field by which a mail that one of our doors has decided about is known to the next.
const IDField = "X-Sluice-Id"

// A Handover signs and recognises the mail that we have decided about when it comes back to us from an MTA. The
// signature covers the id, the Message-ID and the body; of the body it skips CR, LF, space and tab, because MTAs break
// long lines and fold. The zero Handover recognises nothing.
type Handover struct{ Key []byte }

// Value returns the value of m's X-Sluice-Id field for the transaction id.
func (h Handover) Value(id string, m *mime.Message) string {
	return id + " " + h.sum(id, m)
}

// Verify returns the id in a value that Value has made for this message; ok is false for any other.
func (h Handover) Verify(value string, m *mime.Message) (id string, ok bool) {
	id, sum, found := strings.Cut(strings.TrimSpace(value), " ")
	if len(h.Key) == 0 || !found || id == "" {
		return "", false
	}
	if !hmac.Equal([]byte(strings.TrimSpace(sum)), []byte(h.sum(id, m))) {
		return "", false
	}
	return id, true
}

func (h Handover) sum(id string, m *mime.Message) string {
	mac := hmac.New(sha256.New, h.Key)
	mac.Write([]byte(id + "\n" + m.MessageID() + "\n")) // a hash never fails
	mac.Write(bodyHash(m))
	return base64.RawURLEncoding.EncodeToString(mac.Sum(nil))
}

func bodyHash(m *mime.Message) []byte {
	sum := sha256.New()
	body := m.RawBody()
	if body == nil {
		return sum.Sum(nil)
	}
	buf := make([]byte, 8<<10)
	for {
		n, err := body.Read(buf)
		kept := 0
		for _, c := range buf[:n] {
			switch c {
			case '\r', '\n', '\t', ' ':
			default:
				buf[kept] = c
				kept++
			}
		}
		sum.Write(buf[:kept])
		if err == nil {
			continue
		}
		// What cannot be read is not signed: the sum differs from that of the whole message.
		if err != io.EOF {
			sum.Write([]byte("\x00unreadable"))
		}
		return sum.Sum(nil)
	}
}
