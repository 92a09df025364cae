package smtp

import (
	"context"
	"encoding/base64"
	"errors"
	"strings"

	"sluice/mailstore"
	"sluice/pipeline"
	"sluice/protocols/listen"
)

// mechanisms are what AUTH takes: PLAIN (RFC 4616), and LOGIN for old mail programs that know no other.
const mechanisms = "PLAIN LOGIN"

// Replies to AUTH: RFC 4954, 4 and 6; RFC 5248 for an account that is switched off.
var (
	loginFirst    = pipeline.Reply{Code: 530, Enhanced: "5.7.0", Text: "authentication required"}
	tlsFirst      = pipeline.Reply{Code: 538, Enhanced: "5.7.11", Text: "begin TLS first"}
	loggedInTwice = pipeline.Reply{Code: 503, Enhanced: "5.5.1", Text: "you have logged in already"}
	badResponse   = pipeline.Reply{Code: 501, Enhanced: "5.5.2", Text: "the response is not as the mechanism wants it"}
	cancelled     = pipeline.Reply{Code: 501, Enhanced: "5.7.0", Text: "authentication cancelled"}
	badPassword   = pipeline.Reply{Code: 535, Enhanced: "5.7.8", Text: "wrong name or password"}
	noProxy       = pipeline.Reply{Code: 535, Enhanced: "5.7.8", Text: "nobody acts for somebody else here"}
	noLoginsNow   = pipeline.Reply{Code: 454, Enhanced: "4.7.0", Text: "logins are not possible now, please try again later"}
	throttled     = pipeline.Reply{Code: 454, Enhanced: "4.7.0", Text: "too many failed logins, please try again later"}
	blocked       = pipeline.Reply{Code: 525, Enhanced: "5.7.13", Text: "this account may not send mail; please ask your postmaster"}
	welcome       = pipeline.Reply{Code: 235, Enhanced: "2.7.0", Text: "you are logged in"}
)

// private reports whether a password may be sent: over TLS, or where nobody reads along.
func (c *conversation) private() bool {
	_, ok := c.conn.TLS()
	return ok || c.conn.Loopback() || c.conn.Trusted()
}

// auth logs the client in: RFC 4954. It writes its replies itself.
func (w *wire) auth(arg string) {
	no, done := w.login(arg)
	if !done {
		return
	}
	w.say(no.Code, no.Enhanced, no.Text)
	if no.Code == badPassword.Code || no.Code == noLoginsNow.Code {
		if w.c.failures++; w.c.failures >= w.c.s.cfg.Limits.FailedLogins {
			w.say(421, "4.7.0", "too many failed logins")
		}
	}
}

// login holds the dialogue of AUTH. It is not done where the connection has ended.
func (w *wire) login(arg string) (no pipeline.Reply, done bool) {
	mechanism, response, initial := strings.Cut(arg, " ")
	mechanism = strings.ToUpper(mechanism)
	switch {
	case w.c.greeting == "":
		return pipeline.Reply{Code: 503, Enhanced: "5.5.1", Text: "EHLO first"}, true
	case w.c.login != "":
		return loggedInTwice, true
	case !w.c.private():
		return tlsFirst, true
	case mechanism != "PLAIN" && mechanism != "LOGIN":
		return pipeline.Reply{Code: 504, Enhanced: "5.5.4", Text: "the mechanisms are " + mechanisms}, true
	}
	ask := func(prompt string) (text string, ok bool) {
		if _, err := w.conn.Write([]byte("334 " + prompt + "\r\n")); err != nil {
			w.over.Store(true)
			return "", false
		}
		line, _, err := w.line()
		if err != nil {
			_ = w.ending(err) // it is said; the connection ends
			w.over.Store(true)
			return "", false
		}
		return line, true
	}
	if response == "=" { // RFC 4954, 4: an initial response of no octets
		response = ""
	}
	decoded := func(text string) (string, bool) {
		raw, err := base64.StdEncoding.DecodeString(text)
		return string(raw), err == nil
	}
	var name, password string
	switch mechanism {
	case "PLAIN":
		if !initial {
			if response, done = ask(""); !done {
				return no, false
			}
		}
		raw, ok := decoded(response)
		fields := strings.Split(raw, "\x00")
		switch {
		case response == "*":
			return cancelled, true
		case !ok || len(fields) != 3:
			return badResponse, true
		case fields[0] != "" && fields[0] != fields[1]:
			return noProxy, true
		}
		name, password = fields[1], fields[2]
	case "LOGIN":
		answers := [2]string{response}
		for i, prompt := range []string{"Username:", "Password:"} {
			if i > 0 || !initial {
				if answers[i], done = ask(base64.StdEncoding.EncodeToString([]byte(prompt))); !done {
					return no, false
				}
			}
			raw, ok := decoded(answers[i])
			switch {
			case answers[i] == "*":
				return cancelled, true
			case !ok:
				return badResponse, true
			}
			answers[i] = raw
		}
		name, password = answers[0], answers[1]
	}
	if !w.conn.SetBusy(true) {
		return no, false // next says goodbye
	}
	return w.c.authenticate(name, password), true
}

// authenticate looks at a password, and begins the pipeline's session if it is right.
func (c *conversation) authenticate(name, password string) (answer pipeline.Reply) {
	c.mu.Lock()
	defer c.mu.Unlock()
	defer c.caught("AUTH", func() { c.login, answer = "", noLoginsNow })
	cfg := c.s.cfg.Submission
	who := c.client()
	account, err := cfg.Logins.Attempt(c.ctx(), string(c.s.door), who.Addr, who.Trusted, name,
		func(ctx context.Context) (string, error) { return c.s.cfg.Directory.Authenticate(ctx, name, password) })
	var why string
	if err == nil {
		why, err = cfg.Submitters.Blocked(c.ctx(), account)
	}
	switch {
	case errors.Is(err, mailstore.ErrPassword):
		return badPassword
	case errors.Is(err, listen.ErrThrottled):
		return throttled
	case err != nil:
		if c.ctx().Err() == nil {
			c.s.cfg.Log.Error("cannot log in", "door", c.s.door, "account", name, "client", c.peer(), "error", err)
		}
		return noLoginsNow
	case why != "":
		c.s.cfg.Log.Warn("login of an account that may not send", "door", c.s.door, "account", account, "client", c.peer(), "why", why)
		return blocked
	}
	c.login = account
	if no := c.meet(c.greeting); no != nil {
		c.login = ""
		return *no
	}
	return welcome
}
