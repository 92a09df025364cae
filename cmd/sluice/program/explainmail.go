package program

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"

	"sluice/cmd/sluice/program/config"
	"sluice/mailstore/journal"
	"sluice/pipeline"
	"sluice/pipeline/mime"
)

// findMail returns the records of a mail itself: by the id that we have put into it, by its Message-ID, or by what it is.
// What anybody can write into a mail does not decide alone: records whose mail is this one to the octet come first, and
// where there is none, it is said that another mail of the name was found.
func (p *program) findMail(c *config.Config, file string) (records []*pipeline.Record, err error) {
	text, err := p.readMail(c, file)
	if err != nil {
		return nil, err
	}
	m, err := mime.Parse(bytes.NewReader(text), int64(len(text)), c.Limits.MIME())
	if err != nil {
		return nil, fmt.Errorf("read %s: %w", file, err)
	}
	var keys []string
	for f := range m.Header().All(pipeline.IDField) {
		if id, _, _ := strings.Cut(strings.TrimSpace(f.Text()), " "); id != "" {
			keys = append(keys, id)
		}
	}
	if id := m.MessageID(); id != "" {
		keys = append(keys, id)
	}
	const mostKeys = 5
	err = withRecords(p.ctx, c, func(j *journal.Journal) error {
		seen := map[string]bool{}
		add := func(found []*pipeline.Record) {
			for _, r := range found {
				if !seen[r.ID] {
					seen[r.ID] = true
					records = append(records, r)
				}
			}
		}
		var unreadable []error
		for _, key := range keys[:min(len(keys), mostKeys)] {
			found, err := j.Find(p.ctx, key)
			if one := new(journal.UnreadableError); errors.As(err, &one) {
				unreadable = append(unreadable, err)
			} else if err != nil {
				return err
			}
			add(found)
		}
		for _, sum := range sums256(text) {
			found, _, err := j.Newest(p.ctx, journal.Query{SHA256: sum}, mostKeys)
			if err != nil {
				return err
			}
			add(found)
		}
		return errors.Join(unreadable...)
	})
	if err != nil && len(records) == 0 {
		return nil, err
	}
	var same []*pipeline.Record
	for _, r := range records {
		if _, ok := cameAs(text, r); ok {
			same = append(same, r)
		}
	}
	if len(same) == 0 && len(records) > 0 {
		fmt.Fprintln(p.stderr, "sluice: the names in this mail are those of a mail that was recorded, but it is not the same to the octet: "+
			"it was changed on its way or since, or another mail bears them")
		return records, err
	}
	return same, err
}

// readMail reads a mail, with the line ends that it has on the wire.
func (p *program) readMail(c *config.Config, file string) (text []byte, err error) {
	in := p.stdin
	if file != "-" {
		f, err := os.Open(file)
		if err != nil {
			return nil, fmt.Errorf("read %s: %w", file, cause(err))
		}
		defer f.Close()
		in = f
	}
	// A stored copy has what we have put on top of it.
	most := int64(c.Limits.MessageSize) + int64(c.Limits.HeaderSize)
	if text, err = io.ReadAll(io.LimitReader(in, most+1)); err != nil {
		return nil, fmt.Errorf("read %s: %w", file, cause(err))
	}
	if int64(len(text)) > most {
		return nil, fmt.Errorf("%s is larger than limits.message_size, %d octets", file, c.Limits.MessageSize)
	}
	if len(bytes.TrimSpace(text)) == 0 {
		return nil, errors.New(file + " is empty")
	}
	return crlf(text), nil
}

// mostOnTop is how many fields we and an MTA may have put on top of a mail, for it to be found by what it is.
const mostOnTop = 12

// sums256 returns the SHA-256 of a mail as it is, and without its first field, its first two and so on.
func sums256(text []byte) (sums []string) {
	for range mostOnTop {
		sum := sha256.Sum256(text)
		sums = append(sums, hex.EncodeToString(sum[:]))
		at := afterField(text)
		if at < 0 {
			break
		}
		text = text[at:]
	}
	return sums
}

// afterField returns where the second header field begins, -1 where there is none.
func afterField(text []byte) int {
	for at := 0; ; {
		i := bytes.Index(text[at:], []byte("\r\n"))
		if i < 0 {
			return -1
		}
		at += i + 2
		switch {
		case at >= len(text) || bytes.HasPrefix(text[at:], []byte("\r\n")):
			return -1
		case text[at] != ' ' && text[at] != '\t':
			return at
		}
	}
}
