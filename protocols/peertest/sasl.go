package peertest

import (
	"bufio"
	"encoding/base64"
	"fmt"
	"net"
	"strings"
	"testing"
)

// SASL starts what Postfix asks about logins in Dovecot's way (smtpd_sasl_type = dovecot): anybody may log in by PLAIN with
// [Password]. It returns the value for smtpd_sasl_path.
func SASL(t testing.TB) string {
	t.Helper()
	l, err := net.Listen("tcp", Address(t))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = l.Close() })
	go func() { // until l is closed
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go answerLogins(c) // until Postfix, or the test's end, closes it
		}
	}()
	return "inet:" + l.Addr().String()
}

func answerLogins(c net.Conn) {
	defer c.Close()
	fmt.Fprint(c, "VERSION\t1\t1\nMECH\tPLAIN\tplaintext\nSPID\t1\nCUID\t1\nCOOKIE\t00112233445566778899aabbccddeeff\nDONE\n")
	for lines := bufio.NewScanner(c); lines.Scan(); {
		words := strings.Split(lines.Text(), "\t")
		if words[0] != "AUTH" || len(words) < 2 {
			continue
		}
		reply := "FAIL\t" + words[1]
		for _, w := range words {
			if text, ok := strings.CutPrefix(w, "resp="); ok {
				plain, _ := base64.StdEncoding.DecodeString(text)
				if who := strings.Split(string(plain), "\x00"); len(who) == 3 && who[2] == Password {
					reply = "OK\t" + words[1] + "\tuser=" + who[1]
				}
			}
		}
		fmt.Fprintln(c, reply)
	}
}
