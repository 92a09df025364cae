package program

import (
	"cmp"
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

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

	Refiled []refiledBy `json:"refiled,omitempty"` // by runs of refile, the latest first
}

// text prints records for a person. Whatever comes from a mail is shown without control characters.
type text struct {
	w   io.Writer
	err error
	// hypothetical: nothing has happened, check only asks what would.
	hypothetical bool
	colour       bool
	width        int            // of a line; 0: as long as it is
	full         bool           // long values are shown whole
	zone         *time.Location // of the times that are shown; nil: as they were recorded
	more         *insight       // what was worked out by deciding again; nil: nothing was
}

// line prints a line without columns.
func (t *text) line(indent int, format string, args ...any) {
	t.styled(indent, unstyled, format, args...)
}

func (t *text) title(indent int, title string) { t.styled(indent, bold, "%s", title) }

func (t *text) styled(indent int, how style, format string, args ...any) {
	t.print(indent, "", 0, fmt.Sprintf(format, args...), how)
}

// Columns of labels.
const (
	narrow = 10
	middle = 16
	wide   = 28
)

// row prints a label in a column of its own, and a value beside it.
func (t *text) row(indent, column int, label, format string, args ...any) {
	t.styledRow(indent, column, label, unstyled, format, args...)
}

func (t *text) styledRow(indent, column int, label string, how style, format string, args ...any) {
	t.print(indent, label, column, fmt.Sprintf(format, args...), how)
}

// print prints a value, behind a label in a column of its own where that is not 0. What does not fit is folded and goes
// on below the value.
func (t *text) print(indent int, label string, column int, value string, how style) {
	if t.err != nil {
		return
	}
	value = strings.TrimRight(config.Printable(value), " ")
	head := strings.Repeat("  ", indent)
	hang := len(head)
	if column > 0 {
		label = config.Printable(label)
		head += label + strings.Repeat(" ", max(0, column-utf8.RuneCountInString(label))) + " "
		hang += column + 1
	} else {
		hang += 2
	}
	room := 0
	if t.width > 0 {
		room = max(t.width-hang, t.width/3)
	}
	var b strings.Builder
	for i, line := range fold(value, room) {
		if i > 0 {
			head = strings.Repeat(" ", hang)
		}
		if line == "" {
			head = strings.TrimRight(head, " ")
		}
		b.WriteString(head + t.painted(line, how) + "\n")
	}
	_, t.err = io.WriteString(t.w, b.String())
}

// record prints r: first what was decided about each recipient and by whom, then who brought the mail, then what was found.
func (t *text) record(r *pipeline.Record, files []found) {
	if !t.hypothetical {
		t.styled(0, bold, "%s", r.ID)
	}
	t.title(1, "recipients")
	for i := range r.Recipients {
		t.recipient(r, &r.Recipients[i], files)
	}
	t.envelope(r)
	t.steps(1, "", r.Steps, r)
	t.again()
}

// local is a time in the zone of whoever reads.
func (t *text) local(x time.Time) time.Time {
	if t.zone == nil {
		return x
	}
	return x.In(t.zone)
}

// envelope prints who brought the mail, and what came of the transaction.
func (t *text) envelope(r *pipeline.Record) {
	t.title(1, "mail")
	if !t.hypothetical {
		t.row(2, narrow, "received", "%s at %s", t.local(r.Received).Format(time.RFC3339), r.Door)
	}
	t.row(2, narrow, "client", "%s", describeClient(r.Client))
	for _, x := range []struct{ label, value string }{
		{"greeting", r.Greeting}, {"from", "<" + r.Sender.Raw + ">"}, {"asked for", asked(r.Asked)}, {"message", bracketed(r.MessageID)},
		{"subject", r.Subject}, {"size", inOctets(r.Size)}, {"queue id", r.QueueID},
	} {
		if x.value != "" {
			t.row(2, narrow, x.label, "%s", x.value)
		}
	}
	if !t.hypothetical {
		t.row(2, narrow, "end", "%s", end(r))
	}
	if x := r.Redacted; x != nil {
		t.row(2, narrow, "redacted", "%s", x)
	}
}

func bracketed(id string) string {
	if id == "" {
		return ""
	}
	return "<" + id + ">"
}

