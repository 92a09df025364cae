package rules

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"

	"sluice/pipeline"
)

// withLists makes the stages of rules beside some files with lists.
func withLists(t testing.TB, file string, more map[string]string) []pipeline.Stage {
	t.Helper()
	files := map[string]string{"rules/test.yaml": file}
	maps.Copy(files, more)
	stages, err := New(Config{Files: []string{"rules/test.yaml"}}, env(files))
	if err != nil {
		t.Fatalf("rules are refused:\n%v", err)
	}
	return stages
}

const someLists = `lists:
  vips: {kind: addresses, files: [lists/vips.txt], values: [Boss@Example.COM]}
  partners: {kind: domains, values: [example.org, .example.net, "*.Bücher.example", xn--bcher-kva.example]}
  office: {kind: networks, values: [192.0.2.0/24, "2001:db8::/32", "::ffff:198.51.100.0/120", 203.0.113.9]}
  spam_words: {kind: words, values: [viagra, act now, 中文, straße, "don't"]}
  scams: {kind: regexes, files: lists/scams.txt}
`

const vips = "\ufeff# who matters\r\n\r\n\tanna@example.org  # Anna\r\n@vip.example\r\n\"odd one\"@example.org\r\n"

func TestLists(t *testing.T) {
	v := view(t)
	more := map[string]string{"rules/lists/vips.txt": vips, "rules/lists/scams.txt": "# patterns\n(?i)free\\s+money # not a comment\nre: re:\n"}
	type about struct{ when, text string }
	for x, want := range map[about]truth{
		{"X in vips", "anna@example.org"}:                           isTrue,
		{"X in vips", "Anna@Example.ORG"}:                           isTrue,
		{"X in vips", "anna+x@example.org"}:                         isFalse,
		{"X in vips", "boss@example.com"}:                           isTrue,
		{"X in vips", "who@vip.example"}:                            isTrue,
		{"X in vips", "who@sub.vip.example"}:                        isFalse,
		{"X in vips", "who@VIP.example."}:                           isTrue,
		{"X in vips", "anna"}:                                       isFalse,
		{"X in vips", "Anna <anna@example.org>"}:                    isFalse,
		{"X in vips", `"odd one"@example.org`}:                      isTrue,
		{"X in partners", "example.org"}:                            isTrue,
		{"X in partners", "EXAMPLE.org."}:                           isTrue,
		{"X in partners", "a.example.org"}:                          isFalse,
		{"X in partners", "example.net"}:                            isFalse,
		{"X in partners", "a.b.example.net"}:                        isTrue,
		{"X in partners", "bücher.example"}:                         isTrue,
		{"X in partners", "BÜCHER.example"}:                         isTrue,
		{"X in partners", "a.xn--bcher-kva.example"}:                isTrue,
		{"X in partners", "..example.net"}:                          isFalse,
		{"X in partners", ""}:                                       isFalse,
		{"X in office", "192.0.2.77"}:                               isTrue,
		{"X in office", "192.0.3.1"}:                                isFalse,
		{"X in office", "::ffff:192.0.2.1"}:                         isTrue,
		{"X in office", "198.51.100.200"}:                           isTrue,
		{"X in office", "203.0.113.9"}:                              isTrue,
		{"X in office", "203.0.113.8"}:                              isFalse,
		{"X in office", "2001:db8:1::5"}:                            isTrue,
		{"X in office", "2001:db9::5"}:                              isFalse,
		{"X in office", "mail.example"}:                             isFalse,
		{"X in spam_words", "VIAGRA!"}:                              isTrue,
		{"X in spam_words", "buy viagra"}:                           isFalse,
		{"X in spam_words", "Act - now"}:                            isTrue,
		{"X contains spam_words", "Buy VIAGRA now"}:                 isTrue,
		{"X contains spam_words", "viagras"}:                        isFalse,
		{"X contains spam_words", "act on it now"}:                  isFalse,
		{"X contains spam_words", "please ACT\u00a0 NOW"}:           isTrue,
		{"X contains spam_words", "react now"}:                      isFalse,
		{"X contains spam_words", "ｖｉａｇｒａ"}:                         isTrue,
		{"X contains spam_words", "vi\u200bag\u00adra"}:             isTrue,
		{"X contains spam_words", "学中文吧"}:                           isTrue,
		{"X contains spam_words", "中国文"}:                            isFalse,
		{"X contains spam_words", "STRAẞE"}:                         isTrue,
		{"X contains spam_words", "Don’t"}:                          isTrue,
		{"X contains spam_words", "viagr\u0430"}:                    isFalse,
		{"X matches scams", "get FREE  money # not a comment"}:      isTrue,
		{"X matches scams", "free money"}:                           isFalse,
		{"X matches scams", "RE: re:"}:                              isFalse,
		{"X matches scams", "re: re: x"}:                            isTrue,
		{"count_in(X, spam_words) == 2", "viagra viagra, act now"}:  isTrue,
		{"count_in(X, scams) > 0", "nothing"}:                       isFalse,
		{"any([X, helo], # contains spam_words)", "viagra"}:         isTrue,
		{"any([X, helo], # in office)", "viagra"}:                   isFalse,
		{"(let y = lower(X); y in partners)", "Example.ORG"}:        isTrue,
		{"not (X in partners)", "x.example"}:                        isTrue,
		{"X not in partners", "x.example"}:                          isTrue,
		{"X not contains spam_words", "viagra"}:                     isFalse,
		{"(X in office ? size : 0) > 0", "192.0.2.3"}:               isTrue,
		{"(X in partners) == (X contains spam_words)", "192.0.2.3"}: isTrue,
		{"trim(X) matches scams", " re: re: x"}:                     isTrue,
	} {
		for _, form := range []string{`header("X-Text")`, `trim(header("X-Text"))`} {
			v.Message = message(t, "X-Text: "+strings.ReplaceAll(x.text, "\n", "\n "+"")+"\n\nx\n")
			when := strings.ReplaceAll(strings.ReplaceAll(x.when, "(X", "("+form), "X ", form+" ")
			when = strings.ReplaceAll(when, "[X", "["+form)
			stages := withLists(t, someLists+"rules:\n  - name: r\n    when: "+quote(when)+"\n", more)
			got := isFalse
			if all := decide(t, stages, v); len(all.Hits) == 1 {
				got = isTrue
			}
			if got != want {
				t.Errorf("%s of %q: got %v, want %v", when, x.text, got, want)
			}
		}
	}
}

