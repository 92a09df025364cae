package journal

import (
	"crypto/sha256"
	"encoding/base32"
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"sluice/pipeline"
)

// plain is the n-th record of a mail as most are: kept, by a rule file and a script that had nothing to say.
func plain(n int, received time.Time) *pipeline.Record {
	sum := sha256.Sum256(fmt.Appendf(nil, "%d", n))
	name := hex.EncodeToString(sum[:])
	ms := binary.BigEndian.AppendUint64(nil, uint64(received.UnixMilli())<<24)
	id := strings.ToLower(base32.HexEncoding.EncodeToString(ms))[:9] + name[:9] // it sorts by time, as those of mails do
	to := fmt.Sprintf("user%d@bench.test", n%500)
	r := record(id)
	r.Received, r.Door, r.QueueID, r.MessageID, r.SHA256 = received, pipeline.LMTP, name[:8], name[8:23]+"@mail.example", name
	r.Sender = address(fmt.Sprintf("list%d@example.org", n%997))
	answered := []pipeline.StageRecord{{Phase: pipeline.Content, State: "answered"}}
	r.Steps = []pipeline.StepRecord{{Name: "rules", Kind: "rules", Stages: answered}}
	x := recipient(to, pipeline.Delivered, "1795352261."+id+"_357997.host,S=5537,W=5636", "")
	x.Account, x.Folder, x.Reply = to, "INBOX", pipeline.Reply{Code: 250, Enhanced: "2.0.0", Text: "accepted as " + id}
	x.Steps = []pipeline.StepRecord{{Name: "sieve", Kind: "sieve", At: 1, Stages: answered}}
	r.Recipients = []pipeline.RecipientRecord{x}
	return r
}

// filled returns a journal with n records of the last 90 days.
func filled(b *testing.B, n int) *Journal {
	b.Helper()
	j, err := Open(b.Context(), Config{Path: filepath.Join(b.TempDir(), "journal.db")})
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() {
		if err := j.Close(); err != nil {
			b.Error(err)
		}
	})
	for i := range n {
		r := plain(i, noon.Add(-time.Duration(n-i)*(90*24*time.Hour/time.Duration(n))))
		if err := j.Record(b.Context(), r, false); err != nil {
			b.Fatal(err)
		}
		if i%500 == 499 {
			if err := j.Flush(b.Context()); err != nil {
				b.Fatal(err)
			}
		}
	}
	return j
}

// A record costs little beside its mail, also after many others. A hundred are written at a time.
func BenchmarkRecord(b *testing.B) {
	for _, before := range []int{0, 30_000} {
		b.Run(fmt.Sprintf("after %d", before), func(b *testing.B) {
			j := filled(b, before)
			b.ReportAllocs()
			for n := before; b.Loop(); n++ {
				if err := j.Record(b.Context(), plain(n, noon.Add(time.Duration(n)*time.Millisecond)), false); err != nil {
					b.Fatal(err)
				}
				if n%100 == 99 {
					if err := j.Flush(b.Context()); err != nil {
						b.Fatal(err)
					}
				}
			}
		})
	}
}

// Whoever asks what became of a mail of some day waits no longer than for the prompt.
func BenchmarkFind(b *testing.B) {
	j := filled(b, 30_000)
	for _, q := range []struct {
		name string
		ask  func(name string) (int, error)
	}{
		{"Message-ID", func(name string) (int, error) {
			all, err := j.Find(b.Context(), name[8:23]+"@mail.example")
			return len(all), err
		}},
		{"SHA-256", func(name string) (int, error) {
			all, _, err := j.Newest(b.Context(), Query{SHA256: name}, 10)
			return len(all), err
		}},
		{"recipient", func(string) (int, error) {
			all, _, err := j.Newest(b.Context(), Query{Recipient: "user77@bench.test"}, 1)
			return len(all), err
		}},
	} {
		b.Run(q.name, func(b *testing.B) {
			for b.Loop() {
				sum := sha256.Sum256([]byte("77"))
				if n, err := q.ask(hex.EncodeToString(sum[:])); n != 1 || err != nil {
					b.Fatal(n, err)
				}
			}
		})
	}
}

// All mail of one recipient of many, over many pages and buckets of time, as an export reads it.
func BenchmarkSearch(b *testing.B) {
	j := filled(b, 0)
	const n = 20_000
	for i := range n {
		who := i
		if i%2 == 0 {
			who = i * 500
		}
		if err := j.Record(b.Context(), plain(who, noon.Add(time.Duration(i)*6*time.Minute)), false); err != nil {
			b.Fatal(err)
		}
	}
	if err := j.Flush(b.Context()); err != nil {
		b.Fatal(err)
	}
	found := 0
	for b.Loop() {
		found = 0
		for _, err := range j.Search(b.Context(), Query{Recipient: "user0@bench.test"}) {
			if err != nil {
				b.Fatal(err)
			}
			found++
		}
	}
	if found < n/2 {
		b.Fatal(found)
	}
	b.ReportMetric(float64(b.Elapsed().Microseconds())/float64(b.N)/float64(found), "µs/record")
}
