// Package aggregate makes DMARC aggregate reports (RFC 7489, 7.2; RFC 9990) from the records of decisions. What a
// record does not say is not guessed: mail without a record, or whose DMARC question stayed open, is in no report.
package aggregate

import (
	"cmp"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"time"

	"sluice/pipeline"
	"sluice/scanners/dkim"
	"sluice/scanners/dmarc"
	"sluice/scanners/spf"
)

// A Period is what reports are about, by whom.
type Period struct {
	Receiver   string    // who we are, in file names: "mx.example.org"
	Org, Email string    // who reports, and where to ask
	Begin, End time.Time // from Begin to before End
	// Junk are the folders for junk: mail that fails and is filed there was quarantined.
	Junk []string
}

// A Collector collects records into reports, one for each policy that was found.
type Collector struct {
	period   Period
	policies map[policy]*collected
}

// A policy is one record of one domain. A domain that changes it gets a report for each.
type policy struct{ domain, text, discovery string }

type collected struct {
	rows  map[string]*record // by all they say
	count int
}

// New returns an empty Collector.
func New(p Period) *Collector { return &Collector{p, map[policy]*collected{}} }

// Add takes a record into its report and says whether there is one. There is none for mail that was not judged by
// somebody's policy, and none for mail that its sender was asked to offer again.
func (c *Collector) Add(r *pipeline.Record) bool {
	f, ok := factOf[dmarc.Fact](r, "dmarc")
	if !ok || f.Published == "" || f.Result != "pass" && f.Result != "fail" {
		return false
	}
	applied, ok := c.applied(r)
	if !ok {
		return false
	}
	x := record{
		Row:         row{SourceIP: source(r.Client.Addr), Evaluated: evaluated(f, applied)},
		Identifiers: identifiers{EnvelopeFrom: r.Sender.Domain, HeaderFrom: f.Domain},
		Auth:        auth{DKIM: signatures(r), SPF: sender(r)},
	}
	if x.Row.SourceIP == "" {
		return false // the schema has no word for mail from nowhere
	}
	k := policy{f.PublishedAt, f.Published, f.Discovery}
	p := c.policies[k]
	if p == nil {
		p = &collected{rows: map[string]*record{}}
		c.policies[k] = p
	}
	id := fmt.Sprintf("%#v", x)
	if p.rows[id] == nil {
		p.rows[id] = &x
	}
	p.rows[id].Row.Count++
	p.count++
	return true
}

// factOf returns what the first step of a kind that was asked has found.
func factOf[T any](r *pipeline.Record, kind string) (fact T, ok bool) {
	i := slices.IndexFunc(r.Steps, func(s pipeline.StepRecord) bool { return s.Kind == kind && s.Fact != nil })
	if i < 0 || r.Steps[i].Missing["result"] != "" || json.Unmarshal(r.Steps[i].Fact, &fact) != nil {
		var none T
		return none, false
	}
	return fact, true
}

func source(a netip.Addr) string {
	if !a.IsValid() {
		return ""
	}
	return a.Unmap().WithZone("").String()
}

// applied is what was really done with the mail, of several recipients the hardest. ok is false if nothing was.
func (c *Collector) applied(r *pipeline.Record) (applied string, ok bool) {
	has := func(ok func(pipeline.RecipientRecord) bool) bool { return slices.ContainsFunc(r.Recipients, ok) }
	switch {
	case has(func(x pipeline.RecipientRecord) bool {
		// An unknown user, say, is refused without a verdict: that is about the address and not about the mail.
		return x.Disposition == pipeline.Refused && x.Verdict.Action != pipeline.Pass || x.Disposition == pipeline.Dropped
	}):
		return "reject", true
	case has(func(x pipeline.RecipientRecord) bool {
		return x.Disposition == pipeline.Held || x.Disposition == pipeline.Delivered && slices.Contains(c.period.Junk, x.Folder)
	}):
		return "quarantine", true
	}
	return "none", has(func(x pipeline.RecipientRecord) bool { return x.Disposition == pipeline.Delivered })
}

// evaluated says what became of the policy. For mail that passes nothing was done in its name.
func evaluated(f dmarc.Fact, applied string) evaluation {
	e := evaluation{Disposition: "none", DKIM: passed(f.DKIMAligned), SPF: passed(f.SPFAligned)}
	if f.Result == "pass" {
		return e
	}
	e.Disposition = applied
	because := func(kind, comment string) { e.Reasons = append(e.Reasons, reason{kind, comment}) }
	if f.Disposition != f.Policy && f.Testing {
		because("policy_test_mode", "")
	}
	if f.Disposition != f.Policy && f.SampledOut {
		because("sampled_out", "")
	}
	switch {
	case applied == f.Disposition:
	case f.Override == "forwarder":
		because("trusted_forwarder", "")
	case f.Override == "arc":
		because("local_policy", "arc=pass")
	default:
		because("local_policy", "")
	}
	return e
}

func passed(aligned bool) string {
	if aligned {
		return "pass"
	}
	return "fail"
}

