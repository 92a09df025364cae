package program

import (
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"

	"sluice/cmd/sluice/program/config"
	"sluice/pipeline"
)

// A found says where the file of a recipient's copy is now.
type found struct {
	Recipient string `json:"recipient"`
	Account   string `json:"account"`
	File      string `json:"file"` // its name when it was delivered
	Folder    string `json:"folder,omitempty"`
	Path      string `json:"path,omitempty"`
	Gone      string `json:"gone,omitempty"` // why it was not found
}

// text prints records for a person. Whatever comes from a mail is shown without control characters.
type text struct {
	w   io.Writer
	err error
	// hypothetical: nothing has happened, check only asks what would.
	hypothetical bool
}

func (t *text) line(indent int, format string, args ...any) {
	if t.err != nil {
		return
	}
	s := config.Printable(fmt.Sprintf(format, args...))
	_, t.err = fmt.Fprintf(t.w, "%s%s\n", strings.Repeat("  ", indent), strings.TrimRight(s, " "))
}

// record prints r.
func (t *text) record(r *pipeline.Record, files []found) {
	if !t.hypothetical {
		t.line(0, "%s", r.ID)
		t.line(1, "%-10s %s at %s", "received", r.Received.Format(time.RFC3339), r.Door)
	}
	t.line(1, "%-10s %s", "client", describeClient(r.Client))
	if r.Greeting != "" {
		t.line(1, "%-10s %s", "greeting", r.Greeting)
	}
	t.line(1, "%-10s <%s>", "from", r.Sender.Raw)
	if said := asked(r.Asked); said != "" {
		t.line(1, "%-10s %s", "asked for", said)
	}
	if r.MessageID != "" {
		t.line(1, "%-10s <%s>", "message", r.MessageID)
	}
	if r.Subject != "" {
		t.line(1, "%-10s %s", "subject", r.Subject)
	}
	if r.Size > 0 {
		t.line(1, "%-10s %d octets", "size", r.Size)
	}
	if r.QueueID != "" {
		t.line(1, "%-10s %s", "queue id", r.QueueID)
	}
	if !t.hypothetical {
		t.line(1, "%-10s %s", "end", end(r))
	}
	t.steps(1, r.Steps)
	t.line(1, "recipients")
	for i := range r.Recipients {
		t.recipient(&r.Recipients[i], files)
	}
}

// asked says what the sender asked for with MAIL, as it did.
func asked(a pipeline.Asked) string {
	var all []string
	if a.UTF8 {
		all = append(all, "SMTPUTF8")
	}
	all = append(all, given("BODY", a.Body)...)
	all = append(all, given("RET", a.Return)...)
	return strings.Join(append(all, given("ENVID", a.EnvelopeID)...), " ")
}

// given returns a parameter that has a value, "RET=HDRS", or none.
func given(name, value string) []string {
	if value == "" {
		return nil
	}
	return []string{name + "=" + value}
}

func end(r *pipeline.Record) string {
	s := r.End
	if r.Reply != (pipeline.Reply{}) {
		s += ", answered " + r.Reply.String()
	}
	if r.Note != "" {
		s += ": " + r.Note
	}
	return s
}

func describeClient(c pipeline.Client) string {
	if !c.Known() {
		if c.Login != "" {
			return "logged in as " + c.Login
		}
		return "unknown"
	}
	s := c.Addr.String()
	if c.Name != "" {
		s += " (" + c.Name + ")"
	}
	if c.Login != "" {
		s += ", logged in as " + c.Login
	}
	if c.Trusted {
		s += ", trusted"
	}
	if c.TLS != "" {
		s += ", " + c.TLS
	}
	return s
}

