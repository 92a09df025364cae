package program

import (
	"encoding/json"
	"net/netip"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"sluice/pipeline"
)

// What says HIDDEN is nothing for the owner of a mailbox, and what says SHOWN is.
func TestOwnersView(t *testing.T) {
	at := pipeline.Position{Field: "Subject", Line: 1, Column: 3}
	hit := func(name, where string, at pipeline.Position) pipeline.Hit {
		return pipeline.Hit{Name: name, Score: 1, Note: "HIDDEN in x.yaml", Evidence: []pipeline.Evidence{{Where: where, What: where, Position: at}}}
	}
	quiet := hit("HIDDEN trial", "HIDDEN", at)
	quiet.Shadow = true
	steps := func() []pipeline.StepRecord {
		return []pipeline.StepRecord{
			{Name: "spf", Kind: "spf", Fact: json.RawMessage(`{"a":"SHOWN spf"}`), Missing: map[string]string{"x": "HIDDEN timeout"}},
			{Name: "dkim", Kind: "dkim", Unknown: "HIDDEN: no answer of 10.0.0.1"},
			{Name: "dnsbl", Kind: "dnsbl", Fact: json.RawMessage(`{"a":"HIDDEN"}`)},
			{Name: "HIDDEN step", Kind: "spf", Shadow: true, Fact: json.RawMessage(`{"a":"HIDDEN"}`)},
			{Name: "rules", Kind: "rules", Hits: []pipeline.Hit{
				hit("SHOWN rule", "SHOWN term", at), hit("fact", "HIDDEN", pipeline.Position{}), hit("HIDDEN_fraud", "HIDDEN", at), quiet,
			}, Undecided: []pipeline.Undecided{{Name: "SHOWN open", Why: "HIDDEN"}, {Name: "HIDDEN_too"}, {Name: "HIDDEN trial", Shadow: true}},
				Stages: []pipeline.StageRecord{{State: "error", Why: "HIDDEN", Note: "HIDDEN", Effects: []pipeline.Effect{{Reason: "HIDDEN"}}}}},
		}
	}
	rcpt := func(account, local string) pipeline.RecipientRecord {
		return pipeline.RecipientRecord{
			Recipient: pipeline.Recipient{Account: account, Address: pipeline.Address{Raw: "SHOWN address", Local: local, Domain: "x.example", Tag: "lists"}},
			Verdict:   pipeline.Verdict{Action: pipeline.Quarantine, By: "HIDDEN_fraud", Reason: "HIDDEN"}, Step: "rules", FolderBy: "rules/HIDDEN_fraud",
			Steps: steps(), Note: "HIDDEN",
		}
	}
	other := pipeline.RecipientRecord{Recipient: pipeline.Recipient{Account: "HIDDEN", Address: pipeline.Address{Raw: "HIDDEN"}}, Steps: steps()}
	r := &pipeline.Record{
		ID: "m1", Subject: "SHOWN subject", Note: "HIDDEN", Steps: steps(),
		Client:     pipeline.Client{Addr: netip.MustParseAddr("192.0.2.1"), Name: "SHOWN client", Login: "HIDDEN", Trusted: true, NameUnknown: "HIDDEN"},
		Recipients: []pipeline.RecipientRecord{other, rcpt("me@x.example", "me"), rcpt("", "me")},
		Timings:    []pipeline.Timing{{Step: "HIDDEN", Took: time.Second}},
	}
	before := asJSON(t, r)
	seen := ownersView([]*pipeline.Record{r, {ID: "HIDDEN", Recipients: []pipeline.RecipientRecord{other}}}, "me@x.example", []string{"rules/HIDDEN_*"})
	if len(seen) != 1 || len(seen[0].Recipients) != 2 {
		t.Fatalf("sees %d records", len(seen))
	}
	files := ownersFiles([]found{{Folder: "SHOWN folder", Path: "/HIDDEN"}, {Gone: "HIDDEN: permission denied"}})
	form, err := json.Marshal([]any{seen, files})
	if err != nil {
		t.Fatal(err)
	}
	var b strings.Builder
	(&text{w: &b}).record(seen[0], files)
	for form, shown := range map[string]string{"JSON": string(form), "text": b.String()} {
		for line := range strings.SplitSeq(strings.ReplaceAll(shown, ",", "\n"), "\n") {
			if strings.Contains(line, "HIDDEN") || strings.Contains(line, "trusted") {
				t.Errorf("%s shows %s", form, line)
			}
		}
		for _, want := range []string{"subject", "client", "address", "spf", "rule", "term", "open"} {
			if !strings.Contains(shown, "SHOWN "+want) {
				t.Errorf("%s does not show the %s:\n%s", form, want, shown)
			}
		}
		for _, want := range []string{privateRule, notKnown} {
			if !strings.Contains(shown, want) {
				t.Errorf("%s does not say %s:\n%s", form, want, shown)
			}
		}
	}
	if !reflect.DeepEqual(before, asJSON(t, r)) {
		t.Error("the record itself was changed")
	}
}

