package program

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"slices"
	"strings"

	"sluice/cmd/sluice/program/config"
)

// largestSecret is how many octets a secret may have.
const largestSecret = 64 << 10

// secrets reads the files with passwords that a configuration names.
type secrets struct {
	config   *config.Config
	warnings []string // about those that others can read
}

// read is what Env.Secret is.
func (s *secrets) read(name string) (string, error) {
	path := s.config.Path(name)
	text, mode, err := readSecret(path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return "", fmt.Errorf("there is no file %s", path)
	case err != nil:
		return "", fmt.Errorf("read %s: %w", path, cause(err))
	case len(text) > largestSecret:
		return "", fmt.Errorf("%s has more than %d octets, so it is no secret", path, largestSecret)
	}
	secret := strings.TrimSpace(string(text))
	if secret == "" {
		return "", fmt.Errorf("%s is empty", path)
	}
	if mode.Perm()&0o004 != 0 {
		w := fmt.Sprintf("%s holds a secret, and everybody on this machine can read it; say chmod o= %s", path, path)
		if !slices.Contains(s.warnings, w) {
			s.warnings = append(s.warnings, w)
		}
	}
	return secret, nil
}

// readSecret reads a file and one octet more than a secret may have.
func readSecret(path string) (text []byte, mode fs.FileMode, err error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, 0, err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return nil, 0, err
	}
	text, err = io.ReadAll(io.LimitReader(f, largestSecret+1))
	return text, info.Mode(), err
}
