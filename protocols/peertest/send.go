package peertest

import (
	"strings"
	"testing"
)

// Send sends one mail to an SMTP server, and returns the reply to it, or to the first command that was refused. Bare LF
// in the mail become CRLF.
func Send(t testing.TB, address, from, to, mail string) string {
	t.Helper()
	c, err := DialClient(address)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if _, err := c.Expect("250", "EHLO client.example"); err != nil {
		t.Fatal(err)
	}
	mail = strings.ReplaceAll(strings.ReplaceAll(mail, "\r\n", "\n"), "\n", "\r\n")
	replies, err := c.Mail(false, from, []string{to}, mail)
	if err != nil {
		return err.Error()
	}
	return replies[0]
}
