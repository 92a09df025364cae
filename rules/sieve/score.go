package sieve

import "strconv"

// scoreForm is a test of RFC 5235. Nothing tested is "0", and does not count for :count.
func scoreForm(name string, score func(*Input) Score) form {
	return form{
		name: name, tags: matchTags(), matches: true, args: []positional{{name: "value", shape: text}},
		holds: func(r *run, n *call) bool {
			x := r.matcher(n)
			s := score(&r.in)
			x.where = name
			if s.Text != "" {
				x.where += " (" + clipTo(s.Text, 60) + ")"
			}
			switch {
			case !s.Known && n.match.how == count:
			case !s.Known:
				x.value("0")
			case n.has("percent"):
				x.value(strconv.Itoa(max(0, min(s.Percent, 100))))
			default:
				x.value(strconv.Itoa(s.Value))
			}
			return x.held()
		},
	}
}
