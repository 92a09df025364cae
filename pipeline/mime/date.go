package mime

import (
	"strconv"
	"strings"
	"time"
)

// Date returns the first Date field, in the zone that it names; ok is false where there is none or nobody could read it.
// What writers have made of RFC 5322, 3.3 is read too: no day of the week, no seconds, no zone (then it is UTC), years
// of two digits (4.3), names of zones, hyphens, dots, ISO 8601, and the order of Unix's ctime.
func (m *Message) Date() (t time.Time, ok bool) {
	f, ok := m.header.First("Date")
	if !ok {
		return time.Time{}, false
	}
	return parseDate(f.Value())
}

// properDate reports whether a date that can be read as t is written as RFC 5322, 3.3 has it, or with the names of zones
// of 4.3, and says what can be: the day of the week is the right one, and there is a place on earth with this zone.
func properDate(s string, t time.Time) bool {
	const easternmost, westernmost = 14 * 3600, -12 * 3600
	words := dateWords(s)
	if len(words) > 0 && strings.IndexByte(s, ',') > 0 {
		if words[0] != t.Weekday().String()[:3] {
			return false
		}
		words = words[1:]
	}
	if len(words) != 5 || len(words[2]) != 4 || strings.Trim(words[0]+words[2]+words[3], "0123456789:") != "" || strings.Count(words[3], ":") < 1 {
		return false
	}
	zone := words[4]
	signed := len(zone) == 5 && (zone[0] == '+' || zone[0] == '-') && strings.Trim(zone[1:], "0123456789") == ""
	_, offset := t.Zone()
	return words[1] == t.Month().String()[:3] && (signed && (offset != 0 || zone[1:] == "0000") || isZone(strings.ToLower(zone))) &&
		offset >= westernmost && offset <= easternmost
}

// parseDate reads a date from its words in whatever order they come: a month has letters, a time has colons, a year has
// four digits or comes after the day.
func parseDate(s string) (t time.Time, ok bool) {
	const longest = 200
	if len(s) > longest {
		return time.Time{}, false
	}
	d := dateParts{day: -1, month: -1, year: -1, hour: -1}
	for _, w := range dateWords(s) {
		if !d.word(w) {
			return time.Time{}, false
		}
	}
	if d.day < 0 || d.month < 0 || d.year < 0 {
		return time.Time{}, false
	}
	if d.hour < 0 {
		d.hour = 0 // a date alone
	}
	if d.pm != 0 {
		if d.hour < 1 || d.hour > 12 {
			return time.Time{}, false
		}
		d.hour = d.hour%12 + 12*(d.pm-1)
	}
	zone := time.UTC
	if d.offset != 0 {
		zone = time.FixedZone("", d.offset)
	}
	t = time.Date(d.year, time.Month(d.month), d.day, d.hour, d.minute, min(d.second, 59), 0, zone)
	if t.Day() != d.day { // the 31st of a month that has 30
		return time.Time{}, false
	}
	return t.Add(time.Duration(d.second/60) * time.Second), true // a leap second is the one after it
}

// dateWords splits a date into words, without commas and comments.
func dateWords(s string) (words []string) {
	var b strings.Builder
	end := func() {
		if b.Len() > 0 {
			words = append(words, b.String())
			b.Reset()
		}
	}
	depth := 0
	for i := range len(s) {
		switch c := s[i]; {
		case c == '(':
			end()
			depth++
		case c == ')':
			depth = max(depth-1, 0)
		case depth > 0:
		case c <= ' ' || c == ',' || c == '"':
			end()
		default:
			b.WriteByte(c)
		}
	}
	end()
	return words
}

type dateParts struct {
	day, month, year     int
	hour, minute, second int
	offset               int // seconds east of UTC
	pm                   int // 1 for am, 2 for pm
}

// word takes one word of a date. A word that means nothing is skipped behind the time, where zones have odd names.
func (d *dateParts) word(w string) bool {
	if w == "" {
		return false
	}
	switch lw := strings.ToLower(w); {
	case strings.Count(w, ":") >= 1 && isDigit(w[0]) || d.hour < 0 && d.year >= 0 && strings.Count(w, ".") == 2 && isDigit(w[0]):
		if date, clock, ok := strings.Cut(lw, "t"); ok { // ISO 8601
			return d.word(date) && d.clock(clock)
		}
		return d.clock(lw)
	case (w[0] == '+' || w[0] == '-') && len(w) > 1 && isDigit(w[1]):
		d.offset = zoneOffset(w)
		return true
	case strings.Count(strings.Trim(w, "-"), "-") == 2 && isDigit(w[0]): // 22-Nov-2026, 2026-11-22
		for i, x := range strings.SplitN(w, "-", 3) {
			n, err := strconv.Atoi(x)
			switch {
			case err != nil || i != 1:
				if !d.word(x) {
					return false
				}
			case d.month >= 0 || n < 1 || n > 12:
				return false
			default:
				d.month = n
			}
		}
		return true
	case isDigit(w[0]):
		return d.number(strings.TrimRight(w, ".-"))
	case lw == "am" || lw == "a.m.":
		d.pm = 1
	case lw == "pm" || lw == "p.m.":
		d.pm = 2
	default:
		if month := monthNumber(lw); month > 0 && d.month < 0 {
			d.month = month
			return true
		}
		if d.hour >= 0 {
			d.zone(lw)
			return true
		}
		// Before the time there may be a day of the week, in whatever language. Whether it is the right one, nobody looks at.
		return d.day < 0 || isDayOfWeek(lw) || isZone(lw)
	}
	return true
}

