package imap

import (
	"fmt"
	"slices"
	"sort"
	"strings"

	goimap "github.com/emersion/go-imap/v2"

	"sluice/mailstore"
)

// A view is a mailbox as the client knows it: which message has which number, and with which flags. It changes only by
// telling the client.
type view struct {
	folder   mailstore.Folder
	readOnly bool
	validity uint32
	messages []mailstore.Message // by rising UID; a sequence number is an index and one
	highest  uint32              // the highest UID that the client has been told of
	seen     mailstore.Listing   // what messages was last brought in line with; zero if something was held back
}

func newView(f mailstore.Folder, l mailstore.Listing, readOnly bool) *view {
	v := &view{folder: f, readOnly: readOnly, validity: l.UIDValidity, messages: slices.Clone(l.Messages), seen: l}
	if n := len(l.Messages); n > 0 {
		v.highest = l.Messages[n-1].UID
	}
	return v
}

// update brings the view in line with a listing and returns what the client must be told for that. Without allowExpunge
// messages that are gone keep their place until a later update (RFC 9051, 7.5.1).
func (v *view) update(l mailstore.Listing, allowExpunge bool) string {
	if same(v.seen, l) {
		return ""
	}
	var out, flags strings.Builder
	kept := make([]mailstore.Message, 0, max(len(v.messages), len(l.Messages)))
	next, held := 0, false
	for _, m := range v.messages {
		for next < len(l.Messages) && l.Messages[next].UID < m.UID {
			next++ // the client has never been told of it, and its place is gone
		}
		if next == len(l.Messages) || l.Messages[next].UID != m.UID {
			if allowExpunge {
				fmt.Fprintf(&out, "* %d EXPUNGE\r\n", len(kept)+1)
				continue
			}
			held = true
			kept = append(kept, m)
			continue
		}
		now := l.Messages[next]
		next++
		now.Recent = m.Recent // until the mailbox is selected anew
		kept = append(kept, now)
		if !slices.Equal(m.Flags, now.Flags) {
			fmt.Fprintf(&flags, "* %d FETCH (UID %d FLAGS (%s))\r\n", len(kept), now.UID, flagList(now))
		}
	}
	grown := false
	for _, m := range l.Messages[next:] {
		if m.UID > v.highest {
			kept, v.highest, grown = append(kept, m), m.UID, true
		}
	}
	v.messages, v.seen = kept, l
	if held {
		v.seen = mailstore.Listing{}
	}
	if grown {
		fmt.Fprintf(&out, "* %d EXISTS\r\n* %d RECENT\r\n", len(kept), v.recent())
	}
	return out.String() + flags.String()
}

// same reports whether two listings are one: listings are never changed, so one slice is one state.
func same(a, b mailstore.Listing) bool {
	return len(a.Messages) > 0 && len(a.Messages) == len(b.Messages) && &a.Messages[0] == &b.Messages[0]
}

// stored takes in what SetFlags says and returns what the client must be told: of silent changes nothing, unless the
// outcome is not what the client must expect.
func (v *view) stored(now []mailstore.Message, op mailstore.FlagOp, flags []string, silent, uid bool) string {
	var out strings.Builder
	for _, m := range now {
		i, ok := v.index(m.UID)
		if !ok {
			continue
		}
		expected := apply(v.messages[i].Flags, op, flags)
		v.messages[i].Flags = m.Flags
		v.messages[i].ModSeq = m.ModSeq
		if silent && slices.Equal(expected, m.Flags) {
			continue
		}
		m.Recent = v.messages[i].Recent
		if uid {
			fmt.Fprintf(&out, "* %d FETCH (UID %d FLAGS (%s))\r\n", i+1, m.UID, flagList(m))
		} else {
			fmt.Fprintf(&out, "* %d FETCH (FLAGS (%s))\r\n", i+1, flagList(m))
		}
	}
	v.seen = mailstore.Listing{}
	return out.String()
}

// apply returns what flags are after an operation, sorted.
func apply(have []string, op mailstore.FlagOp, flags []string) []string {
	has := func(list []string, f string) bool {
		return slices.ContainsFunc(list, func(g string) bool { return strings.EqualFold(f, g) })
	}
	var out []string
	if op != mailstore.FlagsReplace {
		for _, f := range have {
			if op == mailstore.FlagsAdd || !has(flags, f) {
				out = append(out, f)
			}
		}
	}
	if op != mailstore.FlagsRemove {
		for _, f := range flags {
			if !has(out, f) {
				out = append(out, f)
			}
		}
	}
	slices.Sort(out)
	return out
}

