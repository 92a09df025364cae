package admin

import (
	"context"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"time"

	"sluice/pipeline"
)

// A Recorder hands records on, and makes of each the one line of the log about it and what the metrics count. A record
// that was to be kept durably and was not is none: the door records once more what became of it.
type Recorder struct {
	Next    pipeline.Recorder
	Log     *slog.Logger     // nil: slog.Default
	Metrics *Metrics         // nil: nothing is counted
	Now     func() time.Time // nil: time.Now
}

// Record implements pipeline.Recorder.
func (r *Recorder) Record(ctx context.Context, x *pipeline.Record, durable bool) error {
	err := r.Next.Record(ctx, x, durable)
	if err != nil && durable {
		return err
	}
	if x.Completes {
		if r.Metrics != nil {
			r.Metrics.complete(x)
		}
		return err
	}
	took := time.Duration(0)
	if !x.Began.IsZero() {
		now := time.Now
		if r.Now != nil {
			now = r.Now
		}
		took = max(now().Sub(x.Began), 0)
	}
	log := r.Log
	if log == nil {
		log = slog.Default()
	}
	log.LogAttrs(ctx, slog.LevelInfo, "mail", Attributes(x, took)...)
	if r.Metrics != nil {
		r.Metrics.observe(x, took)
	}
	return err
}

const (
	mostRecipients = 10 // named in one line
	mostReplies    = 5
)

// Attributes are what a line of the log says about a transaction, the same at every door: id, door, client, helo, from,
// recipients, size, end, became, reply, decider and took always, and queue_id, message_id, login and note where they are known.
func Attributes(r *pipeline.Record, took time.Duration) []slog.Attr {
	var recipients, became, replies, deciders, notes list
	counts := map[pipeline.Disposition]int{}
	for _, x := range r.Recipients {
		recipients.add(x.Address.String(), false)
		if counts[x.Disposition]++; counts[x.Disposition] == 1 {
			became.add(string(x.Disposition), true)
		}
		if x.Step != "" {
			deciders.add(decider(x), true)
		}
		if x.Note != "" {
			notes.add(x.Note, true)
		}
		if x.Reply.Code != 0 {
			replies.add(x.Reply.String(), true)
		}
	}
	note := r.Note
	if note == "" {
		note = notes.join(mostReplies, "; ")
	}
	for i, d := range became {
		became[i] = fmt.Sprintf("%s=%d", name(pipeline.Disposition(d)), counts[pipeline.Disposition(d)])
	}
	reply := replies.join(mostReplies, "; ")
	if r.Reply.Code != 0 {
		reply = r.Reply.String()
	}
	client := "unknown"
	if r.Client.Known() {
		client = r.Client.Addr.String()
	}
	out := []slog.Attr{
		slog.String("id", r.ID),
		slog.String("door", string(door(r))),
		slog.String("client", client),
		slog.String("helo", r.Greeting),
		slog.String("from", sender(r)),
		slog.String("recipients", recipients.join(mostRecipients, ",")),
		slog.Int64("size", r.Size),
		slog.String("end", r.End),
		slog.String("became", became.join(mostRecipients, ",")),
		slog.String("reply", reply),
		slog.String("decider", deciders.join(mostRecipients, ",")),
		slog.Duration("took", took.Round(time.Microsecond)),
	}
	for _, x := range []struct{ key, value string }{
		{"queue_id", r.QueueID}, {"message_id", r.MessageID}, {"login", r.Client.Login}, {"note", note},
	} {
		if x.value != "" {
			out = append(out, slog.String(x.key, x.value))
		}
	}
	return out
}

// door is which of ours the record comes from: that of a mail handed over has the door that decided.
func door(r *pipeline.Record) pipeline.Door {
	if r.Via != "" {
		return r.Via
	}
	return r.Door
}

// decider is who decided about a recipient: "rules/forged_bank", "dnsbl".
func decider(x pipeline.RecipientRecord) string {
	if x.Verdict.By == "" {
		return x.Step
	}
	return x.Step + "/" + x.Verdict.By
}

// sender is the envelope's; <> is the null one, as MTAs write it.
func sender(r *pipeline.Record) string {
	if r.Sender.IsZero() {
		return "<>"
	}
	return r.Sender.String()
}

// name is a disposition as lines and metrics have it.
func name(d pipeline.Disposition) string {
	if d == pipeline.NotFinished {
		return "none"
	}
	return string(d)
}

// A list is words in the order in which they came.
type list []string

func (l *list) add(word string, once bool) {
	if !once || !slices.Contains(*l, word) {
		*l = append(*l, word)
	}
}

// join names at most so many and counts the others.
func (l list) join(most int, separator string) string {
	if more := len(l) - most; more > 0 {
		return fmt.Sprintf("%s%s%d more", strings.Join(l[:most], separator), separator, more)
	}
	return strings.Join(l, separator)
}
