package dkim

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"sluice/pipeline"
	"sluice/pipeline/mime"
	"sluice/pipeline/pipelinetest"
)

// Why our verdict about a mail of Mail::DKIM is another one than its own.
const (
	oldHash    = "rsa-sha1 proves nothing any more" // RFC 8301, 3.1
	oldVersion = `it is of version "", not 1`       // a draft; RFC 6376, 6.1.1
	noBodyHash = "bh= is missing or no hash"        // a broken copy
	noTags     = "the field is malformed: \" synerr\" is no tag"
)

// What we say about each signature of a mail that Mail::DKIM passes (p) or fails (f); "" is a pass. That all of them but
// for those of the first draft hash to what they did is tested in package signature.
var differences = map[string][]string{
	"good_ietf00_1.txt":   {oldHash},
	"good_ietf00_2.txt":   {oldHash},
	"good_ietf00_3.txt":   {oldHash},
	"good_ietf00_4.txt":   {oldHash},
	"good_ietf00_5.txt":   {oldHash},
	"mine_ietf01_1.txt":   {oldHash},
	"mine_ietf01_2.txt":   {oldHash},
	"mine_ietf01_3.txt":   {oldVersion},
	"mine_ietf01_4.txt":   {oldVersion},
	"mine_ietf05_1.txt":   {oldHash},
	"good_ietf01_1.txt":   {oldVersion},
	"good_ietf01_2.txt":   {oldHash},
	"good_rfc4871_3.txt":  {oldHash},
	"good_rfc4871_4.txt":  {oldHash},
	"good_1878523.txt":    {oldHash},
	"good_83176.txt":      {oldHash},
	"multiple_1.txt":      {oldVersion, oldVersion, noBodyHash, oldVersion},
	"multiple_2.txt":      {oldHash, oldHash, oldHash, noTags},
	"good_qp_1.txt":       {oldHash},
	"good_qp_2.txt":       {oldHash},
	"good_qp_3.txt":       {oldHash},
	"bad_ietf01_1.txt":    {oldVersion}, // no pass either way
	"bad_ietf01_2.txt":    {oldVersion},
	"bad_ietf01_3.txt":    {oldVersion},
	"bad_1.txt":           {oldVersion},
	"bad_1878954.txt":     {oldHash},
	"no_body_1.txt":       {oldHash},
	"no_body_2.txt":       {oldHash},
	"no_body_3.txt":       {oldHash},
	"goodkey_1.txt":       {oldHash}, // and its key of 512 bits is less than RFC 8301, 3.2 allows, as are the next three
	"goodkey_2.txt":       {oldHash},
	"goodkey_3.txt":       {oldHash},
	"goodkey_4.txt":       {oldHash},
	"goodkey_ed25519.txt": {""}, // no difference
}

func TestMailDKIM(t *testing.T) {
	dir := os.Getenv("SLUICE_TESTDATA")
	if dir == "" {
		t.Skip("no test data")
	}
	read := func(name string) string {
		text, err := os.ReadFile(filepath.Join(dir, "dkim", name))
		if err != nil {
			t.Fatal(err)
		}
		return string(text)
	}
	r := &pipelinetest.Resolver{TXT: map[string][]string{}, Fail: map[string]string{}}
	for line := range strings.Lines(read("dns.txt")) {
		name, record, _ := strings.Cut(strings.TrimRight(line, "\r\n"), " ")
		name, record = strings.ToLower(name), strings.TrimLeft(record, " ")
		switch {
		case strings.HasPrefix(name, "#") || name == "" || record == "NXDOMAIN":
		case strings.HasPrefix(record, "~~"):
			r.Fail[name] = strings.Trim(record, "~")
		default:
			r.TXT[name] = []string{record}
		}
	}
	s := newStage(t, r, nil)
	for line := range strings.Lines(read("expected.tsv")) {
		file, expected, _ := strings.Cut(strings.TrimSpace(line), "\t")
		t.Run(file, func(t *testing.T) {
			text := read("messages/" + file)
			m, err := mime.Parse(strings.NewReader(text), int64(len(text)), mime.Limits{})
			if err != nil {
				t.Fatal(err)
			}
			var v pipeline.View
			v.Message, v.Received = m, pipelinetest.Epoch
			res, err := s.Check(t.Context(), v)
			if err != nil {
				t.Fatal(err)
			}
			fact := res.Fact.(Fact)
			want, differs := differences[file]
			if !differs { // invalid is permerror
				if expected != "invalid" || fact.Pass || len(fact.Signatures) != 1 || fact.Signatures[0].Result != "permerror" {
					t.Errorf("%s: %+v", expected, fact.Signatures)
				}
				return
			}
			var got []string
			for _, x := range fact.Signatures {
				got = append(got, x.Reason)
				if (x.Result == "pass") != (x.Reason == "") {
					t.Errorf("%s: %s", x.Result, x.Reason)
				}
			}
			if strings.Join(got, "\n") != strings.Join(want, "\n") || fact.Pass != (want[0] == "") {
				t.Errorf("%q, want %q", got, want)
			}
		})
	}
}
