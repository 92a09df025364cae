package spool

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"io"
	"math/rand/v2"
	"os"
	"sync"
	"testing"
	"testing/iotest"
)

// message returns n octets in which no block looks like another.
func message(n int) []byte {
	p := make([]byte, n)
	rand.NewChaCha8([32]byte{1}).Read(p)
	return p
}

func check(t *testing.T, s *Spool, want []byte) {
	t.Helper()
	if s.Size() != int64(len(want)) {
		t.Fatalf("size %d, want %d", s.Size(), len(want))
	}
	if got, err := io.ReadAll(s.Reader()); err != nil || !bytes.Equal(got, want) {
		t.Fatalf("%d octets were read, %v", len(got), err)
	}
	sum := sha256.Sum256(want)
	if s.SHA256() != hex.EncodeToString(sum[:]) {
		t.Fatalf("SHA-256 %s is not that of the message", s.SHA256())
	}
	end := int64(len(want))
	for _, off := range []int64{0, 1, blockSize - 1, blockSize, blockSize + 1, 3*blockSize + 7, max(end-1, 0), end, end + 9} {
		for _, n := range []int{0, 1, 100, 2*blockSize + 3} {
			p, q := make([]byte, n), make([]byte, n)
			got, gotErr := s.ReadAt(p, off)
			exp, expErr := bytes.NewReader(want).ReadAt(q, off)
			if n == 0 {
				expErr = nil // nothing asked, nothing missing
			}
			if got != exp || gotErr != expErr || !bytes.Equal(p, q) {
				t.Fatalf("ReadAt(%d octets, %d) = %d, %v; want %d, %v", n, off, got, gotErr, exp, expErr)
			}
		}
	}
}

func TestWhatIsWrittenIsRead(t *testing.T) {
	var pool Pool
	for _, size := range []int{0, 1, 10_000, blockSize, blockSize + 1, 3 * blockSize, 10*blockSize + 17} {
		for _, memory := range []int64{-1, 1, 2 * blockSize, 1 << 20} {
			want := message(size)
			for _, chunk := range []int{1000, blockSize, 65535} {
				s := New(Options{Memory: memory, Dir: t.TempDir(), Pool: &pool})
				for rest := want; len(rest) > 0; {
					n := min(chunk, len(rest))
					if m, err := s.Write(rest[:n]); m != n || err != nil {
						t.Fatalf("Write = %d, %v", m, err)
					}
					rest = rest[n:]
				}
				check(t, s, want)
				if err := s.Close(); err != nil {
					t.Fatal(err)
				}
			}
			s, err := Receive(iotest.DataErrReader(bytes.NewReader(want)), Options{Memory: memory, Dir: t.TempDir()})
			if err != nil {
				t.Fatal(err)
			}
			check(t, s, want)
			s.Close()
		}
	}
}

// memory counts what is kept outside the file.
func (s *Spool) memory() (n int) {
	for _, b := range s.blocks {
		n += len(b)
	}
	return n
}

func TestMemoryLimit(t *testing.T) {
	dir := t.TempDir()
	small, err := Receive(bytes.NewReader(message(DefaultMemory)), Options{Dir: dir})
	if err != nil {
		t.Fatal(err)
	}
	defer small.Close()
	if small.file != nil {
		t.Error("a message of 1 MiB uses a file")
	}
	large, err := Receive(bytes.NewReader(message(DefaultMemory+2*blockSize+1)), Options{Dir: dir})
	if err != nil {
		t.Fatal(err)
	}
	defer large.Close()
	if large.file == nil || large.memory() > blockSize {
		t.Errorf("a message over 1 MiB keeps %d octets in memory", large.memory())
	}
	if names, _ := os.ReadDir(dir); len(names) != 0 {
		t.Errorf("the file has a name: %v", names)
	}
}

