package smtp

import (
	"context"
	"log/slog"
	"net"
	"net/mail"
	"strings"
	"testing"

	"sluice/mailstore"
	"sluice/pipeline/mime"
	"sluice/protocols/listen"
)

// one is an account with one address.
type one struct{ mailstore.Submitters }

func (one) Owns(_ context.Context, _, local, domain string) (bool, error) {
	return local == "me" && domain == "example.org", nil
}

func (one) Addresses(context.Context, string) ([]string, error) {
	return []string{"me@example.org"}, nil
}

// Whatever is in From: of what is let through, somebody else who reads it finds no address but the account's own.
func FuzzMayStand(f *testing.F) {
	for _, s := range []string{
		"me@example.org", "Me <me@example.org>", "\"a@b.example\" <me@example.org>", "me@example.org, ceo@bank.example",
		"ceo@bank.example (me@example.org)", "=?utf-8?q?ceo=40bank.example?= <me@example.org>", "a: me@example.org;", "<@bank.example:me@example.org>",
		"me@example.org\r\n <ceo@bank.example>", "\"me@example.org\"@bank.example", "me@example.org\x00@bank.example", "<me@example.org> <ceo@bank.example>",
	} {
		f.Add(s)
	}
	a, b := net.Pipe()
	defer a.Close()
	defer b.Close()
	c := &conversation{
		s:     &Server{cfg: Config{Submission: &Submission{Submitters: one{}}, Log: slog.New(slog.DiscardHandler)}},
		conn:  listen.Wrap(a, listen.Options{}),
		login: "me@example.org",
	}
	from, err := mime.ParseAddress("me@example.org")
	if err != nil {
		f.Fatal(err)
	}
	c.tx = &transaction{from: from}
	asked := session{c, nil}
	f.Fuzz(func(t *testing.T, value string) {
		text := "From: " + value + "\r\nSubject: x\r\n\r\nbody\r\n"
		m, err := mime.Parse(strings.NewReader(text), int64(len(text)), mime.Limits{})
		if err != nil || asked.mayStand(m) != nil {
			return
		}
		read, err := mail.ReadMessage(strings.NewReader(text))
		if err != nil {
			return
		}
		if all := read.Header["From"]; len(all) != 1 {
			t.Fatalf("%d From fields in %q", len(all), text)
		}
		list, err := read.Header.AddressList("From")
		if err != nil {
			return
		}
		for _, x := range list {
			if !strings.EqualFold(x.Address, "me@example.org") {
				t.Fatalf("%q is let through, and is by %s", text, x.Address)
			}
		}
	})
}
