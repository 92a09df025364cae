package program

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"sluice/pipeline"
	"sluice/pipeline/mime"
)

func TestOriginal(t *testing.T) {
	const top = "Return-Path: <a@b.example>\nDelivered-To: me@example.org\nX-Sluice-Id: x\nReceived: from here\n\tby there\n"
	for name, tt := range map[string]struct {
		came, lies string
		gone       bool
	}{
		"as it came":               {"Subject: x\r\n\r\ntext\r\n", top + "Subject: x\n\ntext\n", false},
		"with fields of rules":     {"Subject: x\r\n\r\ntext\r\n", top + "X-Spam-Score: 1.0\nSubject: x\n\ntext\n", false},
		"CRLF on disk":             {"Subject: x\r\n\r\ntext\r\n", strings.ReplaceAll(top+"Subject: x\n\ntext\n", "\n", "\r\n"), false},
		"without an end of line":   {"Subject: x\r\n\r\ntext", top + "Subject: x\n\ntext\n", false},
		"no header":                {"text alone\r\n", top + "\ntext alone\n", false},
		"a field more inside":      {"Subject: x\r\n\r\ntext\r\n", top + "Subject: x\nX-Later: y\n\ntext\n", true},
		"another text":             {"Subject: x\r\n\r\ntext\r\n", top + "Subject: x\n\ntexT\n", true},
		"shorter than it came":     {"Subject: x\r\n\r\ntext\r\n", "x\n", true},
		"empty":                    {"Subject: x\r\n\r\ntext\r\n", "", true},
		"an empty line at its end": {"Subject: x\r\n\r\ntext\r\n", top + "Subject: x\n\ntext\n\n", false},
	} {
		t.Run(name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "mail")
			if err := os.WriteFile(path, []byte(tt.lies), 0o600); err != nil {
				t.Fatal(err)
			}
			sum := sha256.Sum256([]byte(tt.came))
			r := &pipeline.Record{ID: "x", Size: int64(len(tt.came)), SHA256: hex.EncodeToString(sum[:])}
			m, err := original(path, r, mime.Limits{})
			if tt.gone {
				if !errors.Is(err, errChanged) {
					t.Errorf("got %v", err)
				}
				return
			}
			if err != nil || m.Size() != r.Size {
				t.Errorf("got %v, %v", m, err)
			}
		})
	}
	if _, err := original(filepath.Join(t.TempDir(), "none"), &pipeline.Record{}, mime.Limits{}); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("got %v", err)
	}
}