// Whoever adds a field to records decides whether owners of mailboxes see it, in ownerView, and says so here.
func TestOwnersSeeNoFieldThatNobodyDecidedAbout(t *testing.T) {
	var r pipeline.Record
	setAll(reflect.ValueOf(&r).Elem())
	r.Recipients[0].Account = "me@x.example"
	for _, steps := range []*[]pipeline.StepRecord{&r.Steps, &r.Recipients[0].Steps} {
		s := &(*steps)[0]
		s.Kind, s.Shadow, s.Hits[0].Shadow, s.Undecided[0].Shadow = "spf", false, false, false
	}
	seen := ownersView([]*pipeline.Record{&r}, "me@x.example", nil)
	if len(seen) != 1 {
		t.Fatal("sees nothing")
	}
	var fields []string
	var walk func(path string, x any)
	walk = func(path string, x any) {
		switch x := x.(type) {
		case map[string]any:
			for k, v := range x {
				walk(strings.TrimPrefix(path+"."+k, "."), v)
			}
		case []any:
			for _, v := range x {
				walk(path, v)
			}
		default:
			if !slices.Contains(fields, path) {
				fields = append(fields, path)
			}
		}
	}
	walk("", asJSON(t, seen[0]))
	slices.Sort(fields)
	address := []string{"domain", "local", "name", "raw", "tag"}
	step := []string{
		"at", "fact.listed", "hits.action", "hits.at", "hits.evidence.position.column", "hits.evidence.position.field",
		"hits.evidence.position.line", "hits.evidence.position.part", "hits.evidence.what", "hits.evidence.where", "hits.group.max",
		"hits.group.min", "hits.group.name", "hits.name", "hits.off", "hits.phase", "hits.score", "kind", "missing.key", "name",
		"undecided.at", "undecided.name", "undecided.why", "unknown",
	}
	want := []string{
		"asked.body", "asked.envid", "asked.ret", "asked.smtputf8", "client.addr", "client.name", "client.tls", "completes", "door", "end", "greeting", "id",
		"message_id", "once", "plan", "queue_id", "received", "redacted.at", "redacted.what", "reply.code", "reply.enhanced", "reply.text", "reply.utf8",
		"sha256", "size", "subject", "version",
	}
	for _, x := range []struct {
		below  string
		fields []string
	}{
		{"sender.", address}, {"recipients.address.", address}, {"recipients.original.", address}, {"steps.", step}, {"recipients.steps.", step},
		{"recipients.", []string{
			"account", "disposition", "exempt", "by_door", "file", "flags", "folder", "folder_by", "held", "notify", "orcpt", "reply.code",
			"reply.enhanced", "reply.text", "reply.utf8", "score", "step", "until", "verdict.action", "verdict.at", "verdict.by", "verdict.reply.code",
			"verdict.reply.enhanced", "verdict.reply.text", "verdict.reply.utf8",
		}},
		{"recipients.handling.", []string{"at", "dropped", "failed", "notes", "runs.by", "runs.program", "shadow"}},
		{"recipients.handling.copies.", []string{"altered", "by", "existing", "file", "flags", "folder", "kept", "note", "use"}},
		{"recipients.handling.leaving.", []string{"altered", "by", "kind", "notify", "queued", "ret", "sender", "subject", "to"}},
	} {
		for _, f := range x.fields {
			want = append(want, x.below+f)
		}
	}
	slices.Sort(want)
	for _, f := range fields {
		if !slices.Contains(want, f) {
			t.Errorf("owners see %s", f)
		}
	}
	for _, f := range want {
		if !slices.Contains(fields, f) {
			t.Errorf("owners do not see %s", f)
		}
	}
}

func TestWildcard(t *testing.T) {
	for _, tt := range []struct {
		pattern, text string
		want          bool
	}{
		{"rules/a", "rules/a", true}, {"rules/a", "rules/ab", false}, {"rules/*", "rules/ab", true}, {"*/ab", "rules/ab", true},
		{"rules/a*b", "rules/ab", true}, {"rules/a*b", "rules/a", false}, {"ab*b", "ab", false}, {"*x*y*", "axbyc", true}, {"*x*y*", "aybxc", false},
		{"rules/[a]", "rules/a", false}, {"*", "", true}, {"a**b", "a/b", true},
	} {
		if got := wildcard(tt.pattern, tt.text); got != tt.want {
			t.Errorf("%s, %s: %v", tt.pattern, tt.text, got)
		}
	}
}
