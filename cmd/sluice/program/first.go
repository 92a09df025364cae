package program

import (
	"crypto/rand"
	"fmt"
	"io"
	"net"
	"strings"

	"sluice/cmd/sluice/program/config"
	"sluice/mailstore/users"
)

// An introduction is what somebody who starts Sluice for the first time, without a configuration, is told.
type introduction struct{ account, password string }

// firstAccount makes an account to try things with, where there is neither a configuration nor an account.
func (p *program) firstAccount(c *config.Config, h *house) (introduction, error) {
	if p.configFile != "" {
		return introduction{}, nil
	}
	all, err := askAccounts(h.users, func(u *users.Users) ([]users.Account, error) { return u.List(p.ctx) })
	if err != nil || len(all) > 0 {
		return introduction{}, err
	}
	first := introduction{"me@" + usersConfig(c).Domain, strings.ToLower(rand.Text()[:16])}
	return askAccounts(h.users, func(u *users.Users) (introduction, error) {
		return first, u.Add(p.ctx, first.account, first.password)
	})
}

// print says how to log in and what to type next. The password is shown here and nowhere else.
func (i introduction) print(w io.Writer, d *doors) {
	if i.account == "" {
		return
	}
	fmt.Fprintf(w, "\nThere is an account to try things with. Its password is shown this once:\n\n")
	fmt.Fprintf(w, "  account   %s\n  password  %s\n", i.account, i.password)
	if at := tcp(d.at("smtp")); at != "" {
		fmt.Fprintf(w, "\nSend it a mail:\n\n  "+
			`printf 'From: you@example.org\r\nMessage-ID: <hello@example.org>\r\nSubject: hello\r\n\r\nIt works.\r\n' | curl -sS smtp://%s --mail-from you@example.org --mail-rcpt %s -T -`+"\n",
			at, i.account)
	}
	if at := tcp(d.at("imap")); at != "" {
		fmt.Fprintf(w, "\nRead it:\n\n  curl -sS -u '%s:%s' 'imap://%s/INBOX;MAILINDEX=1'\n\n", i.account, i.password, at)
	}
}

// tcp returns the first address that is no unix socket, with a host that a client can dial.
func tcp(addresses []string) string {
	for _, a := range addresses {
		host, port, err := net.SplitHostPort(a)
		if err != nil || strings.HasPrefix(a, "unix:") {
			continue
		}
		if ip := net.ParseIP(host); ip != nil && ip.IsUnspecified() {
			host = "localhost"
		}
		return net.JoinHostPort(host, port)
	}
	return ""
}