// flagsOf returns the flags of a message that can be written.
func flagsOf(m mailstore.Message) []goimap.Flag {
	out := make([]goimap.Flag, 0, len(m.Flags)+1)
	for _, f := range m.Flags {
		if isAtom(strings.TrimPrefix(f, `\`)) {
			out = append(out, goimap.Flag(f))
		}
	}
	if m.Recent {
		out = append(out, `\Recent`)
	}
	return out
}

func flagList(m mailstore.Message) string {
	var b strings.Builder
	for i, f := range flagsOf(m) {
		if i > 0 {
			b.WriteByte(' ')
		}
		b.WriteString(string(f))
	}
	return b.String()
}

func (v *view) keywords() []goimap.Flag {
	found := map[goimap.Flag]bool{}
	for _, m := range v.messages {
		for _, f := range m.Flags {
			if !strings.HasPrefix(f, `\`) && isAtom(f) {
				found[goimap.Flag(f)] = true
			}
		}
	}
	var out []goimap.Flag
	for f := range found {
		out = append(out, f)
	}
	slices.Sort(out)
	return out
}

func (v *view) recent() uint32 {
	n := uint32(0)
	for _, m := range v.messages {
		if m.Recent {
			n++
		}
	}
	return n
}

func (v *view) firstUnseen() uint32 {
	return uint32(1 + slices.IndexFunc(v.messages, func(m mailstore.Message) bool { return !slices.Contains(m.Flags, `\Seen`) }))
}

func (v *view) uids() []uint32 {
	out := make([]uint32, len(v.messages))
	for i, m := range v.messages {
		out[i] = m.UID
	}
	return out
}

func (v *view) uidsAt(at []int) []uint32 {
	out := make([]uint32, len(at))
	for i, x := range at {
		out[i] = v.messages[x].UID
	}
	return out
}

// index returns where the message with a UID is.
func (v *view) index(uid uint32) (int, bool) {
	return slices.BinarySearchFunc(v.messages, uid, func(m mailstore.Message, uid uint32) int {
		return int(int64(m.UID) - int64(uid))
	})
}

// resolve returns the indexes of the messages in a set, rising. Ranges are met with what there is, never counted out:
// 1:4294967295 is no more work than 1:*. UIDs that there are not are passed over; numbers of messages that there are not
// are an error (RFC 9051, 6.4.9 and 9).
func (v *view) resolve(set goimap.NumSet) ([]int, error) {
	if goimap.IsSearchRes(set) {
		return nil, badRequest("$ is not known here")
	}
	n := len(v.messages)
	var ranges [][2]int // of indexes, the second one past
	switch set := set.(type) {
	case goimap.SeqSet:
		for _, r := range set {
			if n == 0 && r.Stop == 0 {
				continue // * of nothing
			}
			start, stop := r.Start, r.Stop
			if stop == 0 { // n:*, where n may be one too many: clients ask so for what is new
				stop = uint32(n)
				start = min(start, stop)
			}
			if start == 0 {
				start = uint32(n)
			}
			if int64(stop) > int64(n) {
				return nil, badRequest("there are %d messages", n)
			}
			ranges = append(ranges, [2]int{int(start) - 1, int(stop)})
		}
	case goimap.UIDSet:
		last := uint32(0)
		if n > 0 {
			last = v.messages[n-1].UID
		}
		for _, r := range set {
			start, stop := uint32(r.Start), uint32(r.Stop)
			if start == 0 {
				start = last
			}
			if stop == 0 {
				stop = last
			}
			if start > stop {
				start, stop = stop, start
			}
			from, _ := v.index(start)
			to, found := v.index(stop)
			if found {
				to++
			}
			ranges = append(ranges, [2]int{from, to})
		}
	default:
		return nil, badRequest("there is no such set")
	}
	sort.Slice(ranges, func(i, j int) bool { return ranges[i][0] < ranges[j][0] })
	var out []int
	next := 0
	for _, r := range ranges {
		for i := max(next, r[0]); i < r[1]; i++ {
			out = append(out, i)
		}
		next = max(next, r[1])
	}
	return out, nil
}
