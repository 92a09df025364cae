package maildir

import (
	"context"
	"path/filepath"
	"slices"
	"testing"

	"sluice/mailstore"
	"sluice/mailstore/storetest"
)

func exists(_ context.Context, account string) (bool, error) {
	return slices.Contains([]string{storetest.Anna, storetest.Ben, storetest.Small}, account), nil
}

func quota(_ context.Context, account string) (int64, error) {
	if account == storetest.Small {
		return storetest.SmallQuota, nil
	}
	return 0, nil
}

// open opens a store in a folder that may hold one already.
func open(t testing.TB, data string, change ...func(*Config)) *Store {
	t.Helper()
	cfg := Config{
		Root:     filepath.Join(data, "mail"),
		Users:    filepath.Join(data, "users"),
		Exists:   exists,
		Quota:    quota,
		Hostname: "mx.example.org",
	}
	for _, c := range change {
		c(&cfg)
	}
	s, err := Open(cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	})
	return s
}

func TestStore(t *testing.T) {
	storetest.Test(t, func(t testing.TB) mailstore.Store { return open(t, t.TempDir()) })
}