// steps prints what the steps said: facts, rules, errors.
func (t *text) steps(indent int, steps []pipeline.StepRecord) {
	t.facts(indent, steps)
	var hits, undecided, errs []func()
	for _, s := range steps {
		for _, h := range s.Hits {
			hits = append(hits, func() {
				t.line(indent+1, "%-28s %s%s", s.Name+"/"+h.Name, score(h.Score), shadow(h.Shadow || s.Shadow))
				for _, e := range h.Evidence {
					t.line(indent+2, "%s: %s", e.Where, e.What)
				}
				for _, e := range effects(s, h.Name) {
					t.line(indent+2, "-> %s", e)
				}
			})
		}
		for _, u := range s.Undecided {
			undecided = append(undecided, func() {
				t.line(indent+1, "%-28s %s%s", s.Name+"/"+u.Name, u.Why, shadow(u.Shadow || s.Shadow))
			})
		}
		for _, x := range s.Stages {
			// check has asked nothing of the network: what came of that is no error, and stands among the facts.
			if x.State == "error" && !(t.hypothetical && strings.Contains(x.Why, errOffline.Error())) {
				errs = append(errs, func() {
					policy := "skip"
					if x.OnError != nil {
						policy = x.OnError.String()
					}
					t.line(indent+1, "%-28s at %s: %s; on_error: %s%s", s.Name, x.Phase, x.Why, policy, shadow(s.Shadow))
				})
			}
		}
	}
	for _, section := range []struct {
		title string
		lines []func()
	}{{"rules that held", hits}, {"rules that could not be decided", undecided}, {"errors", errs}} {
		if len(section.lines) == 0 {
			continue
		}
		t.line(indent, "%s", section.title)
		for _, line := range section.lines {
			line()
		}
	}
}

// effects says what a rule wanted done, besides a verdict.
func effects(s pipeline.StepRecord, rule string) (all []string) {
	for _, x := range s.Stages {
		for _, e := range x.Effects {
			switch {
			case e.By != rule:
			case e.Kind == pipeline.FileInto:
				all = append(all, "file into "+folder(e.Folder))
			case e.Kind == pipeline.AddFlags:
				all = append(all, "flag "+strings.Join(e.Flags, " "))
			}
		}
	}
	return all
}

func (t *text) facts(indent int, steps []pipeline.StepRecord) {
	title := false
	for _, s := range steps {
		if len(s.Fact) == 0 && s.Unknown == "" && len(s.Missing) == 0 {
			continue
		}
		if !title {
			t.line(indent, "facts")
			title = true
		}
		switch {
		case len(s.Fact) > 0:
			t.line(indent+1, "%-28s %s%s", s.Name, compact(s.Fact), shadow(s.Shadow))
		case s.Unknown != "":
			t.line(indent+1, "%-28s unknown: %s%s", s.Name, s.Unknown, shadow(s.Shadow))
		}
		// Often many fields are unknown for one reason.
		names := map[string][]string{}
		for _, name := range sortedKeys(s.Missing) {
			names[s.Missing[name]] = append(names[s.Missing[name]], name)
		}
		for _, why := range slices.SortedFunc(maps.Keys(names), func(a, b string) int { return strings.Compare(names[a][0], names[b][0]) }) {
			field := strings.Join(names[why], ", ")
			if len(names[why]) > 1 {
				field = "{" + field + "}"
			}
			t.line(indent+1, "%-28s unknown: %s", s.Name+"."+field, why)
		}
	}
}

// A fact of more than this many characters is shown without what is empty, 0 or false.
const longFact = 200

// compact writes JSON as rules would name it: {zen: {listed: true}}.
func compact(raw json.RawMessage) string {
	var v any
	if json.Unmarshal(raw, &v) != nil {
		return string(raw)
	}
	whole := plain(v)
	if len(whole) <= longFact {
		return whole
	}
	if v, left := something(v); left {
		return plain(v) + ", the rest is empty, 0 or false"
	}
	return "all is empty, 0 or false"
}

// something is a value without what in it is empty, 0 or false, and whether anything is left.
func something(v any) (any, bool) {
	switch v := v.(type) {
	case map[string]any:
		out := map[string]any{}
		for k, x := range v {
			if x, ok := something(x); ok {
				out[k] = x
			}
		}
		return out, len(out) > 0
	case []any:
		var out []any
		for _, x := range v {
			x, _ = something(x)
			out = append(out, x)
		}
		return out, len(out) > 0
	case string:
		return v, v != ""
	case bool:
		return v, v
	case float64:
		return v, v != 0
	}
	return v, v != nil
}

func plain(v any) string {
	switch v := v.(type) {
	case map[string]any:
		var parts []string
		for _, k := range sortedKeys(v) {
			parts = append(parts, k+": "+plain(v[k]))
		}
		return "{" + strings.Join(parts, ", ") + "}"
	case []any:
		var parts []string
		for _, x := range v {
			parts = append(parts, plain(x))
		}
		return "[" + strings.Join(parts, ", ") + "]"
	case string:
		if v == "" || strings.ContainsAny(v, ` ,:{}[]"`) {
			return strconv.Quote(v)
		}
		return v
	case nil:
		return "none"
	case float64:
		return strconv.FormatFloat(v, 'g', -1, 64)
	}
	return fmt.Sprint(v)
}

