package peertest

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"log/slog"
	"net"
	"path/filepath"
	"strings"
	"testing"

	"sluice/mailstore/users"
	"sluice/protocols/listen"
	"sluice/protocols/sasl"
)

// SASL starts what Postfix asks about logins in Dovecot's way (smtpd_sasl_type = dovecot): sluice@example.org and me@example.org
// may log in by PLAIN and SCRAM-SHA-256 with [Password]. It returns the value for smtpd_sasl_path.
func SASL(t testing.TB) string {
	t.Helper()
	log := slog.New(slog.DiscardHandler)
	accounts, err := users.Open(t.Context(), users.Config{
		Path: filepath.Join(t.TempDir(), "users.db"), Domain: "example.org", SCRAM: users.SCRAMConfig{Mechanisms: []string{"SCRAM-SHA-256"}}, Log: log,
	})
	if err != nil {
		t.Fatal(err)
	}
	for _, a := range []string{"sluice@example.org", "me@example.org"} {
		if err := accounts.Add(t.Context(), a, Password); err != nil {
			t.Fatal(err)
		}
	}
	l, err := net.Listen("tcp", Address(t))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _, _ = l.Close(), accounts.Close() })
	server := &sasl.Server{Door: "postfix", Directory: accounts, Keys: accounts, Logins: &listen.Logins{Log: log}, Log: log}
	go func() { // until l is closed
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go answerLogins(t.Context(), c, server) // until Postfix, or the test's end, closes it
		}
	}()
	return "inet:" + l.Addr().String()
}

func answerLogins(ctx context.Context, c net.Conn, server *sasl.Server) {
	defer c.Close()
	fmt.Fprint(c, "VERSION\t1\t1\nMECH\tPLAIN\tplaintext\nMECH\tSCRAM-SHA-256\tmutual-auth\nSPID\t1\nCUID\t1\nCOOKIE\t00112233445566778899aabbccddeeff\nDONE\n")
	for lines := bufio.NewScanner(c); lines.Scan(); {
		words := strings.Split(lines.Text(), "\t")
		if words[0] != "AUTH" || len(words) < 3 {
			continue
		}
		x := sasl.Exchange{Mechanism: words[2], Ask: func(challenge string) (string, error) {
			fmt.Fprintf(c, "CONT\t%s\t%s\n", words[1], challenge)
			if !lines.Scan() {
				return "", io.EOF
			}
			answer := strings.Split(lines.Text(), "\t")
			return answer[len(answer)-1], nil
		}}
		for _, w := range words {
			if text, ok := strings.CutPrefix(w, "resp="); ok {
				x.Initial, x.Has = text, true
			}
		}
		account, _, err := server.Authenticate(ctx, sasl.Client{}, x)
		if err != nil {
			fmt.Fprintf(c, "FAIL\t%s\n", words[1])
			continue
		}
		fmt.Fprintf(c, "OK\t%s\tuser=%s\n", words[1], account)
	}
}
