package program

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"

	"sluice/mailstore/queue"
	"sluice/pipeline"
	"sluice/pipeline/mime"
)

// mostCopies is how many records of a mail are looked at for a copy of it.
const mostCopies = 50

// anywhere is message, and looks for mail that one of our users has handed in also among what they have sent, and with
// those here who have got it. That may take a look at each of somebody's files.
func (p *plans) anywhere(ctx context.Context, r *pipeline.Record, files []found) (*mime.Message, error) {
	if r.Door == pipeline.Submission && r.Size > 0 {
		return p.from(ctx, r, p.waiting, p.sentCopy, p.arrived)
	}
	return p.message(ctx, r, files)
}

// A copySource is a place where the message of a record may be: what was decided about, nil if it is not there.
type copySource func(context.Context, *pipeline.Record) (came []byte, err error)

func (p *plans) from(ctx context.Context, r *pipeline.Record, all ...copySource) (*mime.Message, error) {
	why := errors.New("it has left the queue, and no copy of it is here")
	for _, look := range all {
		came, err := look(ctx, r)
		if err == nil && came != nil {
			return mime.Parse(bytes.NewReader(came), int64(len(came)), p.settings.Limits.MIME())
		}
		if err != nil {
			why = err
		}
	}
	return nil, why
}

// waiting looks into the queue; nil is that it is not there.
func (p *plans) waiting(ctx context.Context, r *pipeline.Record) (came []byte, err error) {
	err = withQueue(ctx, p.settings, func(q *queue.Reader) error {
		list, err := q.List(ctx, queue.Filter{Transaction: r.ID})
		if err != nil {
			return err
		}
		for _, m := range list {
			if m.Why != submitted {
				continue
			}
			text, err := readQueued(q, m)
			if err != nil {
				return fmt.Errorf("read queued mail %s: %w", m.ID, err)
			}
			var ok bool
			if came, ok = cameAs(text, r); ok {
				return nil
			}
			err = fmt.Errorf("queued mail %s: %w", m.ID, errChanged)
			return err
		}
		return nil
	})
	return came, err
}

func readQueued(q *queue.Reader, m queue.Message) ([]byte, error) {
	content, err := q.Open(m)
	if err != nil {
		return nil, err
	}
	defer content.Close() // it is only read
	return io.ReadAll(content)
}

// sentCopy looks for the copy that was filed for who has sent it; nil is that there is none.
func (p *plans) sentCopy(ctx context.Context, r *pipeline.Record) ([]byte, error) {
	store, err := lookingStore(p.settings)
	if err != nil {
		return nil, nil // nobody here has any mail
	}
	defer store.Close() // it was only looked at: there is nothing that could be lost
	paths, err := store.Filed(ctx, r.Client.Login, r.ID)
	if err != nil {
		return nil, err
	}
	for _, path := range paths {
		text, err := os.ReadFile(path)
		if err != nil {
			return nil, fmt.Errorf("read %s: %w", path, cause(err))
		}
		if came, ok := cameAs(withoutBlind(crlf(text)), r); ok {
			return came, nil
		}
	}
	return nil, nil
}

// withoutBlind returns a mail without the fields that name blind recipients: only who has sent it has them.
func withoutBlind(mail []byte) []byte {
	header, body, _ := bytes.Cut(mail, []byte("\r\n\r\n"))
	var out bytes.Buffer
	blind := false
	for line := range bytes.Lines(append(bytes.Clone(header), "\r\n"...)) {
		if line[0] != ' ' && line[0] != '\t' {
			name, _, _ := bytes.Cut(line, []byte(":"))
			name = bytes.TrimSpace(name)
			blind = bytes.EqualFold(name, []byte("Bcc")) || bytes.EqualFold(name, []byte("Resent-Bcc"))
		}
		if !blind {
			out.Write(line)
		}
	}
	out.WriteString("\r\n")
	out.Write(body)
	return out.Bytes()
}

// arrived looks for a copy of somebody here who has got it; nil is that there is none.
func (p *plans) arrived(ctx context.Context, r *pipeline.Record) ([]byte, error) {
	if r.MessageID == "" {
		return nil, nil
	}
	others, err := p.journal.Find(ctx, r.MessageID)
	if err != nil && len(others) == 0 {
		return nil, err
	}
	for _, other := range others[:min(len(others), mostCopies)] {
		if other.Door == pipeline.Submission {
			continue
		}
		for _, f := range locate(ctx, p.settings, other) {
			if f.Path == "" {
				continue
			}
			text, err := os.ReadFile(f.Path)
			if err != nil {
				return nil, fmt.Errorf("read %s: %w", f.Path, cause(err))
			}
			if came, ok := cameAs(crlf(text), r); ok {
				return came, nil
			}
		}
	}
	return nil, nil
}