// Results that the schema knows (RFC 7489, Appendix C).
var (
	dkimResults = []string{"none", "pass", "fail", "policy", "neutral", "temperror", "permerror"}
	spfResults  = []string{"none", "neutral", "pass", "fail", "softfail", "temperror", "permerror"}
)

func signatures(r *pipeline.Record) (all []dkimResult) {
	f, _ := factOf[dkim.Fact](r, "dkim")
	for _, s := range f.Signatures {
		if s.Domain != "" && slices.Contains(dkimResults, s.Result) {
			all = append(all, dkimResult{s.Domain, s.Selector, s.Result})
		}
	}
	return all
}

// sender says what SPF found. There is always one (RFC 7489, Appendix C): without an answer it is temperror where SPF
// failed, and none where nobody asked.
func sender(r *pipeline.Record) spfResult {
	if f, ok := factOf[spf.Fact](r, "spf"); ok && slices.Contains(spfResults, f.Result) {
		scope := "mfrom"
		if f.Identity == "helo" {
			scope = "helo"
		}
		return spfResult{f.Domain, scope, f.Result}
	}
	x := spfResult{r.Sender.Domain, "mfrom", "none"}
	if x.Domain == "" {
		x = spfResult{r.Greeting, "helo", "none"}
	}
	failed := func(s pipeline.StageRecord) bool { return s.State == "error" }
	if slices.ContainsFunc(r.Steps, func(s pipeline.StepRecord) bool {
		return s.Kind == "spf" && slices.ContainsFunc(s.Stages, failed)
	}) {
		x.Result = "temperror"
	}
	return x
}

// A Report is one file to be.
type Report struct {
	Domain string // whose policy it is
	Count  int    // mails
	// To are the addresses that the policy names for reports (rua=).
	To   []dmarc.Destination
	name string
	feedback
}

// Reports returns the reports, by domain.
func (c *Collector) Reports() []Report {
	var all []Report
	of := map[string]int{}
	for k := range c.policies {
		of[k.domain]++
	}
	for k, p := range c.policies {
		sum := sha256.Sum256(fmt.Appendf(nil, "%q %q %d %d", k, c.period.Receiver, c.period.Begin.Unix(), c.period.End.Unix()))
		id := hex.EncodeToString(sum[:8]) // made again it is the same report
		r := Report{Domain: k.domain, Count: p.count, To: dmarc.Destinations(k.text), name: c.period.name(k.domain, id, of[k.domain] > 1)}
		r.feedback = feedback{
			Version: "1.0",
			Metadata: metadata{
				Org: c.period.Org, Email: c.period.Email, ID: id + "@" + c.period.Receiver,
				Begin: c.period.Begin.Unix(), End: c.period.End.Unix() - 1,
			},
			Policy:  published(k),
			Records: sorted(p.rows),
		}
		all = append(all, r)
	}
	slices.SortFunc(all, func(a, b Report) int {
		return cmp.Or(strings.Compare(a.Domain, b.Domain), strings.Compare(a.Metadata.ID, b.Metadata.ID))
	})
	return all
}

func sorted(rows map[string]*record) (all []record) {
	keys := make([]string, 0, len(rows))
	for k := range rows {
		keys = append(keys, k)
	}
	slices.SortFunc(keys, func(a, b string) int {
		return cmp.Or(cmp.Compare(rows[b].Row.Count, rows[a].Row.Count), strings.Compare(a, b))
	})
	for _, k := range keys {
		all = append(all, *rows[k])
	}
	return all
}

func published(k policy) policyPublished {
	r, err := dmarc.ParseRecord(k.text)
	if err != nil { // then DMARC could not have judged by it
		r = dmarc.Record{P: "none", ADKIM: "r", ASPF: "r", Pct: 100, FO: "0"}
	}
	p := policyPublished{
		Domain: k.domain, ADKIM: r.ADKIM, ASPF: r.ASPF, P: r.P, SP: cmp.Or(r.SP, r.P), Pct: r.Pct, FO: r.FO, NP: r.NP, Testing: r.T,
	}
	if r.NP != "" || r.T != "" || r.PSD != "u" {
		p.Discovery = k.discovery
	}
	return p
}

// name is what RFC 7489, 7.2.1.1 calls the file: who, about whom, from when to when in seconds since 1970, and where
// the domain has several what tells them apart.
func (p Period) name(domain, id string, several bool) string {
	safe := func(s string) string {
		return strings.Map(func(r rune) rune {
			if r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' || strings.ContainsRune("._-", r) {
				return r
			}
			return '_'
		}, s)
	}
	receiver, domain := safe(p.Receiver), safe(domain)
	const most = 200 // a file's name has room for 255
	if over := len(receiver) + len(domain) - most; over > 0 {
		several = true
		if n := max(len(domain)-over, 20); n < len(domain) {
			domain = domain[len(domain)-n:]
		}
		receiver = receiver[:min(len(receiver), most-20)]
	}
	name := fmt.Sprintf("%s!%s!%d!%d", receiver, domain, p.Begin.Unix(), p.End.Unix()-1)
	if several {
		name += "!" + id
	}
	return name + ".xml"
}
