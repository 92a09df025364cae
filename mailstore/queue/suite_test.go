package queue

import (
	"strings"
	"testing"

	"sluice/mailstore"
	"sluice/mailstore/storetest"
)

func TestSuite(t *testing.T) {
	storetest.Queue(t, func(t *testing.T) storetest.QueueSetup {
		r := newRig(t)
		return storetest.QueueSetup{Queue: r.Queue, Pass: r.pass, Restart: func() storetest.Waiting {
			r.reopen()
			return r.Queue
		}}
	})
}

// Of a mail that is larger than report_size, and of one whose sender wants no more, the header comes back.
func TestHowMuchComesBack(t *testing.T) {
	for name, tt := range map[string]struct {
		ret  string
		most int64
		full bool
	}{
		"as it comes": {"", 0, true}, "full": {"full", 0, true}, "header": {"hdrs", 0, false}, "too large": {"full", int64(len(mail)) - 1, false},
		"just small enough": {"", int64(len(mail)), true},
	} {
		r := newRig(t, func(c *Config) { c.ReportSize = tt.most })
		m := outgoing("a@example.net")
		m.Return = tt.ret
		r.queue(m)
		r.settle(r.one(), refused(0))
		text := r.content(r.report().Message)
		if strings.Contains(text, "\r\n\r\nHello\r\n") != tt.full || !strings.Contains(text, "\r\nTo: you@example.net\r\n") {
			t.Errorf("%s: the report is\n%s", name, text)
		}
	}
}

func TestMostAddresses(t *testing.T) {
	r := newRig(t)
	m := outgoing()
	m.Recipients = make([]mailstore.OutgoingRecipient, mostAddresses+1)
	for i := range m.Recipients {
		m.Recipients[i].Address = "a@example.net"
	}
	if _, err := r.Stage(t.Context(), []mailstore.Outgoing{m}); err == nil || !strings.Contains(err.Error(), "10001 recipients") {
		t.Errorf("got %v", err)
	}
}