func TestTooLarge(t *testing.T) {
	o := Options{Memory: blockSize, Max: 4 * blockSize, Dir: t.TempDir()}
	t.Run("exactly the limit is taken", func(t *testing.T) {
		s, err := Receive(bytes.NewReader(message(4*blockSize)), o)
		if err != nil {
			t.Fatal(err)
		}
		s.Close()
	})
	t.Run("what is over is read to its end", func(t *testing.T) {
		r := bytes.NewReader(message(40*blockSize + 3))
		s, err := Receive(r, o)
		if s != nil || err != ErrTooLarge {
			t.Fatalf("Receive = %v, %v", s, err)
		}
		if r.Len() != 0 {
			t.Errorf("%d octets were left unread", r.Len())
		}
	})
	t.Run("an error while the rest is read is told too", func(t *testing.T) {
		reset := errors.New("connection reset")
		_, err := Receive(io.MultiReader(bytes.NewReader(message(5*blockSize)), iotest.ErrReader(reset)), o)
		if !errors.Is(err, ErrTooLarge) || !errors.Is(err, reset) {
			t.Fatalf("Receive: %v", err)
		}
	})
	t.Run("Write goes on failing", func(t *testing.T) {
		s := New(o)
		defer s.Close()
		if _, err := s.Write(message(4 * blockSize)); err != nil {
			t.Fatal(err)
		}
		for _, n := range []int{1, 0, 10} {
			if _, err := s.Write(make([]byte, n)); err != ErrTooLarge {
				t.Fatalf("Write of %d: %v", n, err)
			}
		}
		if _, err := s.ReadAt(make([]byte, 1), 0); err != ErrTooLarge {
			t.Errorf("ReadAt: %v", err)
		}
		if s.memory() != 0 || s.file != nil {
			t.Error("memory or file are held after the failure")
		}
	})
	t.Run("no limit and the default one", func(t *testing.T) {
		s := New(Options{Max: -1, Dir: o.Dir})
		defer s.Close()
		s.size = DefaultMax
		if _, err := s.Write([]byte("x")); err != nil {
			t.Error(err)
		}
		s = New(Options{})
		defer s.Close()
		s.size = DefaultMax
		if _, err := s.Write([]byte("x")); err != ErrTooLarge {
			t.Error(err)
		}
	})
}

// A failing file takes so many writes and no more.
type failing struct {
	file
	writes int
	err    error
	closed bool
}

func (f *failing) WriteAt(p []byte, off int64) (int, error) {
	if f.writes--; f.writes < 0 {
		return len(p) / 2, f.err
	}
	return f.file.WriteAt(p, off)
}

func (f *failing) Close() error {
	f.closed = true
	return f.file.Close()
}

func TestNthWriteFails(t *testing.T) {
	full := errors.New("no space left on device")
	want := message(8*blockSize + 5)
	for n := range 9 {
		var f *failing
		o := Options{Memory: 2 * blockSize, open: func(string) (file, error) {
			under, err := openUnnamed(t.TempDir())
			f = &failing{file: under, writes: n, err: full}
			return f, err
		}}
		r := bytes.NewReader(want)
		s, err := Receive(r, o)
		if n == 8 { // as many as the message needs
			if err != nil {
				t.Fatal(err)
			}
			check(t, s, want)
			s.Close()
			continue
		}
		if s != nil || !errors.Is(err, full) {
			t.Fatalf("write %d fails: Receive = %v, %v", n, s, err)
		}
		if r.Len() != 0 {
			t.Errorf("write %d fails: %d octets were left unread", n, r.Len())
		}
		if !f.closed {
			t.Errorf("write %d fails: the file stays open", n)
		}
	}
}

func TestNoFile(t *testing.T) {
	s := New(Options{Memory: -1, Dir: t.TempDir() + "/missing"})
	defer s.Close()
	_, err := s.Write(message(blockSize))
	if !errors.Is(err, os.ErrNotExist) {
		t.Fatalf("Write: %v", err)
	}
	if _, again := s.Write([]byte("x")); again != err {
		t.Errorf("then: %v", again)
	}
}

func TestReadErrorOfTheSource(t *testing.T) {
	s, err := Receive(io.MultiReader(bytes.NewReader(message(100)), iotest.ErrReader(io.ErrUnexpectedEOF)), Options{})
	if s != nil || err != io.ErrUnexpectedEOF {
		t.Fatalf("Receive = %v, %v", s, err)
	}
}

