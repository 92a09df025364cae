package pipeline_test

import (
	"slices"
	"strings"
	"testing"

	"sluice/pipeline"
)

// A doer is a stage that has rules, which may do things.
type doer struct {
	pipeline.Stage
	deeds []pipeline.Deed
}

func (d doer) Does() []pipeline.Deed { return d.deeds }
func (doer) Rules() []string         { return []string{"a", "b", "c", "d", "e"} }
func (doer) ShadowRules() []string   { return nil }

func doing(name string, input pipeline.Input, can []pipeline.Final, deeds ...pipeline.Deed) pipeline.Step {
	s := doer{stage(pipeline.Reads{Input: input, Can: can}, always(R{})), deeds}
	return pipeline.Step{Kind: pipeline.Kind{
		Name: name, New: func(any, pipeline.Env) ([]pipeline.Stage, error) { return []pipeline.Stage{s}, nil },
	}}
}

func TestBeyond(t *testing.T) {
	const (
		rcpt   = pipeline.InputRecipient
		header = pipeline.InputHeader
	)
	refuse := []pipeline.Final{{At: 1, Action: pipeline.Reject}, {At: 2, Action: pipeline.TempFail}}
	all := func(kind pipeline.DeedKind, at ...int) (deeds []pipeline.Deed) {
		for _, n := range at {
			deeds = append(deeds, pipeline.Deed{At: n, Kind: kind})
		}
		return deeds
	}
	shadow := doing("trial", rcpt|header, refuse, all(pipeline.DoesFile, 0)...)
	shadow.Shadow = true
	late := doing("sieve", rcpt|header, nil)
	late.Kind.AtDelivery = true
	onError := doing("virus", header, nil)
	onError.Kind.OnError = pipeline.Refuse
	for _, tt := range []struct {
		name  string
		step  pipeline.Step
		wants map[string]string // how what is said begins, by door: "lmtp", "lmtp refuse", "milter both"
	}{
		{"nothing", doing("x", header, nil), nil},
		{"a shadow step", shadow, nil},
		{"hold or drop", doing("x", rcpt|header, []pipeline.Final{{Action: pipeline.Discard}, {At: 1, Action: pipeline.Quarantine}}), nil},
		{"refuse the content for all", doing("x", header, refuse), map[string]string{
			"lmtp":      "`b` of x may refuse: … held in quarantine; set `refuse: true`",
			"lmtp both": "`b` of x may refuse: … held in quarantine; refusals of mail that passed the milter",
			"deliver":   "`b` of x may refuse: … held in quarantine",
		}},
		{"refuse recipients", doing("x", rcpt, refuse), map[string]string{
			"lmtp": "`b` of x may refuse: ", "lmtp both": "`b` of x may refuse: ", "deliver": "`b` of x may refuse: ",
		}},
		{"refuse the content for some", doing("x", rcpt|header, refuse), map[string]string{
			"smtp":        "`b` of x may refuse the content for some … | `c` of x may postpone the content for single",
			"milter":      "`b` of x may refuse the content for some … | `c` of x may postpone the content for single",
			"milter both": "`b` of x may refuse the content for some … | `c` of x may postpone the content for single",
			"lmtp":        "`b` of x may refuse: ", "lmtp both": "`b` of x may refuse: ", "deliver": "`b` of x may refuse: ",
		}},
		{"an error refuses", onError, map[string]string{
			"lmtp": "virus may refuse: ", "lmtp both": "virus may refuse: ", "deliver": "virus may refuse: ",
		}},
		{"file", doing("x", header, nil, all(pipeline.DoesFile, 0, 1, 2, 3, 4)...), map[string]string{
			"milter": "`a` of x, `b` of x, `c` of x and 2 more may file: … X-Sluice-Folder",
		}},
		{"junk", doing("x", header, nil, all(pipeline.DoesJunk, 5)...), map[string]string{
			"milter": "a threshold of x may file into the junk folder: … X-Spam-Flag",
		}},
		{"flag", doing("x", header, nil, all(pipeline.DoesFlag, 1, 0)...), map[string]string{
			"milter": "`a` of x and `b` of x may set flags: ",
		}},
		{"edit for all", doing("x", header, nil, all(pipeline.DoesEdit, 1)...), nil},
		{"edit for some", doing("x", rcpt|header, nil, all(pipeline.DoesEdit, 1)...), map[string]string{
			"milter": "`b` of x may change header fields for single recipients: ",
		}},
		{"where it is filed", late, map[string]string{"milter": "sieve is not asked: "}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			p, _ := plan(t, tt.step)
			for _, door := range []string{"smtp", "lmtp", "lmtp refuse", "lmtp both", "deliver", "milter", "milter both"} {
				name, how, _ := strings.Cut(door, " ")
				said := p.Beyond(pipeline.Door(name), how == "refuse", how == "both")
				var wants []string
				if tt.wants[door] != "" {
					wants = strings.Split(tt.wants[door], " | ")
				}
				if !slices.EqualFunc(said, wants, func(w pipeline.Warning, want string) bool {
					return begins(strings.TrimPrefix(w.String(), "at the "+name+" door "), want)
				}) {
					t.Errorf("%s: got %q, want %q", door, said, wants)
				}
			}
		})
	}
}

// begins reports whether s begins with the first part of want and holds the others, parts being apart by " … ".
func begins(s, want string) bool {
	parts := strings.Split(want, " … ")
	if !strings.HasPrefix(s, strings.TrimSuffix(parts[0], " …")) {
		return false
	}
	for _, part := range parts[1:] {
		if !strings.Contains(s, part) {
			return false
		}
	}
	return true
}
