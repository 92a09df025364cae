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

// cameAs finds in a copy the octets that came: whole fields stand before them. Only what has the right length is hashed.
func cameAs(text []byte, r *pipeline.Record) (came []byte, ok bool) {
	at := int64(len(text)) - r.Size
	if r.SHA256 == "" || r.Size <= 0 {
		return nil, false
	}
	// A message without an end of line at its end has got one in the folder, and one without a header an empty line before.
	for _, came := range [][]byte{suffix(text, at), bytes.TrimSuffix(suffix(text, at-2), []byte("\r\n"))} {
		if sum := sha256.Sum256(came); int64(len(came)) == r.Size && hex.EncodeToString(sum[:]) == r.SHA256 {
			return came, true
		}
	}
	return nil, false
}

func suffix(text []byte, at int64) []byte {
	if at < 0 || at > int64(len(text)) {
		return nil
	}
	return text[at:]
}
