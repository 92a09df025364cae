package mime

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"hash"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"testing/iotest"
	"time"
	"unicode/utf8"

	"github.com/emersion/go-message"
	"golang.org/x/text/transform"
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
	copied(t, m)
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
		if p.r == m.r && (p.start < m.begin || m.begin > m.body || p.start+p.Size > m.size) {
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

// copied checks that CopyAttachments gives what Attachments has hashed.
func copied(t testing.TB, m *Message) {
	t.Helper()
	var got []hash.Hash
	m.CopyAttachments(func(i int) io.Writer {
		for len(got) <= i {
			got = append(got, nil)
		}
		if got[i] != nil {
			t.Fatalf("attachment %d is copied twice", i)
		}
		got[i] = sha256.New()
		return got[i]
	})
	for i, a := range m.Attachments() {
		switch {
		case a.SHA256 == "" && i < len(got) && got[i] != nil:
			t.Fatalf("attachment %d has no hash and is copied", i)
		case a.SHA256 != "" && (i >= len(got) || got[i] == nil || hex.EncodeToString(got[i].Sum(nil)) != a.SHA256):
			t.Fatalf("attachment %d is %s and other content is copied", i, a.SHA256)
		}
	}
}

func valid(t testing.TB, list ...string) {
	t.Helper()
	for _, s := range list {
		if !utf8.ValidString(s) {
			t.Fatalf("not UTF-8: %.200q", s)
		}
	}
}

// oddFiles calls f for each file of mail that others have collected because it is odd.
func oddFiles(t *testing.T, f func(path string, raw []byte)) {
	t.Helper()
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
		f(path, raw)
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if n < 300 {
		t.Errorf("%d files", n)
	}
}

func TestOddMail(t *testing.T) {
	oddFiles(t, func(path string, raw []byte) {
		begin := time.Now()
		if everything(t, raw, Limits{}) == nil {
			t.Errorf("%s: over a limit", path)
		}
		if took := time.Since(begin); took > 30*time.Second {
			t.Errorf("%s took %v", path, took)
		}
	})
}

// allocated returns the octets that are allocated for all that a message has to say. What is in use at a time is less.
func allocated(t *testing.T, raw []byte) uint64 {
	t.Helper()
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	m, err := Parse(bytes.NewReader(raw), int64(len(raw)), Limits{})
	if err != nil {
		return 0
	}
	m.From()
	m.Subject()
	m.Date()
	m.Text()
	m.LowerText()
	m.HTML()
	m.Attachments()
	m.Links()
	m.Anomalies()
	runtime.ReadMemStats(&after)
	return after.TotalAlloc - before.TotalAlloc
}

func TestMemory(t *testing.T) {
	const most = 64 << 20
	largest, name := uint64(0), ""
	oddFiles(t, func(path string, raw []byte) {
		if n := allocated(t, raw); n > largest {
			largest, name = n, path
		}
	})
	t.Logf("%s: %d KiB", name, largest>>10)
	if largest > most {
		t.Errorf("%s: %d octets allocated", name, largest)
	}
	// A large mail does not need more than a small one, but for its text.
	file := "Content-Type: application/x; name=x\nContent-Transfer-Encoding: base64\n\n" + strings.Repeat(strings.Repeat("QUJD", 19)+"\n", 1<<18)
	text := "\n" + strings.Repeat("words of a text \n", 1<<20)
	for what, in := range map[string]string{"file": file, "text": text} {
		if n := allocated(t, []byte(in)); n > most {
			t.Errorf("a %s of %d octets: %d octets allocated", what, len(in), n)
		}
	}
}

// corpus calls f for each mail of the corpus.
func corpus(t *testing.T, f func(name string, raw []byte)) {
	t.Helper()
	dir := os.Getenv("SLUICE_TESTDATA")
	if dir == "" {
		t.Skip("no test data")
	}
	in, err := os.Open(filepath.Join(dir, "corpus", "train.tar.gz"))
	if err != nil {
		t.Fatal(err)
	}
	defer in.Close()
	z, err := gzip.NewReader(in)
	if err != nil {
		t.Fatal(err)
	}
	n := 0
	for tape := tar.NewReader(z); ; {
		h, err := tape.Next()
		if err == io.EOF {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		if h.Typeflag != tar.TypeReg {
			continue
		}
		raw, err := io.ReadAll(tape)
		if err != nil {
			t.Fatal(err)
		}
		n++
		f(h.Name, raw)
	}
	if n != 3023 {
		t.Errorf("%d mails", n)
	}
}

func TestCorpus(t *testing.T) {
	n := 0
	corpus(t, func(name string, raw []byte) {
		if n++; (race || testing.Short()) && n%20 != 0 {
			return
		}
		m := everything(t, raw, Limits{})
		if m == nil {
			t.Errorf("%s: over a limit", name)
			return
		}
		if from, _ := m.Header().First("From"); strings.Contains(from.Value(), "@") && (len(m.From()) == 0 || m.From()[0].Domain == "") {
			t.Errorf("%s: From: %s: %v", name, from.Value(), m.From())
		}
	})
}

// TestBase64Pieces: how content is cut into pieces on its way does not change what it is decoded to.
func TestBase64Pieces(t *testing.T) {
	for _, in := range []string{
		"YWJj", "YWJjZA==", "YWJjZA==\nZWZn\n", "YWJj\r\nZGVm\r\n", "YWJj ZGVm", "YW\nJj\nZG\nVm", "YW*JjZGVm\nZ2hp", "YWI=Y2Q=\nYWI=\nlist, x\nYWJj", "\n\nYWJjZ\n",
		" YWJj\n YWJj\n", "YWJj\rZGVm", "=YWJj=\n=\n",
	} {
		for _, s := range []string{in, strings.Repeat(in+"\n", 700)} {
			whole, _, err := transform.Bytes(&base64Decoder{}, []byte(s))
			if err != nil {
				t.Fatal(err)
			}
			single, err := io.ReadAll(transform.NewReader(iotest.OneByteReader(strings.NewReader(s)), &base64Decoder{}))
			if err != nil || !bytes.Equal(single, whole) {
				t.Errorf("%.40q: %.100q, %v; want %.100q", in, single, err, whole)
			}
			large, err := io.ReadAll(transform.NewReader(strings.NewReader(s), &base64Decoder{}))
			if err != nil || !bytes.Equal(large, whole) {
				t.Errorf("%.40q in pieces: %.100q, %v; want %.100q", in, large, err, whole)
			}
		}
	}
}

// TestTransferDecoders compares ours with those of go-message, which are strict: what those take, ours decode alike.
func TestTransferDecoders(t *testing.T) {
	decoded := 0
	compare := func(name string, raw []byte) {
		m, err := Parse(bytes.NewReader(raw), int64(len(raw)), Limits{})
		if err != nil {
			return
		}
		m.Root().All(func(p *Part) {
			if p.Encoding != "base64" && p.Encoding != "quoted-printable" || len(p.Parts) > 0 || p.plain {
				return
			}
			var h message.Header
			h.Set("Content-Type", "application/octet-stream")
			h.Set("Content-Transfer-Encoding", p.Encoding)
			e, err := message.New(h, p.Raw())
			if err != nil {
				t.Fatalf("%s: %v", name, err)
			}
			want, err := io.ReadAll(e.Body)
			if err != nil {
				return
			}
			decoded++
			if got, err := io.ReadAll(p.Open()); err != nil || !bytes.Equal(got, want) {
				t.Errorf("%s, part %q: %d octets, %v; want %d", name, p.Path, len(got), err, len(want))
			}
		})
	}
	oddFiles(t, compare)
	n := 0
	corpus(t, func(name string, raw []byte) {
		if n++; !race && !testing.Short() || n%20 == 0 {
			compare(name, raw)
		}
	})
	t.Logf("%d parts", decoded)
	if decoded < 100 {
		t.Errorf("%d parts", decoded)
	}
}
