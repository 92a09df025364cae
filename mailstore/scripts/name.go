package scripts

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"os"
	"strings"
	"unicode/utf8"

	"golang.org/x/text/unicode/norm"

	"sluice/mailstore"
)

const (
	mostName = 512 // octets: RFC 5804, 1.6: at least 128 characters
	longest  = 255 // octets of a file's name

	nameExtension = ".name"
)

// CheckName returns a script's name as names are compared (RFC 5804, 1.6: Net-Unicode, so NFC), or an error that wraps
// mailstore.ErrScriptName and says what is wrong.
func CheckName(name string) (string, error) {
	wrong := func(why string) error { return fmt.Errorf("%.80q is %w: %s", name, mailstore.ErrScriptName, why) }
	if !utf8.ValidString(name) {
		return "", wrong("it is not UTF-8")
	}
	if len(name) > mostName {
		return "", wrong(fmt.Sprintf("it has %d octets, at most %d are allowed", len(name), mostName))
	}
	name = norm.NFC.String(name)
	switch {
	case name == "":
		return "", wrong("it is empty")
	case len(name) > mostName: // a few characters get longer
		return "", wrong(fmt.Sprintf("it has %d octets, at most %d are allowed", len(name), mostName))
	}
	for _, r := range name {
		if r <= 0x1f || r >= 0x7f && r <= 0x9f || r == 0x2028 || r == 0x2029 {
			return "", wrong(fmt.Sprintf("it must not contain %q", r))
		}
	}
	return name, nil
}

// isPlain reports whether a file can be called as a script is.
func isPlain(name string) bool {
	return name[0] != '.' && name[0] != '=' && !strings.Contains(name, "/") && len(name)+len(extension) <= longest
}

// fileName returns the file of a script whose name has been checked.
func fileName(name string) string {
	if isPlain(name) {
		return name + extension
	}
	sum := sha256.Sum256([]byte(name))
	return "=" + hex.EncodeToString(sum[:16]) + extension
}

// nameOf returns the name of the script in a file; ok is false if it is none.
func (s shelf) nameOf(file string) (name string, ok bool) {
	name, ok = strings.CutSuffix(file, extension)
	if !ok || name == "" {
		return "", false
	}
	if name[0] == '=' {
		text, err := os.ReadFile(s.path(name + nameExtension))
		if err != nil {
			return "", false
		}
		name = string(text)
	}
	checked, err := CheckName(name)
	return name, err == nil && checked == name && fileName(name) == file
}