func (d *dateParts) number(w string) bool {
	n, err := strconv.Atoi(w)
	switch {
	case err != nil || len(w) > 4:
		return false
	case d.day < 0 && len(w) <= 2:
		d.day = n
		return n >= 1 && n <= 31
	case d.year < 0:
		// RFC 5322, 4.3.
		switch {
		case len(w) <= 2 && n < 50:
			n += 2000
		case len(w) <= 3:
			n += 1900
		}
		d.year = n
		return true
	case d.hour < 0 && len(w) == 4 && n%100 < 60: // RFC 822 had 2359 nowhere, its writers have
		d.hour, d.minute = n/100, n%100
		return d.hour < 24
	}
	return d.hour >= 0 // a zone without its sign, which says nothing
}

// clock reads hh:mm and hh:mm:ss, with a fraction or a zone right behind it.
func (d *dateParts) clock(w string) bool {
	if i := strings.IndexAny(w, "+-z"); i > 0 {
		if w[i] != 'z' {
			d.offset = zoneOffset(w[i:])
		}
		w = w[:i]
	}
	for suffix, pm := range map[string]int{"am": 1, "pm": 2} {
		if rest, ok := strings.CutSuffix(w, suffix); ok {
			w, d.pm = rest, pm
		}
	}
	var n [3]int
	for i, x := range strings.SplitN(strings.ReplaceAll(w, ".", ":"), ":", 4) {
		if i == len(n) {
			break // a fraction
		}
		v, err := strconv.Atoi(x)
		if err != nil || len(x) > 2 || v < 0 {
			return false
		}
		n[i] = v
	}
	d.hour, d.minute, d.second = n[0], n[1], n[2]
	return n[0] < 24 && n[1] < 60 && n[2] <= 60
}

// zone reads the name of a zone. RFC 5322, 4.3: one that is unknown is -0000.
func (d *dateParts) zone(lw string) {
	for _, prefix := range []string{"gmt", "utc", "ut"} {
		if rest, ok := strings.CutPrefix(lw, prefix); ok && len(rest) > 1 && (rest[0] == '+' || rest[0] == '-') {
			d.offset = zoneOffset(rest)
			return
		}
	}
	if hours, ok := zoneHours(lw); ok {
		d.offset = hours * 3600
	}
}

func isZone(lw string) bool {
	_, ok := zoneHours(lw)
	return ok
}

// zoneHours knows the zones of RFC 5322, 4.3, and those of Central Europe and Japan, which have one meaning too.
func zoneHours(lw string) (hours int, ok bool) {
	switch lw {
	case "gmt", "ut", "utc", "z", "wet":
		return 0, true
	case "edt":
		return -4, true
	case "est", "cdt":
		return -5, true
	case "cst", "mdt":
		return -6, true
	case "mst", "pdt":
		return -7, true
	case "pst":
		return -8, true
	case "met", "cet", "mez":
		return 1, true
	case "mest", "cest", "mesz", "eet":
		return 2, true
	case "jst":
		return 9, true
	}
	return 0, false
}

// zoneOffset reads +hhmm, +hh:mm, +hmm and +hh, in seconds. A day and more is 0.
func zoneOffset(w string) int {
	digits := strings.ReplaceAll(w[1:], ":", "")
	for i := range len(digits) {
		if !isDigit(digits[i]) {
			digits = digits[:i]
			break
		}
	}
	if len(digits) > 4 {
		return 0
	}
	n, err := strconv.Atoi(digits)
	if err != nil {
		return 0
	}
	if len(digits) <= 2 {
		n *= 100
	}
	if n/100 > 23 || n%100 > 59 {
		return 0
	}
	offset := n/100*3600 + n%100*60
	if w[0] == '-' {
		return -offset
	}
	return offset
}

func isDigit(c byte) bool { return '0' <= c && c <= '9' }

// monthNumber reads a month by its first three letters, in English.
func monthNumber(lw string) int {
	if len(lw) < 3 {
		return 0
	}
	i := strings.Index("janfebmaraprmayjunjulaugsepoctnovdec", lw[:3])
	if i < 0 || i%3 != 0 || !strings.HasPrefix(strings.ToLower(time.Month(i/3+1).String())+".", strings.TrimSuffix(lw, ".")) && lw != "sept" && lw != "sept." {
		return 0
	}
	return i/3 + 1
}

func isDayOfWeek(lw string) bool {
	return len(lw) >= 3 && strings.Contains("sun mon tue wed thu fri sat", lw[:3])
}
