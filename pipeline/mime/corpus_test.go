package mime

import (
	"bytes"
	"errors"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"testing"
	"time"
	"unicode/utf8"
)

// everything calls each accessor of a message and checks what must hold for any mail at all.
func everything(t testing.TB, raw []byte, l Limits) *Message {
	t.Helper()
	m, err := Parse(bytes.NewReader(raw), int64(len(raw)), l)
	if err != nil {
		if le := (*LimitError)(nil); errors.As(err, &le) {
			return nil
		}
		t.Fatalf("Parse: %v", err)
	}
	if m.Size() != int64(len(raw)) || m.Raw().Size() != m.Size() {
		t.Fatalf("size %d, raw %d; want %d", m.Size(), m.Raw().Size(), len(raw))
	}
	body, err := io.ReadAll(m.RawBody())
	if err != nil || !bytes.HasSuffix(raw, body) {
		t.Fatalf("the body is not the end of the message, %v", err)
	}
	if gap := len(raw) - len(body) - m.Header().Len(); gap < 0 || gap > 2 {
		t.Fatalf("header %d + body %d of %d octets", m.Header().Len(), len(body), len(raw))
	}
	for _, f := range m.Header().Fields() {
		if !m.Header().Has(f.Name) || !bytes.HasPrefix(f.Raw, []byte(f.Name)) {
			t.Fatalf("field %q: %q", f.Name, f.Raw)
		}
		f.Value()
		valid(t, f.Text())
		for _, a := range f.Addresses() {
			valid(t, a.Raw, a.Local, a.Tag, a.Domain, a.Name, a.String())
		}
	}
	valid(t, m.Subject(), m.Text(), m.LowerText(), m.HTML())
	m.MessageID()
	m.Date()
	l = l.withDefaults()
	if len(m.Text()) > l.Text || len(m.HTML()) > l.Text {
		t.Fatalf("text of %d, HTML of %d octets", len(m.Text()), len(m.HTML()))
	}
	for _, a := range m.From() {
		valid(t, a.Raw, a.Local, a.Tag, a.Domain, a.Name)
	}
	valid(t, m.Links()...)
	for _, a := range m.Attachments() {
		valid(t, a.Name)
	}
	odd := m.Anomalies()
	if len(odd) > maxAnomalies+1 {
		t.Fatalf("%d anomalies", len(odd))
	}
	for _, a := range odd {
		valid(t, a.Kind, a.Part, a.What)
	}
	parts := 0
	m.Root().All(func(p *Part) {
		parts++
		raw := p.Raw()
		if n, err := io.Copy(io.Discard, raw); err != nil || n != p.Size {
			t.Fatalf("part %q: read %d of %d octets, %v", p.Path, n, p.Size, err)
		}
		if p.r == m.r && (p.start < m.body || p.start+p.Size > m.size) {
			t.Fatalf("part %q: %d octets at %d", p.Path, p.Size, p.start)
		}
		if _, err := io.Copy(io.Discard, p.Open()); err != nil {
			t.Fatalf("part %q: decode: %v", p.Path, err)
		}
	})
	if parts > l.Parts+1 {
		t.Fatalf("%d parts", parts)
	}
	return m
}

func valid(t testing.TB, list ...string) {
	t.Helper()
	for _, s := range list {
		if !utf8.ValidString(s) {
			t.Fatalf("not UTF-8: %.200q", s)
		}
	}
}

func TestOddMail(t *testing.T) {
	dir := os.Getenv("SLUICE_TESTDATA")
	if dir == "" {
		t.Skip("no test data")
	}
	n := 0
	err := filepath.WalkDir(filepath.Join(dir, "mime"), func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		raw, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		n++
		begin := time.Now()
		if everything(t, raw, Limits{}) == nil {
			t.Errorf("%s: over a limit", path)
		}
		if took := time.Since(begin); took > 5*time.Second {
			t.Errorf("%s took %v", path, took)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if n < 300 {
		t.Errorf("%d files", n)
	}
}
