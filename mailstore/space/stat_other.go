//go:build !linux && !darwin && !freebsd

package space

import "errors"

func stat(string) (Free, error) { return Free{}, errors.ErrUnsupported }
