package aggregate

import (
	"bytes"
	"compress/gzip"
	"encoding/json"
	"encoding/xml"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/netip"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"sluice/pipeline"
	"sluice/pipeline/pipelinetest"
	"sluice/scanners/dkim"
	"sluice/scanners/dmarc"
	"sluice/scanners/spf"
)

var period = Period{
	Receiver: "mx.example.org", Org: "Example & Co", Email: "postmaster@example.org", Junk: []string{"Junk"},
	Begin: time.Date(2026, 11, 21, 0, 0, 0, 0, time.UTC), End: time.Date(2026, 11, 22, 0, 0, 0, 0, time.UTC),
}

// judged is a record of a mail that fails a policy of reject, which was obeyed.
func judged(t *testing.T, change func(r *pipeline.Record, f *dmarc.Fact)) *pipeline.Record {
	t.Helper()
	f := dmarc.Fact{
		Result: "fail", Disposition: "reject", Policy: "reject", PolicyTag: "p", Domain: "example.com", OrgDomain: "example.com",
		Published: "v=DMARC1; p=reject; rua=mailto:r@example.com", PublishedAt: "example.com", Discovery: "treewalk",
	}
	r := &pipeline.Record{
		ID: "a", Client: pipeline.Client{Addr: netip.MustParseAddr("192.0.2.1")}, Sender: pipelinetest.Address(t, "a@b.example"),
		Greeting: "helo.example",
		Recipients: []pipeline.RecipientRecord{{
			Disposition: pipeline.Refused, Verdict: pipeline.Verdict{Action: pipeline.Reject}, Step: "rules",
		}},
	}
	r.Steps = []pipeline.StepRecord{
		{Name: "spf", Kind: "spf", Fact: raw(t, spf.Fact{Result: "pass", Identity: "mailfrom", Domain: "b.example"})},
		{Name: "dkim", Kind: "dkim", Fact: raw(t, dkim.Fact{Signatures: []dkim.Signature{{Domain: "b.example", Selector: "s1", Result: "pass"}}})},
		{Name: "my_dmarc", Kind: "dmarc"},
	}
	if change != nil {
		change(r, &f)
	}
	if r.Steps[2].Unknown == "" {
		r.Steps[2].Fact = raw(t, f)
	}
	return r
}