func TestListEvidence(t *testing.T) {
	v := view(t)
	v.Message = message(t, "Subject: "+strings.Repeat("nothing here ", 20)+"Act Now please\nReply-To: a@sub.vip.example\n\nx\n")
	stages := withLists(t, `lists:
  vips: {kind: addresses, files: lists/*.txt}
  calls:
    kind: words
    values: [buy, act now]
rules:
  - {name: a, when: 'rcpt.address in vips'}
  - {name: b, when: 'from.address in vips or subject contains calls'}
  - {name: c, when: 'trim(subject) contains calls'}
`, map[string]string{"rules/lists/*.txt": "x@example.org\n# c\n\nuser+lists@example.org\n"})
	want := []pipeline.Evidence{
		{Where: "rcpt.address in vips", What: "user+lists@example.org, by user+lists@example.org (rules/lists/*.txt:4)"},
		{Where: "subject contains calls", What: "…g here nothing here Act Now please, by act now (rules/test.yaml:5)", Position: pipeline.Position{Field: "Subject", Line: 1, Column: 261}},
		{Where: "trim(subject) contains calls", What: "…g here nothing here Act Now please, by act now (rules/test.yaml:5)", Position: pipeline.Position{Field: "Subject", Line: 1, Column: 261}},
	}
	var got []pipeline.Evidence
	for _, h := range decide(t, stages, v).Hits {
		got = append(got, h.Evidence...)
	}
	slices.SortFunc(got, func(a, b pipeline.Evidence) int { return strings.Compare(a.Where, b.Where) })
	slices.SortFunc(want, func(a, b pipeline.Evidence) int { return strings.Compare(a.Where, b.Where) })
	if !slices.Equal(got, want) {
		t.Errorf("got %q,\nwant %q", got, want)
	}
}

