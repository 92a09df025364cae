package maildir

import (
	"fmt"
	"slices"
	"strings"

	"sluice/mailstore"
)

// A flagLetter is a flag that lives in the name of the file.
type flagLetter struct {
	letter byte
	flag   string
}

// flagLetters are the flags of the Maildir specification. P, "passed", is what IMAP calls $Forwarded (RFC 5788).
func flagLetters() [6]flagLetter {
	return [...]flagLetter{
		{'D', `\Draft`}, {'F', `\Flagged`}, {'P', "$Forwarded"}, {'R', `\Answered`}, {'S', `\Seen`}, {'T', `\Deleted`},
	}
}

// A flagSet is the flags of a message: letters in the name of its file, the rest as keywords.
type flagSet struct {
	letters  string   // of DFPRST, sorted
	keywords []string // sorted, without regard to case each once
}

// parseFlags sorts out flags as IMAP names them. \Recent and system flags it does not know are left out; a keyword that
// is none is an error.
func parseFlags(flags []string) (flagSet, error) {
	var s flagSet
next:
	for _, f := range flags {
		for _, l := range flagLetters() {
			if strings.EqualFold(f, l.flag) {
				s.letters += string(l.letter)
				continue next
			}
		}
		if strings.HasPrefix(f, `\`) {
			continue
		}
		if !isKeyword(f) {
			return flagSet{}, fmt.Errorf("flag %q: %w", f, mailstore.ErrName)
		}
		s.keywords = addKeyword(s.keywords, f)
	}
	s.letters = sortLetters(s.letters)
	return s, nil
}

// isKeyword: RFC 9051, 9: a keyword is an atom.
func isKeyword(s string) bool {
	return s != "" && len(s) <= 100 && !strings.ContainsFunc(s, func(r rune) bool {
		return r <= ' ' || r > '~' || strings.ContainsRune(`(){%*"\]`, r)
	})
}

func hasKeyword(list []string, k string) bool {
	return slices.ContainsFunc(list, func(x string) bool { return strings.EqualFold(x, k) })
}

// addKeyword returns a sorted list with k in it; list itself stays as it is.
func addKeyword(list []string, k string) []string {
	if hasKeyword(list, k) {
		return list
	}
	list = append(slices.Clone(list), k)
	slices.Sort(list)
	return list
}

func removeKeyword(list []string, k string) []string {
	return slices.DeleteFunc(slices.Clone(list), func(x string) bool { return strings.EqualFold(x, k) })
}

// change returns what op makes of s.
func (s flagSet) change(op mailstore.FlagOp, with flagSet) flagSet {
	switch op {
	case mailstore.FlagsReplace:
		return with
	case mailstore.FlagsAdd:
		s.letters = sortLetters(s.letters + with.letters)
		for _, k := range with.keywords {
			s.keywords = addKeyword(s.keywords, k)
		}
	case mailstore.FlagsRemove:
		s.letters = strings.Map(func(r rune) rune {
			if strings.ContainsRune(with.letters, r) {
				return -1
			}
			return r
		}, s.letters)
		for _, k := range with.keywords {
			s.keywords = removeKeyword(s.keywords, k)
		}
	}
	return s
}

func (s flagSet) equal(t flagSet) bool {
	return s.letters == t.letters && slices.Equal(s.keywords, t.keywords)
}

// names lists the flags as IMAP names them, sorted.
func (s flagSet) names() []string {
	if s.letters == "" && len(s.keywords) == 0 {
		return nil
	}
	list := make([]string, 0, len(s.letters)+len(s.keywords))
	for _, l := range flagLetters() {
		if strings.IndexByte(s.letters, l.letter) >= 0 {
			list = append(list, l.flag)
		}
	}
	list = append(list, s.keywords...)
	slices.Sort(list)
	return slices.Compact(list)
}

// system picks the letters of system flags out of all letters in a file's name.
func system(letters string) string {
	return strings.Map(func(r rune) rune {
		if strings.ContainsRune("DFPRST", r) {
			return r
		}
		return -1
	}, letters)
}