func raw(t *testing.T, v any) json.RawMessage {
	t.Helper()
	b, err := json.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func delivered(r *pipeline.Record) {
	r.Recipients = []pipeline.RecipientRecord{{Disposition: pipeline.Delivered, Folder: "INBOX"}}
}

func TestRows(t *testing.T) {
	type (
		R = pipeline.Record
		F = dmarc.Fact
	)
	for _, tt := range []struct {
		name   string
		change func(r *R, f *F)
		want   string // ip, disposition, dkim, spf, reasons; "" for none
	}{
		{"refused", nil, "192.0.2.1 reject fail fail"},
		{"passes", func(r *R, f *F) { f.Result, f.Disposition, f.SPFAligned = "pass", "none", true; delivered(r) }, "192.0.2.1 none fail pass"},
		{"passes, and refused for something else", func(_ *R, f *F) { f.Result, f.Disposition, f.DKIMAligned = "pass", "none", true }, "192.0.2.1 none pass fail"},
		{"held", func(r *R, _ *F) { r.Recipients[0].Disposition = pipeline.Held }, "192.0.2.1 quarantine fail fail local_policy"},
		{"dropped", func(r *R, _ *F) { r.Recipients[0].Disposition = pipeline.Dropped }, "192.0.2.1 reject fail fail"},
		{"filed as junk", func(r *R, f *F) {
			f.Policy, f.Disposition = "quarantine", "quarantine"
			delivered(r)
			r.Recipients[0].Folder = "Junk"
		}, "192.0.2.1 quarantine fail fail"},
		{"delivered all the same", func(r *R, _ *F) { delivered(r) }, "192.0.2.1 none fail fail local_policy"},
		{"a forwarder", func(r *R, f *F) { f.Override = "forwarder"; delivered(r) }, "192.0.2.1 none fail fail trusted_forwarder"},
		{"a sealer", func(r *R, f *F) { f.Override = "arc"; delivered(r) }, "192.0.2.1 none fail fail local_policy(arc=pass)"},
		{"outside of the sample", func(r *R, f *F) {
			f.SampledOut, f.Disposition = true, "quarantine"
			r.Recipients[0].Disposition = pipeline.Held
		}, "192.0.2.1 quarantine fail fail sampled_out"},
		{"testing", func(r *R, f *F) { f.Testing, f.Policy, f.Disposition = true, "quarantine", "none"; delivered(r) }, "192.0.2.1 none fail fail policy_test_mode"},
		{"one of two refused", func(r *R, _ *F) {
			r.Recipients = append(r.Recipients, pipeline.RecipientRecord{Disposition: pipeline.Delivered})
		}, "192.0.2.1 reject fail fail"},
		{"one is nobody", func(r *R, f *F) {
			f.Policy, f.Disposition = "none", "none"
			delivered(r)
			r.Recipients = append(r.Recipients, pipeline.RecipientRecord{Disposition: pipeline.Refused, Reply: pipeline.Reply{Code: 550}})
		}, "192.0.2.1 none fail fail"},
		{"IPv6", func(r *R, _ *F) { r.Client.Addr = netip.MustParseAddr("2001:db8::1") }, "2001:db8::1 reject fail fail"},
		{"IPv4 in IPv6", func(r *R, _ *F) { r.Client.Addr = netip.MustParseAddr("::ffff:192.0.2.1") }, "192.0.2.1 reject fail fail"},

		{"no policy", func(_ *R, f *F) { f.Result, f.Published, f.PublishedAt = "none", "", "" }, ""},
		{"malformed", func(_ *R, f *F) { f.Result = "permerror" }, ""},
		{"open", func(r *R, _ *F) { r.Steps[2].Missing = map[string]string{"result": "no answer"} }, ""},
		{"failed", func(r *R, _ *F) { r.Steps[2].Unknown = "no answer" }, ""},
		{"to come again", func(r *R, _ *F) { r.Recipients[0].Disposition = pipeline.Postponed }, ""},
		{"not ended", func(r *R, _ *F) { r.Recipients[0].Disposition = pipeline.NotFinished }, ""},
		{"from nowhere", func(r *R, _ *F) { r.Client = pipeline.Client{} }, ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			c := New(period)
			added := c.Add(judged(t, tt.change))
			if added != (tt.want != "") || len(c.Reports()) != map[bool]int{true: 1}[added] {
				t.Fatalf("%t, %+v", added, c.Reports())
			}
			if !added {
				return
			}
			x := c.Reports()[0].Records[0]
			got := fmt.Sprintf("%s %s %s %s", x.Row.SourceIP, x.Row.Evaluated.Disposition, x.Row.Evaluated.DKIM, x.Row.Evaluated.SPF)
			for _, r := range x.Row.Evaluated.Reasons {
				got += " " + r.Type
				if r.Comment != "" {
					got += "(" + r.Comment + ")"
				}
			}
			if got != tt.want || !slices.Equal(x.Auth.DKIM, []dkimResult{{"b.example", "s1", "pass"}}) || x.Auth.SPF != (spfResult{"b.example", "mfrom", "pass"}) ||
				x.Identifiers != (identifiers{"b.example", "example.com"}) {
				t.Errorf("%s\nwant %s\n%+v", got, tt.want, x)
			}
			valid(t, c.Reports()[0])
		})
	}
}

