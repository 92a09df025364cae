package program

import (
	"cmp"
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
	removed := func(fields ...string) (all []pipeline.Removed) {
		for i := 0; i < len(fields); i += 2 {
			all = append(all, pipeline.Removed{Field: []byte(fields[i]), Behind: int64(len(fields[i+1]))})
		}
		return all
	}
	for name, tt := range map[string]struct {
		came, decided, lies string
		removed             [][]pipeline.Removed
		gone                bool
	}{
		"a list's field": {
			"A: b\r\nDelivered-To: list\r\nSubject: x\r\n\r\ntext\r\n", "", top + "A: b\nSubject: x\n\ntext\n",
			[][]pipeline.Removed{removed("Delivered-To: list\r\n", "Subject: x\r\n\r\ntext\r\n")}, false,
		},
		"the second recipient's": {
			"A: b\r\nB: c\r\nC: d\r\n\r\ntext\r\n", "", top + "C: d\n\ntext\n",
			[][]pipeline.Removed{removed("A: b\r\n", "B: c\r\nC: d\r\n\r\ntext\r\n"), nil,
				removed("A: b\r\n", "B: c\r\nC: d\r\n\r\ntext\r\n", "B: c\r\n", "C: d\r\n\r\ntext\r\n")}, false,
		},
		"a forged one, which nobody was shown": {
			"X-Spam-Flag: NO\r\nReturn-Path: <>\r\nA: b\r\nX-Sluice-Id: y\r\n\r\ntext", "Return-Path: <>\r\nA: b\r\n\r\ntext", top + "A: b\n\ntext\n",
			[][]pipeline.Removed{removed("X-Spam-Flag: NO\r\n", "Return-Path: <>\r\nA: b\r\nX-Sluice-Id: y\r\n\r\ntext",
				"Return-Path: <>\r\n", "A: b\r\nX-Sluice-Id: y\r\n\r\ntext", "X-Sluice-Id: y\r\n", "\r\ntext")}, false,
		},
		"the mail itself, and no copy": {
			"X-Spam-Flag: NO\r\nA: b\r\n\r\ntext\r\n", "A: b\r\n\r\ntext\r\n", "X-Spam-Flag: NO\r\nA: b\r\n\r\ntext\r\n",
			[][]pipeline.Removed{removed("X-Spam-Flag: NO\r\n", "A: b\r\n\r\ntext\r\n")}, false,
		},
		"what does not fit": {
			"A: b\r\nB: c\r\n\r\ntext\r\n", "", top + "B: c\n\ntext\n",
			[][]pipeline.Removed{{{Field: []byte("A: b\r\n"), Behind: 1000}}, {{Field: []byte("A: b\r\n"), Behind: -3}}}, true,
		},
		"another text": {
			"A: b\r\nB: c\r\n\r\ntext\r\n", "", top + "B: c\n\ntexT\n",
			[][]pipeline.Removed{removed("A: b\r\n", "B: c\r\n\r\ntext\r\n")}, true,
		},
	} {
		t.Run(name, func(t *testing.T) {
			sum := sha256.Sum256([]byte(tt.came))
			decided := cmp.Or(tt.decided, tt.came)
			r := &pipeline.Record{ID: "x", Size: int64(len(decided)), SHA256: hex.EncodeToString(sum[:])}
			for _, x := range tt.removed {
				r.Recipients = append(r.Recipients, pipeline.RecipientRecord{Removed: x})
			}
			if came, ok := cameAs(crlf([]byte(tt.lies)), r); ok == tt.gone || ok && string(came) != decided {
				t.Errorf("got %q, %v", came, ok)
			}
		})
	}
	if _, err := original(filepath.Join(t.TempDir(), "none"), &pipeline.Record{}, mime.Limits{}); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("got %v", err)
	}
}
