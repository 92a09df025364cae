package maildir

import (
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"sluice/mailstore"
	"sluice/mailstore/storetest"
)

// BenchmarkDeliver: ten sessions, 10 KB a message.
func BenchmarkDeliver(b *testing.B) {
	text := strings.Repeat(strings.Repeat("x", 76)+"\r\n", 10_000/78)
	for _, bench := range []struct {
		name string
		item mailstore.Item
	}{
		{"one inbox", mailstore.Item{Account: storetest.Anna, ID: "bench"}},
		{"a folder, flagged", mailstore.Item{Account: storetest.Anna, ID: "bench", Folder: "Lists/a", Flags: []string{`\Seen`, "$Label1"}}},
	} {
		b.Run(bench.name, func(b *testing.B) {
			s := open(b, b.TempDir())
			b.SetBytes(int64(len(text)))
			b.ReportAllocs()
			var left atomic.Int64
			left.Store(int64(b.N))
			b.ResetTimer()
			var group sync.WaitGroup
			for range 10 {
				group.Go(func() {
					for left.Add(-1) >= 0 {
						item := bench.item
						item.Content = strings.NewReader(text)
						if _, err := s.Deliver(b.Context(), []mailstore.Item{item}); err != nil {
							b.Error(err)
							return
						}
					}
				})
			}
			group.Wait()
			b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "mails/s")
		})
	}
}