// Without an answer of SPF the element that the schema wants says so.
func TestWithoutSPF(t *testing.T) {
	for _, tt := range []struct {
		change func(s *pipeline.StepRecord)
		sender string
		want   spfResult
	}{
		{func(s *pipeline.StepRecord) { *s = pipeline.StepRecord{Kind: "spf", Unknown: "client is trusted"} }, "a@b.example", spfResult{"b.example", "mfrom", "none"}},
		{func(s *pipeline.StepRecord) {
			*s = pipeline.StepRecord{Kind: "spf", Unknown: "no answer", Stages: []pipeline.StageRecord{{State: "error"}}}
		}, "", spfResult{"helo.example", "helo", "temperror"}},
		{func(s *pipeline.StepRecord) {
			s.Fact = json.RawMessage(`{"result":"pass","identity":"helo","domain":"h.example"}`)
		}, "", spfResult{"h.example", "helo", "pass"}},
		{func(s *pipeline.StepRecord) { s.Fact = json.RawMessage(`"broken"`) }, "a@b.example", spfResult{"b.example", "mfrom", "none"}},
	} {
		c := New(period)
		c.Add(judged(t, func(r *pipeline.Record, _ *dmarc.Fact) {
			tt.change(&r.Steps[0])
			r.Sender = pipelinetest.Address(t, tt.sender)
		}))
		if got := c.Reports()[0].Records[0].Auth.SPF; got != tt.want {
			t.Errorf("%+v, want %+v", got, tt.want)
		}
		valid(t, c.Reports()[0])
	}
}