func TestListLimits(t *testing.T) {
	many := strings.Repeat("a@example.org\n", 30)
	wrong := strings.Repeat("x y\n", 45)
	rule := "rules: [{name: a, when: 'from.address in l'}]\n"
	for name, tt := range map[string]struct {
		c          Config
		file, want string
	}{
		"entries":   {Config{Limits: Limits{MaxListEntries: 29}}, many, "rules/l.txt:30:1: the list `l` has more than 29 entries; max_list_entries says how many are read"},
		"octets":    {Config{Limits: Limits{MaxListOctets: 400}}, many, "rules/l.txt: with its 420 octets the list `l` is too large; max_list_octets says how many are read"},
		"long line": {Config{}, strings.Repeat("x", maxEntry+1), "rules/l.txt:1:1: the entry has 4097 octets; at most 4096 are read"},
		"wrong":     {Config{}, wrong, "rules/l.txt: 25 more entries are wrong"},
		"not UTF-8": {Config{}, "a@b.example\n a\xff@b.example", "rules/l.txt:2:3: this is not UTF-8; save the file as UTF-8"},
		"utf-16":    {Config{}, "\xff\xfea\x00", "rules/l.txt:1:1: the file is UTF-16; save it as UTF-8"},
		"binary":    {Config{}, "a@b.example\n\x00", "rules/l.txt:2:1: the file is no text: it holds a NUL"},
		"old mac":   {Config{}, "a@b.example\rc@d.example", "rules/l.txt:1:12: a line ends with CR alone"},
	} {
		tt.c.Files = []string{"rules/x.yaml"}
		_, err := New(tt.c, env(map[string]string{"rules/x.yaml": "lists: {l: {kind: addresses, files: l.txt}}\n" + rule, "rules/l.txt": tt.file}))
		if err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%s: got %v", name, err)
		} else if n := strings.Count(err.Error(), "rules/l.txt"); n > maxShownEntries+1 {
			t.Errorf("%s: %d lines", name, n)
		}
	}
	patterns := strings.Repeat("(a|b|cd){100}x{50}\n", 4000)
	_, err := New(Config{Files: []string{"rules/x.yaml"}}, env(map[string]string{
		"rules/x.yaml": "lists: {l: {kind: regexes, files: l.txt}}\n", "rules/l.txt": patterns}))
	if err == nil || !strings.Contains(err.Error(), "up to here the patterns of the list `l` are too large together") {
		t.Errorf("patterns: got %v", err)
	}
	_, err = New(Config{Files: []string{"rules/x.yaml"}, Limits: Limits{MaxListEntries: 30, MaxListOctets: 420}}, env(map[string]string{
		"rules/x.yaml": "lists: {l: {kind: addresses, files: l.txt}}\n" + rule, "rules/l.txt": many}))
	if err != nil {
		t.Errorf("at the limits: %v", err)
	}
}

// What a list is called and holds is in its hash, and so in what a term asks.
func TestListKey(t *testing.T) {
	key := func(values string) string {
		file := fmt.Sprintf("lists: {a: {kind: words, values: %s}, b: {kind: words, values: [x]}}\nrules: [{name: r, when: 'any([subject, helo], # contains a) or has(\"X\")'}]\n", values)
		st := withLists(t, file, nil)[0].(*stage)
		if k := st.set.listKey(st.terms[1]); k != "" {
			t.Errorf("a term without a list has %q", k)
		}
		return st.set.listKey(st.terms[0])
	}
	one, same, other := key("[x, y]"), key("[x, y]"), key("[x, z]")
	if one != same || one == other || !strings.HasPrefix(one, "a=") || strings.Contains(one, "b=") {
		t.Errorf("got %q, %q and %q", one, same, other)
	}
}
