package listen_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"sluice/mailstore"
	"sluice/protocols/listen"
)

func wrong(context.Context) (string, error) {
	return "", fmt.Errorf("login x: %w", mailstore.ErrPassword)
}
func right(context.Context) (string, error)   { return "me@localhost", nil }
func offline(context.Context) (string, error) { return "", errors.New("database is locked") }

// attempt returns how long a login took, in synthetic time.
func attempt(t *testing.T, l *listen.Logins, peer, login string, trusted bool, check func(context.Context) (string, error)) (time.Duration, error) {
	t.Helper()
	begin := time.Now()
	_, err := l.Attempt(t.Context(), "imap", netip.MustParseAddr(peer), trusted, login, check)
	return time.Since(begin), err
}

func TestLoginBackOff(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := &listen.Logins{Log: slog.New(slog.DiscardHandler)}
		const peer = "192.0.2.1"
		for i, want := range []time.Duration{1, 2, 4, 8, 16, 30, 30} {
			took, err := attempt(t, l, peer, fmt.Sprint("user", i), false, wrong)
			if took != want*time.Second || !errors.Is(err, mailstore.ErrPassword) {
				t.Errorf("failure %d took %v, %v; want %v s", i+1, took, err, int(want))
			}
		}
		if took, err := attempt(t, l, "192.0.2.2", "me", false, wrong); took != time.Second || err == nil {
			t.Errorf("another address took %v, %v", took, err)
		}
		if took, err := attempt(t, l, peer, "me", false, right); took != 0 || err != nil {
			t.Errorf("the right password after the wait took %v, %v", took, err)
		}
		if took, _ := attempt(t, l, peer, "me", false, wrong); took != time.Second {
			t.Errorf("a failure after a success took %v", took)
		}
	})
}

func TestLoginBackOffOfLoopbackIsPerAccount(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := &listen.Logins{Log: slog.New(slog.DiscardHandler)}
		for _, peer := range []struct {
			addr    string
			trusted bool
		}{{"127.0.0.1", false}, {"10.0.0.1", true}} {
			for range 3 {
				_, _ = attempt(t, l, peer.addr, "victim", peer.trusted, wrong)
			}
			if took, err := attempt(t, l, peer.addr, "other", peer.trusted, right); took != 0 || err != nil {
				t.Errorf("%s: another account took %v, %v", peer.addr, took, err)
			}
			if took, _ := attempt(t, l, peer.addr, "victim", peer.trusted, wrong); took != 8*time.Second {
				t.Errorf("%s: the fourth failure took %v", peer.addr, took)
			}
		}
	})
}

func TestLoginsInParallelTakeTurns(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := &listen.Logins{Log: slog.New(slog.DiscardHandler)}
		_, _ = attempt(t, l, "192.0.2.1", "me", false, wrong)
		var mu sync.Mutex
		tried, throttled := 0, 0
		var wg sync.WaitGroup
		for range 100 {
			wg.Go(func() {
				_, err := attempt(t, l, "192.0.2.1", "me", false, func(ctx context.Context) (string, error) {
					mu.Lock()
					defer mu.Unlock()
					tried++
					return wrong(ctx)
				})
				mu.Lock()
				defer mu.Unlock()
				if errors.Is(err, listen.ErrThrottled) {
					throttled++
				}
			})
		}
		wg.Wait()
		if tried > 35 || tried+throttled != 100 {
			t.Errorf("of 100 logins at once %d were tried and %d refused untried", tried, throttled)
		}
	})
}

func TestLoginWaitEndsWithContext(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := &listen.Logins{Log: slog.New(slog.DiscardHandler), First: time.Hour, Most: time.Hour}
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if _, err := l.Attempt(ctx, "pop3", netip.MustParseAddr("192.0.2.1"), false, "me", wrong); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("error %v", err)
		}
	})
}

func TestLoginTemporaryErrorIsNoFailure(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var log strings.Builder
		l := &listen.Logins{Log: slog.New(slog.NewTextHandler(&log, nil))}
		for range 3 {
			if took, err := attempt(t, l, "192.0.2.1", "me", false, offline); took != 0 || err == nil {
				t.Errorf("took %v, %v", took, err)
			}
		}
		if log.Len() > 0 {
			t.Errorf("logged %s", log.String())
		}
	})
}

func TestLoginsAreForgotten(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := &listen.Logins{Log: slog.New(slog.DiscardHandler), Size: 2}
		for _, peer := range []string{"192.0.2.1", "192.0.2.2", "192.0.2.3"} {
			_, _ = attempt(t, l, peer, "me", false, wrong)
		}
		if took, _ := attempt(t, l, "192.0.2.1", "me", false, wrong); took != time.Second {
			t.Errorf("the oldest of three was not forgotten: %v", took)
		}
		if took, _ := attempt(t, l, "192.0.2.3", "me", false, wrong); took != 2*time.Second {
			t.Errorf("the newest was forgotten: %v", took)
		}
		time.Sleep(16 * time.Minute) // synthetic
		if took, _ := attempt(t, l, "192.0.2.3", "me", false, wrong); took != time.Second {
			t.Errorf("not forgotten after a quarter of an hour: %v", took)
		}
	})
}

func TestLoginFailureIsOneLogLine(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var log strings.Builder
		l := &listen.Logins{Log: slog.New(slog.NewTextHandler(&log, nil))}
		_, _ = attempt(t, l, "192.0.2.1", "me\r\nlevel=INFO msg=forged", false, wrong)
		line := log.String()
		if strings.Count(line, "\n") != 1 {
			t.Errorf("not one line: %q", line)
		}
		for _, want := range []string{`msg="login failed"`, "address=192.0.2.1", `account="me\r\nlevel=INFO msg=forged"`, "door=imap", "failures=1"} {
			if !strings.Contains(line, want) {
				t.Errorf("%q lacks %s", line, want)
			}
		}
	})
}