// Mails that say the same are counted, and each domain has a report; one that changed its policy has two.
func TestReports(t *testing.T) {
	c := New(period)
	for i := range 60 {
		c.Add(judged(t, func(r *pipeline.Record, f *dmarc.Fact) {
			r.ID = fmt.Sprint(i)
			if i%3 == 0 {
				r.Client.Addr = netip.MustParseAddr("192.0.2.3")
			}
			switch {
			case i%20 == 0:
				f.PublishedAt, f.Published = "other.example", "v=DMARC1; p=none; sp=reject; np=reject; t=y; adkim=s; fo=1:d"
			case i >= 40:
				f.Published = "v=DMARC1; p=none; pct=50"
			}
		}))
	}
	var got []string
	for _, r := range c.Reports() {
		line := fmt.Sprintf("%s %d: %s", r.Domain, r.Count, strings.ReplaceAll(r.name, r.Metadata.ID[:16], "ID"))
		for _, x := range r.Records {
			line += fmt.Sprintf(" %s*%d", x.Row.SourceIP, x.Row.Count)
		}
		got = append(got, line)
		valid(t, r)
	}
	slices.Sort(got)
	want := []string{
		"example.com 19: mx.example.org!example.com!1795219200!1795305599!ID.xml 192.0.2.1*13 192.0.2.3*6",
		"example.com 38: mx.example.org!example.com!1795219200!1795305599!ID.xml 192.0.2.1*25 192.0.2.3*13",
		"other.example 3: mx.example.org!other.example!1795219200!1795305599.xml 192.0.2.1*2 192.0.2.3*1",
	}
	if !slices.Equal(got, want) {
		t.Errorf("%s\nwant %s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
	if p := c.Reports()[2].Policy; p != (policyPublished{
		Domain: "other.example", ADKIM: "s", ASPF: "r", P: "none", SP: "reject", NP: "reject", Pct: 100, FO: "1:d", Testing: "y", Discovery: "treewalk",
	}) {
		t.Errorf("%+v", p)
	}
}

// What strangers have put into domains and names stays text in the file, and its name stays in the folder.
func TestHostile(t *testing.T) {
	c := New(Period{Receiver: "../" + strings.Repeat("m", 300), Begin: period.Begin, End: period.End})
	c.Add(judged(t, func(r *pipeline.Record, f *dmarc.Fact) {
		f.PublishedAt, f.Domain = "..\\/<!x>\x00"+strings.Repeat("long.", 60)+"example", "a&b<c>\x01.example"
		r.Sender.Domain, r.Greeting = "</record>", "\"'"
	}))
	r := c.Reports()[0]
	dir := t.TempDir()
	name, err := r.Write(dir, false)
	if err != nil || len(name) > 255 || strings.ContainsAny(name, "/\\<>\x00") {
		t.Fatal(name, err)
	}
	text, err := os.ReadFile(filepath.Join(dir, name))
	if err != nil || !bytes.Contains(text, []byte("<envelope_from>&lt;/record&gt;</envelope_from>")) {
		t.Errorf("%s\n%v", text, err)
	}
	check(t, text)
}

func TestWrite(t *testing.T) {
	c := New(period)
	c.Add(judged(t, nil))
	dir := t.TempDir()
	for range 2 { // the second replaces the first
		for _, compressed := range []bool{false, true} {
			name, err := c.Reports()[0].Write(dir, compressed)
			if err != nil {
				t.Fatal(err)
			}
			info, err := os.Stat(filepath.Join(dir, name))
			if err != nil || info.Mode() != 0o640 {
				t.Errorf("%v, %v", info, err)
			}
			text, err := os.ReadFile(filepath.Join(dir, name))
			if err != nil {
				t.Fatal(err)
			}
			if compressed {
				z, err := gzip.NewReader(bytes.NewReader(text))
				if err != nil {
					t.Fatal(err)
				}
				if text, err = io.ReadAll(z); err != nil {
					t.Fatal(err)
				}
			}
			check(t, text)
		}
	}
	files, err := filepath.Glob(filepath.Join(dir, "*"))
	hidden, _ := filepath.Glob(filepath.Join(dir, ".*"))
	if err != nil || len(files) != 2 || len(hidden) != 0 || !strings.HasSuffix(files[1], ".xml.gz") {
		t.Errorf("%v, %v, %v", files, hidden, err)
	}
	if _, err := c.Reports()[0].Write(filepath.Join(dir, "nowhere"), false); !errors.Is(err, fs.ErrNotExist) {
		t.Error(err)
	}
}

func valid(t *testing.T, r Report) {
	t.Helper()
	text, err := xml.Marshal(r.feedback)
	if err != nil {
		t.Fatal(err)
	}
	check(t, text)
}

// A rule is what the schema (RFC 7489, Appendix C; what RFC 9990 adds is marked so) says of an element: the elements in it,
// in order and how often, or the text in it.
type rule struct {
	of   []child
	text string // a pattern
}

type child struct {
	name      string
	min, most int
}

const (
	disposition = "none|quarantine|reject"
	alignment   = "r|s"
	many        = 1 << 20
)

var schema = map[string]rule{
	"feedback":                          {of: []child{{"version", 1, 1}, {"report_metadata", 1, 1}, {"policy_published", 1, 1}, {"record", 1, many}}},
	"feedback/version":                  {text: `\d+\.\d+`},
	"report_metadata":                   {of: []child{{"org_name", 1, 1}, {"email", 1, 1}, {"report_id", 1, 1}, {"date_range", 1, 1}}},
	"date_range":                        {of: []child{{"begin", 1, 1}, {"end", 1, 1}}},
	"date_range/begin":                  {text: `\d+`},
	"date_range/end":                    {text: `\d+`},
	"report_metadata/org_name":          {text: `.*`},
	"report_metadata/email":             {text: `.*`},
	"report_metadata/report_id":         {text: `.+`},
	"policy_published":                  {of: []child{{"domain", 1, 1}, {"adkim", 0, 1}, {"aspf", 0, 1}, {"p", 1, 1}, {"sp", 1, 1}, {"np", 0, 1}, {"pct", 1, 1}, {"fo", 1, 1}, {"testing", 0, 1}, {"discovery_method", 0, 1}}},
	"policy_published/domain":           {text: `.+`},
	"policy_published/adkim":            {text: alignment},
	"policy_published/aspf":             {text: alignment},
	"policy_published/p":                {text: disposition},
	"policy_published/sp":               {text: disposition},
	"policy_published/np":               {text: disposition}, // RFC 9990
	"policy_published/pct":              {text: `\d+`},
	"policy_published/fo":               {text: `[01ds]( *: *[01ds])*`},
	"policy_published/testing":          {text: `y|n`},          // RFC 9990
	"policy_published/discovery_method": {text: `psl|treewalk`}, // RFC 9990
	"record":                            {of: []child{{"row", 1, 1}, {"identifiers", 1, 1}, {"auth_results", 1, 1}}},
	"row":                               {of: []child{{"source_ip", 1, 1}, {"count", 1, 1}, {"policy_evaluated", 1, 1}}},
	"row/source_ip":                     {text: `[0-9a-f.:]+`},
	"row/count":                         {text: `[1-9]\d*`},
	"policy_evaluated":                  {of: []child{{"disposition", 1, 1}, {"dkim", 1, 1}, {"spf", 1, 1}, {"reason", 0, many}}},
	"policy_evaluated/disposition":      {text: disposition},
	"policy_evaluated/dkim":             {text: `pass|fail`},
	"policy_evaluated/spf":              {text: `pass|fail`},
	"reason":                            {of: []child{{"type", 1, 1}, {"comment", 0, 1}}},
	"reason/type":                       {text: `forwarded|sampled_out|trusted_forwarder|mailing_list|local_policy|other|policy_test_mode`}, // the last: RFC 9990
	"reason/comment":                    {text: `.*`},
	"identifiers":                       {of: []child{{"envelope_to", 0, 1}, {"envelope_from", 1, 1}, {"header_from", 1, 1}}},
	"identifiers/envelope_from":         {text: `.*`},
	"identifiers/header_from":           {text: `.+`},
	"auth_results":                      {of: []child{{"dkim", 0, many}, {"spf", 1, many}}},
	"auth_results/dkim":                 {of: []child{{"domain", 1, 1}, {"selector", 0, 1}, {"result", 1, 1}}},
	"auth_results/spf":                  {of: []child{{"domain", 1, 1}, {"scope", 1, 1}, {"result", 1, 1}}},
	"dkim/domain":                       {text: `.+`},
	"dkim/selector":                     {text: `.*`},
	"dkim/result":                       {text: `none|pass|fail|policy|neutral|temperror|permerror`},
	"spf/domain":                        {text: `.*`},
	"spf/scope":                         {text: `helo|mfrom`},
	"spf/result":                        {text: `none|neutral|pass|fail|softfail|temperror|permerror`},
}

type element struct {
	XMLName  xml.Name
	Attrs    []xml.Attr `xml:",any,attr"`
	Children []element  `xml:",any"`
	Text     string     `xml:",chardata"`
}

// check holds a report against the schema.
func check(t *testing.T, text []byte) {
	t.Helper()
	var root element
	if err := xml.Unmarshal(text, &root); err != nil {
		t.Fatalf("%v\n%s", err, text)
	}
	if root.XMLName.Local != "feedback" {
		t.Fatalf("the report is a %s", root.XMLName.Local)
	}
	obeys(t, "", root)
}

func obeys(t *testing.T, parent string, e element) {
	t.Helper()
	name := e.XMLName.Local
	r, ok := schema[parent+"/"+name]
	if !ok {
		r, ok = schema[name]
	}
	if !ok || len(e.Attrs) > 0 || e.XMLName.Space != "" {
		t.Errorf("the schema does not know %s in %s with %v", name, parent, e.Attrs)
		return
	}
	if r.of == nil {
		if len(e.Children) > 0 || !regexp.MustCompile("^(?s:"+r.text+")$").MatchString(e.Text) {
			t.Errorf("%s/%s is %q", parent, name, e.Text)
		}
		return
	}
	at := 0
	for _, c := range r.of {
		n := 0
		for at < len(e.Children) && e.Children[at].XMLName.Local == c.name {
			obeys(t, name, e.Children[at])
			at, n = at+1, n+1
		}
		if n < c.min || n > c.most {
			t.Errorf("%s has %d %s", name, n, c.name)
		}
	}
	if at < len(e.Children) {
		t.Errorf("%s in %s stands where it must not", e.Children[at].XMLName.Local, name)
	}
}
