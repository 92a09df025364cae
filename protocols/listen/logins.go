package listen

import (
	"container/list"
	"context"
	"errors"
	"log/slog"
	"net/netip"
	"sync"
	"time"

	"sluice/mailstore"
)

// ErrThrottled: so many logins from this address are waiting after failed ones that this one is not even tried.
var ErrThrottled = errors.New("too many failed logins from this address; try again later")

// Logins guards the password logins of all doors against guessing. After a failed login the next ones from the same
// address are answered ever more slowly; from loopback and trusted networks, where a webmail may speak for everybody,
// the next ones for the same account. The zero value is usable.
type Logins struct {
	Log *slog.Logger     // gets one line for each failed login; nil: slog.Default
	Now func() time.Time // nil: time.Now
	// First is how long the answer to the first failure takes; it doubles with each. 0 is one second.
	First time.Duration
	// Most bounds the wait for one answer. 0 is 30 seconds.
	Most time.Duration
	// Keep is how long failures are remembered after the last one. 0 is 15 minutes.
	Keep time.Duration
	// Size is how many addresses are remembered; the longest unheard of is forgotten first. 0 is 10,000.
	Size int

	mu      sync.Mutex
	failing map[loginKey]*list.Element
	order   list.List // of *failing, the one heard of last in front
	counts  LoginCounts
}

// LoginCounts are how many logins came to what, so far.
type LoginCounts struct {
	Succeeded uint64
	Failed    uint64 // wrong name or password
	Refused   uint64 // not even tried
}

// Counts returns what has been counted.
func (l *Logins) Counts() LoginCounts {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.counts
}

type loginKey struct {
	network netip.Prefix
	login   string // for loopback and trusted peers only
}

type failing struct {
	key   loginKey
	count int
	last  time.Time // of the last failure
	next  time.Time // when the next attempt may be tried
}

// Attempt calls check, which looks at the password, and returns what it returned. Only mailstore.ErrPassword counts as a
// failure: it is logged, with address, login name and door, and the answer is held back. A success clears what is known
// about the address. The wait ends with ctx, whose error is then returned. ErrThrottled: check was not called.
func (l *Logins) Attempt(ctx context.Context, door string, peer netip.Addr, trusted bool, login string,
	check func(context.Context) (account string, err error)) (string, error) {
	key := loginKey{network: network(peer)}
	if trusted || !peer.IsValid() || peer.IsLoopback() {
		key.login = login
	}
	wait, err := l.begin(key)
	if err != nil {
		l.log().Warn("login refused: too many failures", "address", peer, "account", login, "door", door)
		return "", err
	}
	if err := sleep(ctx, wait); err != nil {
		return "", err
	}
	account, err := check(ctx)
	switch {
	case err == nil:
		l.clear(key)
		return account, nil
	case !errors.Is(err, mailstore.ErrPassword):
		return "", err // not the client's fault
	}
	count, wait := l.failed(key)
	l.log().Warn("login failed", "address", peer, "account", login, "door", door, "failures", count)
	if e := sleep(ctx, wait); e != nil {
		return "", e
	}
	return "", err
}

func (l *Logins) log() *slog.Logger {
	if l.Log == nil {
		return slog.Default()
	}
	return l.Log
}

func (l *Logins) now() time.Time {
	if l.Now == nil {
		return time.Now()
	}
	return l.Now()
}

func (l *Logins) most() time.Duration { return orDefault(l.Most, 30*time.Second) }

func orDefault[T int | time.Duration](x, d T) T {
	if x <= 0 {
		return d
	}
	return x
}

// begin returns how long an attempt has to wait for its turn. Attempts that come at once take turns, so that many
// connections guess no faster than one.
func (l *Logins) begin(key loginKey) (time.Duration, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	now := l.now()
	l.expire(now)
	e, ok := l.failing[key]
	if !ok {
		return 0, nil
	}
	f := e.Value.(*failing)
	turn := f.next
	if turn.Before(now) {
		turn = now
	}
	if turn.Sub(now) > l.most() {
		l.counts.Refused++
		return 0, ErrThrottled
	}
	f.next = turn.Add(l.delay(f.count))
	return turn.Sub(now), nil
}

// failed counts a failure and returns how long its answer is held back.
func (l *Logins) failed(key loginKey) (count int, wait time.Duration) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.counts.Failed++
	if l.failing == nil {
		l.failing = map[loginKey]*list.Element{}
	}
	e, ok := l.failing[key]
	if !ok {
		e = l.order.PushFront(&failing{key: key})
		l.failing[key] = e
	}
	l.order.MoveToFront(e)
	for l.order.Len() > orDefault(l.Size, 10_000) {
		l.forget(l.order.Back())
	}
	f := e.Value.(*failing)
	f.count++
	f.last = l.now()
	wait = l.delay(f.count)
	if next := f.last.Add(wait); f.next.Before(next) {
		f.next = next
	}
	return f.count, wait
}

func (l *Logins) delay(failures int) time.Duration {
	d := orDefault(l.First, time.Second)
	for i := 1; i < failures && d < l.most(); i++ {
		d *= 2
	}
	return min(d, l.most())
}

func (l *Logins) clear(key loginKey) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.counts.Succeeded++
	if e, ok := l.failing[key]; ok {
		l.forget(e)
	}
}

// expire forgets what has been quiet for long enough. The list is ordered by the last failure.
func (l *Logins) expire(now time.Time) {
	keep := orDefault(l.Keep, 15*time.Minute)
	for e := l.order.Back(); e != nil && now.Sub(e.Value.(*failing).last) > keep; e = l.order.Back() {
		l.forget(e)
	}
}

func (l *Logins) forget(e *list.Element) {
	delete(l.failing, e.Value.(*failing).key)
	l.order.Remove(e)
}

func sleep(ctx context.Context, d time.Duration) error {
	if d <= 0 {
		return ctx.Err()
	}
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}
