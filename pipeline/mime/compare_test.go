//go:build compare

package mime

import (
	"bufio"
	"bytes"
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"unicode"
)

// TestPython lists where Python's email package makes something else of a mail. It is to be read by somebody: not every
// difference is a mistake of ours.
//
//	SLUICE_TESTDATA=… go test -tags compare -run TestPython -v ./pipeline/mime
func TestPython(t *testing.T) {
	dir := os.Getenv("SLUICE_TESTDATA")
	mails := map[string][]byte{}
	corpus(t, func(name string, raw []byte) { mails[name] = raw })
	oddFiles(t, func(path string, raw []byte) {
		name, _ := filepath.Rel(dir, path)
		mails[name] = raw
	})
	cmd := exec.Command("python3", "testdata/python.py", dir)
	cmd.Stderr = os.Stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatal(err)
	}
	count := map[string]int{}
	differ := func(what, name string, ours, theirs any) {
		count[what]++
		t.Logf("%s: %s:\n  ours   %.300q\n  theirs %.300q", what, name, ours, theirs)
	}
	lines := bufio.NewScanner(bytes.NewReader(out))
	lines.Buffer(nil, 64<<20)
	for lines.Scan() {
		var python struct {
			Name, Subject, Plain, HTML, Error string
			Date                              *int64
			Types, Files, From                []string
		}
		if err := json.Unmarshal(lines.Bytes(), &python); err != nil {
			t.Fatal(err)
		}
		count["mails"]++
		if python.Error != "" {
			count["errors of Python"]++
			continue
		}
		raw := mails[python.Name]
		m, err := Parse(bytes.NewReader(raw), int64(len(raw)), Limits{})
		if err != nil {
			t.Errorf("%s: %v", python.Name, err)
			continue
		}
		var plain, html string
		for _, p := range m.text().pieces {
			if p.html {
				html += p.text
			} else {
				plain += p.text
			}
		}
		var types, files, from []string
		m.Root().All(func(p *Part) {
			types = append(types, p.Type)
			if p.Name != "" {
				files = append(files, p.Name)
			}
		})
		for _, a := range m.From() {
			from = append(from, a.String())
		}
		for i, a := range python.From {
			python.From[i] = strings.ToLower(a)
		}
		if !slices.Equal(types, python.Types) {
			differ("types", python.Name, types, python.Types)
		}
		if !slices.Equal(files, python.Files) {
			differ("files", python.Name, files, python.Files)
		}
		if !slices.Equal(from, python.From) {
			differ("from", python.Name, from, python.From)
		}
		if date, ok := m.Date(); ok != (python.Date != nil) || ok && date.Unix() != *python.Date {
			f, _ := m.Header().First("Date")
			differ("date", python.Name, f.Value(), date.String())
		}
		if a, b := bare(m.Subject()), bare(python.Subject); a != b {
			differ("subject", python.Name, m.Subject(), python.Subject)
		}
		for what, pair := range map[string][2]string{"plain": {bare(plain), bare(python.Plain)}, "html": {bare(html), bare(python.HTML)}} {
			if a, b := pair[0], pair[1]; a != b {
				i := 0
				for i < min(len(a), len(b)) && a[i] == b[i] {
					i++
				}
				i = max(i-40, 0)
				differ(what, python.Name, a[i:], b[i:])
			}
		}
	}
	t.Log(count)
}

// bare drops what programs differ in without a difference: white space, and the quotes of format=flowed.
func bare(s string) string {
	return strings.Map(func(r rune) rune {
		if unicode.IsSpace(r) || unicode.IsControl(r) || r == '\ufeff' || r == '>' {
			return -1
		}
		return r
	}, s)
}
