//go:build !linux

package program

import (
	"errors"
	"os"
)

func hideInput(*os.File) (show func(), err error) {
	return nil, errors.New("not known how on this system")
}
