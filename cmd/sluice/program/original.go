package program

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"os"

	"sluice/pipeline"
	"sluice/pipeline/mime"
)

// errChanged says that what lies in a folder is not what came: fields were deleted when it was filed, an MTA has changed it
// on its way, or somebody since.
var errChanged = errors.New("the mail on disk is not the one that came: its SHA-256 is another")

// original returns the message of a record as it came from the copy that was filed: without what we and the MTA behind us
// have put on top, with the line ends that it had on the wire. Its size and SHA-256 are those of the record, or the error
// wraps errChanged.
func original(path string, r *pipeline.Record, l mime.Limits) (*mime.Message, error) {
	text, err := os.ReadFile(path)
	if err != nil {
		return nil, fmt.Errorf("read %s: %w", path, cause(err))
	}
	text = crlf(text)
	came, ok := cameAs(text, r)
	if !ok {
		return nil, fmt.Errorf("%s: %w", path, errChanged)
	}
	m, err := mime.Parse(bytes.NewReader(came), int64(len(came)), l)
	if err != nil {
		return nil, fmt.Errorf("read %s: %w", path, err)
	}
	return m, nil
}

// cameAs finds in a copy the octets that came and were decided about: whole fields stand before them, and those that the
// record has may lack. Only what has the right length is hashed.
func cameAs(text []byte, r *pipeline.Record) (came []byte, ok bool) {
	if r.SHA256 == "" || r.Size <= 0 {
		return nil, false
	}
	if came, ok := cameWithout(text, r, nil); ok {
		return came, true
	}
	for _, x := range r.Recipients {
		if len(x.Removed) == 0 {
			continue
		}
		if came, ok := cameWithout(text, r, x.Removed); ok {
			return came, true
		}
	}
	return nil, false
}

// cameWithout is cameAs for a copy that lacks these fields. The hash is of all that came, and forged fields of ours, which
// nobody was shown, are not in the size.
func cameWithout(text []byte, r *pipeline.Record, removed []pipeline.Removed) (came []byte, ok bool) {
	var forged []pipeline.Removed
	all, lies := r.Size, r.Size
	for _, x := range removed {
		if pipeline.Ours(x.Name()) {
			all += int64(len(x.Field))
			forged = append(forged, x)
		} else {
			lies -= int64(len(x.Field))
		}
	}
	at := int64(len(text)) - lies
	for _, came := range [][]byte{
		restored(suffix(text, at), removed),
		// A message without an end of line at its end has got one in the folder, and one without a header an empty line before.
		restored(bytes.TrimSuffix(suffix(text, at-2), []byte("\r\n")), removed),
		suffix(text, int64(len(text))-all), // it is no copy of ours
	} {
		if sum := sha256.Sum256(came); int64(len(came)) == all && hex.EncodeToString(sum[:]) == r.SHA256 {
			return lessened(came, forged), true
		}
	}
	return nil, false
}

// restored is what is left of a message with the fields that were removed from it; nil where they do not fit in.
func restored(text []byte, removed []pipeline.Removed) []byte {
	if len(removed) == 0 || len(text) == 0 {
		return text
	}
	all := int64(len(text))
	for _, x := range removed {
		all += int64(len(x.Field))
	}
	out := make([]byte, 0, all)
	for _, x := range removed {
		n := all - x.Behind - int64(len(x.Field)) - int64(len(out))
		if n < 0 || n > int64(len(text)) {
			return nil
		}
		out = append(append(out, text[:n]...), x.Field...)
		text = text[n:]
	}
	return append(out, text...)
}

// lessened is a message without these fields, which stand in it.
func lessened(text []byte, fields []pipeline.Removed) []byte {
	if len(fields) == 0 {
		return text
	}
	out, at := make([]byte, 0, len(text)), int64(0)
	for _, x := range fields {
		end := int64(len(text)) - x.Behind
		out = append(out, text[at:end-int64(len(x.Field))]...)
		at = end
	}
	return append(out, text[at:]...)
}

func suffix(text []byte, at int64) []byte {
	if at < 0 || at > int64(len(text)) {
		return nil
	}
	return text[at:]
}
