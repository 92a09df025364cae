package mailstore

import (
	"errors"
	"fmt"
	"strings"
)

// ErrUse says that a folder cannot have a special use: there is none of this name, or another folder has it.
var ErrUse = errors.New("not a usable special use")

// UseAnnotation is where the special use of a folder is written (RFC 6154, 4). An empty text says that it has none,
// whatever its name is.
const UseAnnotation = "/private/specialuse"

// SpecialUse returns the name of a special use as [FolderInfo] has it, or ErrUse: `\Junk` for `\junk`. Those of RFC 6154
// that show mail of other folders are no uses of a folder here.
func SpecialUse(use string) (string, error) {
	for _, known := range []string{`\Archive`, `\Drafts`, `\Important`, `\Junk`, `\Sent`, `\Trash`} {
		if strings.EqualFold(use, known) {
			return known, nil
		}
	}
	return "", fmt.Errorf(`%w: %.100q is none of \Archive, \Drafts, \Important, \Junk, \Sent, \Trash`, ErrUse, use)
}

// UseByName returns the special use that a folder has because of its name, where no folder has been given that use: the
// folder "Junk" is for `\Junk`. "" is none.
func UseByName(folder string) string {
	use, err := SpecialUse(`\` + folder)
	if err != nil || use != `\`+folder || use == `\Important` {
		return ""
	}
	return use
}
