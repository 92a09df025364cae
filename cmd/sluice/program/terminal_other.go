//go:build !linux

package program

import (
	"errors"
	"os"
)

func hideInput(*os.File) (show func(), err error) {
	return nil, errors.New("not known how on this system")
}

// isTerminal reports whether a person looks at f: not known how on this system.
func isTerminal(*os.File) bool { return false }

func columnsOf(*os.File) int { return 0 }
