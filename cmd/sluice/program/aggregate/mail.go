package aggregate

import (
	"bytes"
	"crypto/sha256"
	"encoding/base64"
	"fmt"
	"mime"
	"strings"
	"time"
)

// ID is the name of the report, the same whenever it is made.
func (r Report) ID() string { return r.Metadata.ID }

// Mail returns the report as a mail to an address (RFC 7489, 7.2.1.1), with CRLF line ends, and its subject.
func (r Report) Mail(to string, date time.Time) (mail []byte, subject string, err error) {
	text, name, err := r.text(true)
	if err != nil {
		return nil, "", err
	}
	begin, end := time.Unix(r.Metadata.Begin, 0).UTC(), time.Unix(r.Metadata.End, 0).UTC()
	_, host, _ := strings.Cut(r.Metadata.ID, "@")
	subject = fmt.Sprintf("Report Domain: %s Submitter: %s Report-ID: <%s>", r.Domain, host, r.Metadata.ID)
	boundary := "=_" + strings.ReplaceAll(r.Metadata.ID, "@", "_")
	if len(boundary) > 70 {
		boundary = boundary[:70]
	}
	var b bytes.Buffer
	line := func(format string, args ...any) { fmt.Fprintf(&b, format+"\r\n", args...) }
	line("From: %s <%s>", phrase(r.Metadata.Org), r.Metadata.Email)
	line("To: <%s>", to)
	line("Subject: Report Domain: %s\r\n Submitter: %s\r\n Report-ID: <%s>", r.Domain, host, r.Metadata.ID)
	line("Date: %s", date.Format(time.RFC1123Z))
	sum := sha256.Sum256([]byte(to)) // each address gets a mail of its own
	line("Message-ID: <dmarc.%x.%s>", sum[:4], r.Metadata.ID)
	line("Auto-Submitted: auto-generated")
	line("MIME-Version: 1.0")
	line("Content-Type: multipart/mixed; boundary=%q", boundary)
	line("\r\n--%s", boundary)
	line("Content-Type: text/plain; charset=us-ascii\r\n")
	line("This is a DMARC aggregate report about %s,", r.Domain)
	line("from %s to %s,", begin.Format(time.RFC3339), end.Format(time.RFC3339))
	line("about mail that %s received; there were %d.", host, r.Count)
	line("\r\nIt is sent because the DMARC record of the domain asks for it.")
	line("Questions about it go to %s.", r.Metadata.Email)
	line("\r\n--%s", boundary)
	line("Content-Type: application/gzip; name=%q", name)
	line("Content-Transfer-Encoding: base64")
	line("Content-Disposition: attachment;\r\n filename=%q\r\n", name)
	for coded := base64.StdEncoding.EncodeToString(text); coded != ""; {
		n := min(len(coded), 76)
		line("%s", coded[:n])
		coded = coded[n:]
	}
	line("\r\n--%s--", boundary)
	return b.Bytes(), subject, nil
}

// phrase is a name before an address (RFC 5322, 3.2.5), without line ends.
func phrase(s string) string {
	for _, r := range s {
		if r < ' ' || r > '~' {
			return mime.QEncoding.Encode("utf-8", s)
		}
	}
	return `"` + strings.NewReplacer(`\`, `\\`, `"`, `\"`).Replace(s) + `"`
}
