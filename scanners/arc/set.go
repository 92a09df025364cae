package arc

import (
	"bytes"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"sluice/pipeline/mime"
	"sluice/scanners/dkim/signature"
)

// The three fields of a set (RFC 8617, 4.1).
const (
	resultsField = "ARC-Authentication-Results"
	messageField = "ARC-Message-Signature"
	sealField    = "ARC-Seal"
)

// A set is the fields of one instance, by their places in the header; -1 is missing.
type set struct {
	results, message, seal int

	// of the message signature
	ams    signature.Signature
	amsErr error
	// of the seal
	as    signature.Signature
	asErr error
	cv    string
}

// collect finds the sets. err says what is wrong with their structure; sets found so far are returned with it.
func collect(fields []mime.Field, most int) (sets []set, err error) {
	for at, f := range fields {
		kind := slices.IndexFunc([]string{resultsField, messageField, sealField}, func(n string) bool { return strings.EqualFold(n, f.Name) })
		if kind < 0 {
			continue
		}
		i, e := instance(f, kind == 0)
		if e == nil && i > most {
			e = fmt.Errorf("there are more than %d sets", most)
		}
		if e != nil {
			if err == nil {
				err = e
			}
			continue
		}
		for len(sets) < i {
			sets = append(sets, set{-1, -1, -1, signature.Signature{}, nil, signature.Signature{}, nil, ""})
		}
		place := []*int{&sets[i-1].results, &sets[i-1].message, &sets[i-1].seal}[kind]
		if *place >= 0 && err == nil {
			err = fmt.Errorf("there are two %s with i=%d", f.Name, i)
		}
		*place = at
	}
	for i, s := range sets {
		for kind, at := range []int{s.results, s.message, s.seal} {
			if at < 0 && err == nil {
				err = fmt.Errorf("there is no %s with i=%d", []string{resultsField, messageField, sealField}[kind], i+1)
			}
		}
	}
	return sets, err
}

// instance returns i= of a field. RFC 8617, 4.2.1 and 4.1.1: of results it is the first tag, and the rest is no tag list.
func instance(f mime.Field, first bool) (int, error) {
	value := string(f.Raw[bytes.IndexByte(f.Raw, ':')+1:])
	if first {
		head, _, ok := strings.Cut(value, ";")
		if !ok {
			return 0, fmt.Errorf("%s does not begin with i=", clip(f.Name, 40))
		}
		value = head
	}
	tags, err := signature.ParseTags(value)
	if err != nil {
		return 0, fmt.Errorf("%s: %w", clip(f.Name, 40), err)
	}
	v, ok := tags.Value("i")
	n, err := strconv.ParseUint(v, 10, 16)
	if !ok || err != nil || n == 0 || len(v) > 2 {
		if len(v) > 2 && strings.Trim(v, "0123456789") == "" {
			return 0, fmt.Errorf("%s has i=%s: there are more than %d sets", clip(f.Name, 40), clip(v, 20), mostSets)
		}
		return 0, fmt.Errorf("%s has no valid i=: %q", clip(f.Name, 40), clip(v, 20))
	}
	return int(n), nil
}

// parse reads the signatures of a set whose fields are all there.
func (s *set) parse(fields []mime.Field, now int64) {
	// RFC 8617 names no default for c=. Its suite and those who wrote it take relaxed, as the seals do.
	s.ams, s.amsErr = signature.Parse(fields[s.message], signature.Relaxed)
	if s.amsErr == nil {
		s.amsErr = s.checkMessage(now)
	}
	s.as, s.asErr = signature.ParseSeal(fields[s.seal])
	s.cv, _ = s.as.Tags.Value("cv")
	if _, ok := s.as.Tags.Value("h"); ok && s.asErr == nil { // RFC 8617, 4.1.3
		s.asErr = permError("a seal has no h=")
	}
}

func permError(reason string) error {
	return &signature.Error{Result: signature.PermError, Reason: reason}
}

func (s *set) checkMessage(now int64) error {
	if slices.Contains(s.ams.Headers, strings.ToLower(sealField)) { // RFC 8617, 4.1.2
		return permError("it signs seals")
	}
	x, err := s.ams.Number("x")
	if err == nil && x >= 0 && x < now {
		err = permError("it has expired")
	}
	return err
}
