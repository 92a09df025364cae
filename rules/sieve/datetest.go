package sieve

import (
	"strings"
	"time"

	"sluice/pipeline/mime"
)

// dateExtension: RFC 5260.
func dateExtension() []extension {
	zone := tag{name: "zone", takes: text, group: "zone", check: checkZone}
	return []extension{{
		name: "date",
		tests: []form{
			{
				name: "date", tags: append(matchTags(), zone, tag{name: "originalzone", group: "zone"}), matches: true,
				args: []positional{
					{name: "name of a field", shape: text}, {name: "part of a date", shape: text}, {name: "keys", shape: texts},
				},
				check: func(c *checker, n *call) { checkFieldNames(c, n); checkDatePart(c, &n.args[1]) }, holds: dateTest,
			},
			{
				name: "currentdate", tags: append(matchTags(), zone), matches: true,
				args:  []positional{{name: "part of a date", shape: text}, {name: "keys", shape: texts}},
				check: func(c *checker, n *call) { checkDatePart(c, &n.args[0]) }, holds: currentDateTest,
			},
		},
	}}
}

// dateParts: RFC 5260, 4.2.
var dateParts = [...]struct {
	name string
	of   func(t time.Time) string
}{
	{"year", func(t time.Time) string { return sprintf("%04d", t.Year()) }},
	{"month", func(t time.Time) string { return t.Format("01") }},
	{"day", func(t time.Time) string { return t.Format("02") }},
	{"date", func(t time.Time) string { return t.Format(time.DateOnly) }},
	{"julian", func(t time.Time) string { return sprintf("%d", modifiedJulian(t)) }},
	{"hour", func(t time.Time) string { return t.Format("15") }},
	{"minute", func(t time.Time) string { return t.Format("04") }},
	{"second", func(t time.Time) string { return t.Format("05") }},
	{"time", func(t time.Time) string { return t.Format(time.TimeOnly) }},
	{"iso8601", func(t time.Time) string { return t.Format("2006-01-02T15:04:05Z07:00") }},
	{"std11", func(t time.Time) string { return t.Format("Mon, 02 Jan 2006 15:04:05 -0700") }},
	{"zone", func(t time.Time) string { return t.Format("-0700") }},
	{"weekday", func(t time.Time) string { return sprintf("%d", t.Weekday()) }},
}

// modifiedJulian is the number of the day since 17 November 1858, in the zone of t.
func modifiedJulian(t time.Time) int64 {
	const epoch = 40587 // of 1 January 1970
	_, offset := t.Zone()
	seconds := t.Unix() + int64(offset)
	const day = 24 * 60 * 60
	return (seconds-((seconds%day)+day)%day)/day + epoch
}

func datePart(name string) func(time.Time) string {
	for _, p := range dateParts {
		if strings.EqualFold(p.name, name) {
			return p.of
		}
	}
	return nil
}

func checkDatePart(c *checker, v *value) {
	p := v.texts[0]
	if !p.constant() || datePart(p.fixed) != nil {
		return
	}
	names := make([]string, len(dateParts))
	for i, x := range dateParts {
		names[i] = x.name
	}
	remedy := didYouMean(p.fixed, names)
	if remedy == "" {
		remedy = "there is " + strings.Join(names, ", ")
	}
	c.report(p.at, sprintf("a date has no part %q", clip(p.fixed)), remedy)
}

func checkZone(c *checker, _ *call, v *value) {
	p := v.texts[0]
	if _, ok := parseZone(p.fixed); p.constant() && !ok {
		c.report(p.at, sprintf("%q is no time zone", clip(p.fixed)), `write for example "+0200"`)
	}
}

// parseZone reads +hhmm.
func parseZone(s string) (*time.Location, bool) {
	if len(s) != 5 || s[0] != '+' && s[0] != '-' || strings.Trim(s[1:], "0123456789") != "" {
		return nil, false
	}
	hours, minutes := int(s[1]-'0')*10+int(s[2]-'0'), int(s[3]-'0')*10+int(s[4]-'0')
	if hours > 23 || minutes > 59 {
		return nil, false
	}
	seconds := (hours*60 + minutes) * 60
	if s[0] == '-' {
		seconds = -seconds
	}
	return time.FixedZone(s, seconds), true
}

// inZone is t in the zone that a test wants: its own, else that of the script's clock.
func (r *run) inZone(n *call, t time.Time) (time.Time, bool) {
	if n.has("originalzone") {
		return t, true
	}
	if v := n.tag("zone"); v != nil {
		name := r.text(v)
		zone, ok := parseZone(name)
		if !ok {
			r.fail(n, "%q is no time zone", clip(name))
			return t, false
		}
		return t.In(zone), true
	}
	return t.In(r.in.Now.Location()), true
}

// datePart is the part of a date that an argument names.
func (r *run) datePart(n *call, v *value) func(time.Time) string {
	name := r.text(v)
	part := datePart(name)
	if part == nil {
		r.fail(n, "a date has no part %q", clip(name))
	}
	return part
}

func dateTest(r *run, n *call) bool {
	x := r.matcher(n)
	name := lowerASCII(r.text(&n.args[0]))
	part := r.datePart(n, &n.args[1])
	if part == nil {
		return false
	}
	x.where = name
	for _, h := range r.headers(n) {
		for _, v := range indexed(n, h.values(name)) {
			// RFC 5260, 4: of Received what is behind the last semicolon.
			s := v.text
			if name == "received" {
				s = s[strings.LastIndexByte(s, ';')+1:]
			}
			if !r.spend(n, 1+len(s)/octetsPerInstruction) {
				return false
			}
			t, ok := mime.ParseDate(s)
			if !ok {
				continue
			}
			if t, ok = r.inZone(n, t); !ok || x.value(part(t)) {
				return x.held()
			}
			if !n.has("index") && n.match.how != count {
				break // RFC 5260, 4: the first field is what counts
			}
		}
	}
	return x.held()
}

func currentDateTest(r *run, n *call) bool {
	x := r.matcher(n)
	part := r.datePart(n, &n.args[0])
	if part == nil {
		return false
	}
	x.where = "now"
	if t, ok := r.inZone(n, r.in.Now); ok {
		x.value(part(t))
	}
	return x.held()
}
