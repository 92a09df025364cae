package smtp_test

import (
	"context"
	"net"
	"net/netip"
	"strings"
	"testing"

	"sluice/pipeline"
	"sluice/pipeline/pipelinetest"
	"sluice/protocols/listen"
	"sluice/protocols/smtp"
)

// names is a resolver that knows one client.
type names struct{ pipeline.Resolver }

func (names) LookupPTR(_ context.Context, a netip.Addr) ([]string, error) {
	if a.String() == "198.51.100.9" {
		return []string{"told.client.example."}, nil
	}
	return nil, &net.DNSError{IsNotFound: true}
}

func (names) LookupAddr(context.Context, string) ([]netip.Addr, error) {
	return []netip.Addr{netip.MustParseAddr("198.51.100.9")}, nil
}

// What the program that delivers says of the client counts where that program is believed.
func TestClientOfDeliver(t *testing.T) {
	told := smtp.RelayCommand(netip.MustParseAddr("198.51.100.9"), "told.example")
	tests := []struct {
		name          string
		believed      bool
		say, answer   string
		header, asked string
	}{
		{"nothing said", true, "", "", "C: Subject: x\n", "not asked"},
		{"nothing said but Received", true, "", "", postfixReceived, "192.0.2.7 host.client.example client.example"},
		{"believed", true, told, "250 2.0.0 believed", "C: Subject: x\n", "198.51.100.9 told.client.example told.example"},
		{"before Received", true, told, "250 2.0.0 believed", postfixReceived, "198.51.100.9 told.client.example told.example"},
		{"not believed", false, told, "550 5.7.0 you are not believed: see deliver_users", "C: Subject: x\n", "not asked"},
		{"not believed, but Received", false, told, "550 5.7.0 *", postfixReceived, "192.0.2.7 host.client.example client.example"},
		{"the greeting alone", true, smtp.RelayCommand(netip.Addr{}, "told.example"), "250 *", postfixReceived, "192.0.2.7 host.client.example told.example"},
		{"IPv6", true, smtp.RelayCommand(netip.MustParseAddr("2001:db8::1"), ""), "250 *", "C: Subject: x\n", "2001:db8::1  "},
		{"words that would be parameters", true, smtp.RelayCommand(netip.MustParseAddr("2001:db8::1"), "a&addr=127.0.0.1 b"), "250 *",
			"C: Subject: x\n", "2001:db8::1  a&addr=127.0.0.1 b"},
		{"no address", true, "XDELIVER addr=me", "501 5.5.4 *", "C: Subject: x\n", "not asked"},
		{"two addresses", true, "XDELIVER addr=192.0.2.1&addr=192.0.2.2", "501 5.5.4 *", "C: Subject: x\n", "not asked"},
		{"a new line", true, "XDELIVER helo=a%0D%0Ab", "501 5.5.4 *", "C: Subject: x\n", "not asked"},
		{"something else", true, "XDELIVER login=root", "501 5.5.4 *", "C: Subject: x\n", "not asked"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			asked := "not asked"
			d := open(t, func(d *door) {
				lmtp(d)
				d.cfg.Believe = func(*listen.Conn) bool { return tt.believed }
				d.cfg.Resolver = names{}
				d.steps = []pipeline.Step{pipelinetest.Step("who", pipelinetest.Stage{
					Looks: pipeline.Reads{Input: pipeline.InputClient | pipeline.InputGreeting, Strangers: true},
					Says: func(_ context.Context, v pipeline.View) (pipeline.Result, error) {
						asked = v.Client.Addr.String() + " " + v.Client.Name + " " + v.Greeting
						return pipeline.Result{}, nil
					},
				})}
			})
			c := d.dial()
			c.talk(lmtpGreeting)
			if tt.say != "" {
				c.talk("C: " + tt.say + "\nS: " + tt.answer + "\n")
			}
			c.talk(begunMail + "C: DATA\nS: 354 *\n" + tt.header + "C:\nC: .\nS: 250 *\n")
			if asked != tt.asked {
				t.Errorf("asked about %q, want %q", asked, tt.asked)
			}
			if r, _ := d.journal.Last(); r.Door != pipeline.Deliver {
				t.Errorf("recorded as %q", r.Door)
			}
			if unbelieved := strings.Contains(d.log.String(), "not believed"); unbelieved == tt.believed && tt.say != "" {
				t.Errorf("log:\n%s", d.log)
			}
		})
	}
}

func TestDeliverIsToldBeforeMail(t *testing.T) {
	d := open(t, func(d *door) { lmtp(d); d.cfg.Believe = func(*listen.Conn) bool { return true } })
	d.dial().talk(lmtpGreeting + begunMail + "C: XDELIVER helo=x\nS: 503 5.5.1 XDELIVER goes before MAIL\n")
}

// At other doors there is no such command, whoever asks.
func TestNobodyElseIsTold(t *testing.T) {
	open(t, lmtp).dial().talk(lmtpGreeting + "C: XDELIVER helo=x\nS: 500 5.5.2 no such command\n")
	open(t, trust).dial().talk(greeting + "C: XDELIVER helo=x\nS: 500 5.5.2 no such command\n")
}

// A refusal would make the MTA that called the program bounce the mail.
func TestDeliverHoldsWhatIsRefused(t *testing.T) {
	d := open(t, func(d *door) { lmtp(d); d.cfg.Believe = func(*listen.Conn) bool { return true } })
	d.dial().talk(lmtpGreeting + "C: MAIL FROM:<s@client.example>\nS: 250 *\nC: RCPT TO:<reject@example.org>\nS: 250 *\n" +
		"C: DATA\nS: 354 *\nC: Subject: x\nC:\nC: .\nS: 250 *\n")
	if d.held.held() != "reject" || d.store.all() != "" {
		t.Errorf("held %q, delivered %q", d.held.held(), d.store.all())
	}
}
