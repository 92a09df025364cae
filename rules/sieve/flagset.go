package sieve

import (
	"slices"
	"strings"
)

// mostFlags bounds how many flags a script sets on a mail; IMAP clients cope with fewer.
const mostFlags = 200

// flagWords splits strings into flags: each may have several (RFC 5232, 2). What no mailbox can hold is left out, and so
// is what is there already, whatever the case it is written in: the first mention keeps its place.
func flagWords(list ...string) []string {
	var all []string
	for _, s := range list {
		for f := range strings.FieldsSeq(s) {
			if len(all) < mostFlags && isFlag(f) && !containsFlag(all, f) {
				all = append(all, f)
			}
		}
	}
	return all
}

// withoutFlags returns flags without those to be removed.
func withoutFlags(flags, remove []string) []string {
	return slices.DeleteFunc(slices.Clone(flags), func(f string) bool { return containsFlag(remove, f) })
}

func containsFlag(flags []string, flag string) bool {
	return slices.ContainsFunc(flags, func(f string) bool { return strings.EqualFold(f, flag) })
}

// isFlag reports whether a mailbox can hold a flag: a system flag of RFC 9051, 2.3.2 that is not the server's to set, or
// a keyword, which is an atom.
func isFlag(f string) bool {
	if name, ok := strings.CutPrefix(f, `\`); ok {
		switch strings.ToLower(name) {
		case "answered", "flagged", "deleted", "seen", "draft":
			return true
		}
		return false
	}
	return f != "" && len(f) <= 100 && !strings.ContainsFunc(f, func(r rune) bool {
		return r <= ' ' || r > '~' || strings.ContainsRune(`(){%*"\]`, r)
	})
}