func sortedKeys[T any](m map[string]T) []string {
	var keys []string
	for k := range m {
		keys = append(keys, k)
	}
	slices.Sort(keys)
	return keys
}

func score(x float64) string {
	if x == 0 {
		return ""
	}
	return strconv.FormatFloat(x, 'f', -1, 64)
}

func shadow(on bool) string {
	if on {
		return " (shadow: recorded only)"
	}
	return ""
}

func (t *text) recipient(x *pipeline.RecipientRecord, files []found) {
	t.line(2, "%s", x.Address.Raw)
	if x.Account != "" && x.Account != x.Address.String() {
		t.line(3, "%-10s %s", "account", x.Account)
	}
	if said := append(given("NOTIFY", x.Notify), given("ORCPT", x.ORCPT)...); len(said) > 0 {
		t.line(3, "%-10s %s", "asked for", strings.Join(said, " "))
	}
	if t.hypothetical {
		t.line(3, "%-10s %s", "would be", outcome(x, true))
	} else {
		t.line(3, "%-10s %s", "outcome", outcome(x, false))
	}
	t.line(3, "%-10s %s", "decided by", decidedBy(x))
	if x.Verdict.Reason != "" {
		t.line(3, "%-10s %s", "reason", x.Verdict.Reason)
	}
	if x.Score != 0 {
		t.line(3, "%-10s %s", "score", score(x.Score))
	}
	if x.FolderBy != "" {
		t.line(3, "%-10s %s, chosen by %s", "folder", folder(x.Folder), x.FolderBy)
	}
	if len(x.Flags) > 0 {
		t.line(3, "%-10s %s", "flags", strings.Join(x.Flags, " "))
	}
	if x.Exempt != "" {
		t.line(3, "%-10s refusals that look at the envelope only did not count: %s", "exempt", x.Exempt)
	}
	if x.Note != "" {
		t.line(3, "%-10s %s", "note", x.Note)
	}
	if x.Held != "" {
		t.line(3, "%-10s sluice quarantine show %s", "held as", x.Held)
	}
	for _, f := range files {
		if f.Account != x.Account || f.File != x.File {
			continue
		}
		if f.Path != "" {
			t.line(3, "%-10s %s (%s)", "file now", f.Path, folder(f.Folder))
		} else {
			t.line(3, "%-10s %s: %s", "file", x.File, f.Gone)
		}
	}
	t.steps(3, x.Steps)
}

func folder(name string) string {
	if name == "" {
		return "INBOX"
	}
	return name
}

// outcome says what became of the mail for a recipient.
func outcome(x *pipeline.RecipientRecord, hypothetical bool) string {
	s := string(x.Disposition)
	switch x.Disposition {
	case pipeline.Delivered:
		if x.File == "" && !hypothetical {
			return "left to the MTA, for " + folder(x.Folder)
		}
		s += " to " + folder(x.Folder)
	case pipeline.Refused, pipeline.Postponed:
		if x.Reply != (pipeline.Reply{}) {
			s += ": " + x.Reply.String()
		} else if x.Verdict.Reply != (pipeline.Reply{}) {
			s += ": " + x.Verdict.Reply.String()
		}
	case pipeline.Held:
		if x.Verdict.Action.Refuses() {
			s += ", since a refusal could not reach the sender any more: " + x.Verdict.Reply.String()
		}
	case pipeline.Repeated:
		s = "nothing again: " + x.Reply.String()
	case pipeline.NotFinished:
		s = "nothing: the transaction ended before"
	}
	return s
}

// decidedBy names the step and the rule whose verdict it was.
func decidedBy(x *pipeline.RecipientRecord) string {
	switch {
	case x.Disposition == pipeline.Repeated:
		return "an earlier attempt"
	case x.Step == "" && x.Verdict.Action == pipeline.Pass && (x.Disposition == pipeline.Refused || x.Disposition == pipeline.Postponed):
		return "the door"
	case x.Step == "" && x.Verdict.Action == pipeline.Pass:
		return "nobody objected"
	case x.Step == "":
		return x.Verdict.Action.String()
	case x.Verdict.At < 0:
		return fmt.Sprintf("%s: %s (its on_error)", x.Step, x.Verdict.Action)
	case x.Verdict.By != "":
		return fmt.Sprintf("%s/%s: %s", x.Step, x.Verdict.By, x.Verdict.Action)
	}
	return fmt.Sprintf("%s: %s", x.Step, x.Verdict.Action)
}