func inOctets(n int64) string {
	if n <= 0 {
		return ""
	}
	return strconv.FormatInt(n, 10) + " octets"
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

// steps prints what the steps said about everybody, or about one recipient: rules, errors, facts.
func (t *text) steps(indent int, recipient string, steps []pipeline.StepRecord, r *pipeline.Record) {
	var hits, undecided, errs, open []func()
	for _, s := range steps {
		for _, h := range s.Hits {
			hits = append(hits, func() { t.hit(indent+1, s, h, capped(r, recipient, s, h)) })
		}
		for _, u := range s.Undecided {
			undecided = append(undecided, func() {
				t.styledRow(indent+1, wide, s.Name+"/"+u.Name, yellow, "%s%s", u.Why, shadow(u.Shadow || s.Shadow))
			})
		}
		for _, x := range s.Stages {
			if x.State == "not finished" || x.State == "not run" {
				open = append(open, func() {
					t.styledRow(indent+1, wide, s.Name, faint, "at %s: %s: %s%s", x.Phase, x.State, x.Why, shadow(true))
				})
			}
			// check has asked nothing of the network: what came of that is no error, and stands among the facts.
			if x.State == "error" && !(t.hypothetical && strings.Contains(x.Why, errOffline.Error())) {
				errs = append(errs, func() {
					policy := "skip"
					if x.OnError != nil {
						policy = x.OnError.String()
					}
					t.styledRow(indent+1, wide, s.Name, red, "at %s: %s; on_error: %s%s", x.Phase, x.Why, policy, shadow(s.Shadow))
				})
			}
		}
	}
	for _, section := range []struct {
		title string
		lines []func()
	}{
		{"rules that held", hits}, {"rules that nearly held", t.near(indent+1, recipient)},
		{"rules that could not be decided", undecided}, {"errors", errs},
		{"not asked yet, or not at all", open},
	} {
		if len(section.lines) == 0 {
			continue
		}
		t.title(indent, section.title)
		for _, line := range section.lines {
			line()
		}
	}
	t.facts(indent, steps)
}

// hit prints a rule that held, what it saw and where, and what it wanted done.
func (t *text) hit(indent int, s pipeline.StepRecord, h pipeline.Hit, capped string) {
	value := score(h.Score) + capped
	counts := shadow(h.Shadow || s.Shadow)
	if h.Off && !s.Shadow {
		counts = " (off: recorded only)"
	}
	t.row(indent, wide, s.Name+"/"+h.Name, "%s%s", value, counts)
	if h.Note != "" {
		t.line(indent+1, "%s", h.Note)
	}
	for _, e := range h.Evidence {
		where := ""
		if at := e.Position.String(); e.Position.Column > 0 || e.Position.Part != "" {
			where = " (" + at + ")"
		}
		t.line(indent+1, "%s: %s%s", e.Where, e.What, where)
	}
	for _, e := range effects(s, h.Name, h.At) {
		t.line(indent+1, "-> %s", e)
	}
}

// capped says how much of a rule's score the bounds of its group let count, where that is not all of it: for one recipient,
// or for everybody if recipient is empty.
func capped(r *pipeline.Record, recipient string, s pipeline.StepRecord, h pipeline.Hit) string {
	if h.Group == nil || h.Shadow || s.Shadow {
		return ""
	}
	var counts []float64
	for i := range r.Recipients {
		x := &r.Recipients[i]
		if recipient != "" && recipient != x.Address.Raw {
			continue
		}
		hits := r.HitsOf(x)
		for i, count := range pipeline.Counted(hits) {
			if hits[i].Step == s.Name && hits[i].At == h.At && !slices.Contains(counts, count) {
				counts = append(counts, count)
			}
		}
	}
	if len(counts) == 0 || len(counts) == 1 && counts[0] == h.Score {
		return ""
	}
	slices.Sort(counts)
	var all []string
	for _, count := range counts {
		all = append(all, numeral(count))
	}
	return fmt.Sprintf(", of which %s counts: %s", strings.Join(all, " or "), bounds(h.Group))
}

func bounds(g *pipeline.Group) string {
	var all []string
	if g.Max != nil {
		all = append(all, "at most "+numeral(*g.Max))
	}
	if g.Min != nil {
		all = append(all, "at least "+numeral(*g.Min))
	}
	return "group " + g.Name + " adds " + strings.Join(all, " and ")
}

// mostNear is how many rules that nearly held are shown, unless all are asked for.
const mostNear = 10

// near returns the lines about rules that were one term short.
func (t *text) near(indent int, recipient string) (lines []func()) {
	if t.more == nil {
		return nil
	}
	for _, n := range t.more.Near {
		if n.Recipient != recipient {
			continue
		}
		if len(lines) == mostNear && !t.full {
			return append(lines, func() { t.styled(indent, faint, "and others: --full shows them") })
		}
		would := ""
		if n.Score != 0 {
			would += ", " + score(n.Score)
		}
		if n.Action != pipeline.Pass {
			would += ", " + n.Action.String()
		}
		lines = append(lines, func() {
			t.row(indent, wide, n.Step+"/"+n.Rule, "`%s` was %s%s (%s)%s", n.Term, n.Came, would, n.Place, shadow(n.Shadow))
		})
	}
	return lines
}

// again says what came of deciding again.
func (t *text) again() {
	x := t.more
	if x == nil {
		return
	}
	with := "with " + x.With
	if x.WhyNot != "" {
		with += " (" + x.WhyNot + ")"
	}
	switch {
	case x.Unknown != "":
		t.row(1, narrow, "replay", "not possible: %s", x.Unknown)
	case len(x.Differences) == 0 && len(x.Gaps) == 0:
		t.row(1, narrow, "replay", "%s: as recorded", with)
	case len(x.Differences) == 0:
		t.row(1, narrow, "replay", "%s: as recorded, but not certain: %s", with, strings.Join(x.Gaps, "; "))
	default:
		t.styledRow(1, narrow, "replay", red, "%s: NOT as recorded", with)
		for _, d := range x.Differences {
			t.line(2, "%s", d)
		}
	}
}

// effects says what a rule wanted done, besides a verdict.
func effects(s pipeline.StepRecord, rule string, at int) (all []string) {
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
		for _, e := range x.Edits {
			switch {
			case e.At != at:
			case e.Delete:
				all = append(all, "delete the field "+e.Name)
			default:
				all = append(all, "add "+e.Name+": "+e.Value)
			}
		}
	}
	return all
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

func (t *text) recipient(r *pipeline.Record, x *pipeline.RecipientRecord, files []found) {
	t.styled(2, bold, "%s", x.Address.Raw)
	label := "outcome"
	if t.hypothetical {
		label = "would be"
	}
	became := outcome(x, t.hypothetical)
	if became == string(x.Disposition) && r.Reply.Code >= 400 { // one answer for all
		became += ": " + r.Reply.String()
	}
	t.styledRow(3, narrow, label, outcomeStyle(x), "%s", became)
	t.styledRow(3, narrow, "decided by", bold, "%s", decidedBy(r, x))
	if x.Verdict.Reason != "" {
		t.row(3, narrow, "reason", "%s", x.Verdict.Reason)
	}
	if x.FolderBy != "" {
		t.row(3, narrow, "folder", "%s, chosen by %s%s", folder(x.Folder), x.FolderBy, reached(r, x))
	}
	if t.more != nil {
		for _, c := range t.more.Without {
			if c.Recipient == x.Address.Raw {
				t.row(3, narrow, "without", "%s", c)
			}
		}
	}
	if x.Score != 0 {
		t.row(3, narrow, "score", "%s%s", score(x.Score), sums(r.HitsOf(x)))
	}
	for _, s := range x.Steps {
		for _, st := range s.Stages {
			if st.Note != "" && st.Handling == nil {
				t.row(3, narrow, "otherwise", "%s", st.Note)
			}
		}
	}
	t.handling(x)
	if len(x.Flags) > 0 {
		t.row(3, narrow, "flags", "%s", strings.Join(x.Flags, " "))
	}
	if x.Exempt != "" {
		t.row(3, narrow, "exempt", "refusals that look at the envelope only did not count: %s", x.Exempt)
	}
	if x.Note != "" {
		t.row(3, narrow, "note", "%s", x.Note)
	}
	if x.Held != "" {
		where := "quarantine"
		if r.Door == pipeline.Submission {
			where = "queue"
		}
		t.row(3, narrow, "held as", "sluice %s show %s", where, x.Held)
	}
	for _, f := range files {
		if f.Account != x.Account || f.File != x.File {
			continue
		}
		if f.Gone == "" {
			t.row(3, narrow, "file now", "%s (%s)", cmp.Or(f.Path, f.File), folder(f.Folder))
		} else {
			t.row(3, narrow, "file", "%s: %s", x.File, f.Gone)
		}
		for _, m := range f.Refiled {
			t.row(3, narrow, "refiled", "%s, by %s; sluice refile show %s", refileMove{From: m.From, To: m.To, Flags: m.Flags}.where(), m.By, m.Run)
		}
	}
	if x.Account != "" && x.Account != x.Address.String() {
		t.row(3, narrow, "account", "%s", x.Account)
	}
	if said := append(given("NOTIFY", x.Notify), given("ORCPT", x.ORCPT)...); len(said) > 0 {
		t.row(3, narrow, "asked for", "%s", strings.Join(said, " "))
	}
	t.steps(3, x.Address.Raw, x.Steps, r)
}

// reached says which threshold it was that chose the folder: ": score 6 reaches junk: 5".
func reached(r *pipeline.Record, x *pipeline.RecipientRecord) string {
	for _, steps := range [][]pipeline.StepRecord{x.Steps, r.Steps} {
		for _, s := range steps {
			for _, st := range s.Stages {
				for _, e := range st.Effects {
					if s.Name == x.FolderBy && e.Threshold && !e.Shadow && e.Folder == x.Folder && e.Reason != "" {
						return ": " + e.Reason
					}
				}
			}
		}
	}
	return ""
}

// sums shows what a score is the sum of, where it is one.
func sums(hits []pipeline.Hit) string {
	var parts []string
	for i, x := range pipeline.Counted(hits) {
		if x == 0 {
			continue
		}
		sign := " + "
		if x < 0 {
			sign = " - "
		}
		if len(parts) == 0 && x > 0 {
			sign = ""
		}
		parts = append(parts, sign+numeral(max(x, -x))+" "+hits[i].Name)
	}
	if len(parts) < 2 {
		return ""
	}
	return " = " + strings.TrimLeft(strings.Join(parts, ""), " ")
}

// outcomeStyle is how an outcome looks on a terminal.
func outcomeStyle(x *pipeline.RecipientRecord) style {
	switch x.Disposition {
	case pipeline.Delivered:
		return green
	case pipeline.Refused:
		return red
	case pipeline.Held:
		return magenta
	}
	return yellow
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
		if x.File == "" && !hypothetical && x.Handling == nil {
			return "left to the MTA, for " + folder(x.Folder)
		}
		s += " to " + whereTo(x)
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
func decidedBy(r *pipeline.Record, x *pipeline.RecipientRecord) string {
	if by := refusedForAll(r, x); by != nil {
		return fmt.Sprintf("what was said about %s, which is answered for all: %s", by.Address.Raw, decidedBy(r, by))
	}
	switch {
	case x.Disposition == pipeline.Repeated:
		return "an earlier attempt"
	case x.ByDoor || atTheDoor(r, x):
		return "the door"
	case x.Step == "" && x.Verdict.Action == pipeline.Pass && x.Disposition == pipeline.Dropped:
		return "the recipient's own script"
	case x.Step == "" && x.Verdict.Action == pipeline.Pass && x.FolderBy != "" && x.Disposition == pipeline.Delivered:
		return "nobody objected; filed by " + x.FolderBy
	case x.Step == "" && x.Verdict.Action == pipeline.Pass:
		return "nobody objected"
	case x.Step == "":
		return x.Verdict.Action.String()
	case x.Verdict.At < 0:
		return fmt.Sprintf("%s: %s (its on_error)", x.Step, x.Verdict.Action)
	}
	return deciderOf(x) + ": " + x.Verdict.Action.String()
}

// deciderOf names who has given a verdict: "rules/zen", "clamav's on_error".
func deciderOf(x *pipeline.RecipientRecord) string {
	switch {
	case x.Verdict.At < 0:
		return x.Step + "'s on_error"
	case x.Verdict.By != "":
		return x.Step + "/" + x.Verdict.By
	}
	return x.Step
}