type idle struct{}

func (idle) Read([]byte) (int, error) { return 0, nil }

func TestSourceThatNeverEnds(t *testing.T) {
	if _, err := Receive(idle{}, Options{}); err != io.ErrNoProgress {
		t.Fatal(err)
	}
}

func TestCloseWhileReading(t *testing.T) {
	want := message(4 * blockSize)
	s, err := Receive(bytes.NewReader(want), Options{Memory: -1, Dir: t.TempDir()})
	if err != nil {
		t.Fatal(err)
	}
	var readers sync.WaitGroup
	started := make(chan struct{}, 8)
	for range 8 {
		readers.Go(func() {
			p := make([]byte, 3*blockSize)
			for i := 0; ; i++ {
				if i == 1 {
					started <- struct{}{}
				}
				if _, err := s.ReadAt(p, 7); err != nil {
					if !errors.Is(err, os.ErrClosed) {
						t.Error(err)
					}
					return
				}
				if !bytes.Equal(p, want[7:7+len(p)]) {
					t.Error("other octets were read")
					return
				}
			}
		})
	}
	for range 8 {
		<-started
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	readers.Wait()
	if err := s.Close(); err != nil {
		t.Errorf("second Close: %v", err)
	}
	if _, err := s.Write([]byte("x")); !errors.Is(err, os.ErrClosed) {
		t.Errorf("Write after Close: %v", err)
	}
}

// Who holds a message reads it beyond Close; the last one to release it frees it.
func TestHold(t *testing.T) {
	for _, size := range []int{10, 100_000} { // in memory, in a file
		p := message(size)
		s, err := Receive(bytes.NewReader(p), Options{Memory: 50_000, Dir: t.TempDir()})
		if err != nil {
			t.Fatal(err)
		}
		one, two := s.Hold(), s.Hold()
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
		one()
		one()
		if got, err := io.ReadAll(s.Reader()); err != nil || !bytes.Equal(got, p) {
			t.Fatalf("%d octets of %d, %v", len(got), size, err)
		}
		two()
		if _, err := s.ReadAt(make([]byte, 1), 0); !errors.Is(err, os.ErrClosed) || s.blocks != nil || s.file != nil {
			t.Errorf("it is still there: %v", err)
		}
		s.Hold()() // too late to hold anything
		if _, err := s.ReadAt(make([]byte, 1), 0); !errors.Is(err, os.ErrClosed) {
			t.Errorf("it came back: %v", err)
		}
	}
}

func BenchmarkReceive(b *testing.B) {
	for name, size := range map[string]int{"10KB": 10_000, "1MB": 1_000_000, "10MB": 10_000_000} {
		b.Run(name, func(b *testing.B) {
			p, dir := message(size), b.TempDir()
			b.SetBytes(int64(size))
			b.ReportAllocs()
			for b.Loop() {
				s, err := Receive(bytes.NewReader(p), Options{Dir: dir})
				if err != nil {
					b.Fatal(err)
				}
				s.Close()
			}
		})
	}
}

// Messages that share memory never see each other's octets, also while the memory goes round.
func TestPool(t *testing.T) {
	var pool Pool
	var group sync.WaitGroup
	for i := range 8 {
		group.Go(func() {
			want := bytes.Repeat([]byte{byte(i)}, 3*blockSize+i)
			for n := range 50 {
				s := New(Options{Memory: int64(n%4) * blockSize, Dir: t.TempDir(), Pool: &pool})
				if _, err := s.Write(want); err != nil {
					t.Error(err)
				}
				r := s.Reader()
				if got, err := io.ReadAll(r); err != nil || !bytes.Equal(got, want) {
					t.Errorf("%d octets, %v", len(got), err)
				}
				s.Close()
				if _, err := r.ReadAt(make([]byte, 1), 0); !errors.Is(err, os.ErrClosed) {
					t.Errorf("read after the end: %v", err)
				}
				s.Close() // gives back nothing twice
			}
		})
	}
	group.Wait()
}
