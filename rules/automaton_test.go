package rules

import (
	"fmt"
	"math/rand/v2"
	"regexp"
	"slices"
	"strings"
	"testing"
	"unicode"
)

// found is what an automaton says: every place where a literal ends.
func found(literals []string, text string, fold bool) (all []string) {
	scan(newAutomaton(literals, fold), text, func(n int32, end int) bool {
		all = append(all, fmt.Sprintf("%q at %d", literals[n], end))
		return true
	})
	slices.Sort(all)
	return all
}

// naively is the same, by looking for each literal at each place.
func naively(literals []string, text string, fold bool) (all []string) {
	for _, s := range literals {
		for i := range len(text) + 1 {
			for j := i; j <= len(text); j++ {
				part := text[i:j]
				if fold {
					part = folded(part)
				}
				if part == s && (!fold || boundary(text, i) && boundary(text, j)) {
					all = append(all, fmt.Sprintf("%q at %d", s, j))
				}
			}
		}
	}
	slices.Sort(all)
	return slices.Compact(all)
}

// boundary reports whether a character begins at i.
func boundary(text string, i int) bool {
	for at := range text {
		if at == i {
			return true
		}
	}
	return i == len(text)
}

func TestAutomaton(t *testing.T) {
	r := rand.New(rand.NewPCG(5, 6))
	word := func(letters string, most int) string {
		all := []rune(letters)
		var b strings.Builder
		for range 1 + r.IntN(most) {
			b.WriteRune(all[r.IntN(len(all))])
		}
		return b.String()
	}
	for range 400 {
		letters := []string{"ab", "abc", "sSſkKK", "aéÉßẞ", "x\U0001f600y"}[r.IntN(5)]
		fold := r.IntN(2) == 0
		var literals []string
		for range 1 + r.IntN(8) {
			s := word(letters, 4)
			if fold {
				s = folded(s)
			}
			if !slices.Contains(literals, s) {
				literals = append(literals, s)
			}
		}
		text := word(letters, 20)
		if got, want := found(literals, text, fold), naively(literals, text, fold); !slices.Equal(got, want) {
			t.Fatalf("%q in %q, folded %v: got %q, want %q", literals, text, fold, got, want)
		}
	}
}

func FuzzAutomaton(f *testing.F) {
	f.Add("he she his hers", "ushers", false)
	f.Add("k s \xff", "KELVIN ſharp \xff\xc3", true)
	f.Fuzz(func(t *testing.T, words, text string, fold bool) {
		if len(text) > 60 || len(words) > 60 {
			return
		}
		var literals []string
		for _, w := range strings.Fields(words) {
			if fold {
				w = folded(w)
				if strings.ContainsRune(w, '\ufffd') {
					continue // see [newAutomaton]
				}
			}
			if !slices.Contains(literals, w) {
				literals = append(literals, w)
			}
		}
		if got, want := found(literals, text, fold), naively(literals, text, fold); !slices.Equal(got, want) {
			t.Fatalf("%q in %q: got %q, want %q", literals, text, got, want)
		}
	})
}

// Nodes without rows say what those with rows do, and what automatons take is bounded by their literals.
func TestLargeAutomaton(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 9))
	seen := map[string]bool{}
	var literals []string
	octets := 0
	for len(literals) < 20_000 {
		b := make([]byte, 4+r.IntN(12))
		for i := range b {
			b[i] = byte(' ' + r.IntN(90))
		}
		if s := string(b); !seen[s] {
			seen[s] = true
			literals = append(literals, s)
			octets += len(s)
		}
	}
	a := newAutomaton(literals, false)
	if n := uint32(len(a.out)); a.dense >= n || int(n) > octets+1 || 4*len(a.rows) > rowOctets {
		t.Errorf("%d nodes, %d with rows, for %d octets", n, a.dense, octets)
	}
	for range 200 {
		k := r.IntN(len(literals))
		text := literals[r.IntN(len(literals))] + literals[k] + literals[r.IntN(len(literals))]
		ok := false
		scan(a, text, func(n int32, _ int) bool {
			if !strings.Contains(text, literals[n]) {
				t.Fatalf("%q is not in %q", literals[n], text)
			}
			ok = ok || int(n) == k
			return true
		})
		if !ok {
			t.Errorf("%q is not found in %q", literals[k], text)
		}
	}
}

// What differs in case only for regular expressions, lower() or upper() folds to one character.
func TestFold(t *testing.T) {
	for r := range rune(0x20000) { // no case beyond
		for _, same := range []rune{unicode.SimpleFold(r), unicode.ToLower(r), unicode.ToUpper(r), fold(r)} {
			if fold(same) != fold(r) {
				t.Errorf("%U folds to %U, %U to %U", r, fold(r), same, fold(same))
			}
		}
	}
	if !regexp.MustCompile("(?i)k").MatchString("\u212a") || fold('\u212a') != 'k' || fold('ſ') != 's' {
		t.Error("the Kelvin sign and the long s")
	}
}

func TestAppendWords(t *testing.T) {
	for text, want := range map[string]string{
		"":                      " ",
		"Free PRIZE!!!":         " free prize ",
		"  a-b_c\t\n1st ":       " a b c 1st ",
		"\xffa\xfe b":           " a b ",
		"日本a語":                  " 日 本 a 語 ",
		"e\u0301te\u0301":       " été ",
		"ﬁne ﬀ Ⅷ":               " fine ff viii ",
		"soft\u00adhyphen":      " softhyphen ",
		"ที่นี่":                " ที่ นี่ ",
		"\u0301a":               " a ",
		"Straße ΣΊΣΥΦΟΣ Kelvin": " straße σίσυφοσ kelvin ",
	} {
		if got := string(appendWords(nil, text)); folded(got) != folded(want) || strings.Contains(got, "  ") {
			t.Errorf("%q: got %q, want %q", text, got, want)
		}
	}
}
