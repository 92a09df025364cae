package smtp

import (
	"errors"
	"strings"

	"sluice/mailstore"
	"sluice/pipeline"
	"sluice/protocols/listen"
	"sluice/protocols/sasl"
)

// Replies to AUTH: RFC 4954, 4 and 6; RFC 5248 for an account that is switched off.
var (
	loginFirst    = pipeline.Reply{Code: 530, Enhanced: "5.7.0", Text: "authentication required"}
	tlsFirst      = pipeline.Reply{Code: 538, Enhanced: "5.7.11", Text: "begin TLS first"}
	loggedInTwice = pipeline.Reply{Code: 503, Enhanced: "5.5.1", Text: "you have logged in already"}
	badResponse   = pipeline.Reply{Code: 501, Enhanced: "5.5.2", Text: "the response is not as the mechanism wants it"}
	cancelled     = pipeline.Reply{Code: 501, Enhanced: "5.7.0", Text: "authentication cancelled"}
	badPassword   = pipeline.Reply{Code: 535, Enhanced: "5.7.8", Text: "wrong name or password"}
	noProxy       = pipeline.Reply{Code: 535, Enhanced: "5.7.8", Text: "nobody acts for somebody else here"}
	noBinding     = pipeline.Reply{Code: 535, Enhanced: "5.7.8", Text: sasl.ErrBinding.Error()}
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

// login holds the dialogue of AUTH, and begins the pipeline's session if the client is one of ours. It is not done where
// the connection has ended.
func (w *wire) login(arg string) (answer pipeline.Reply, done bool) {
	c := w.c
	switch {
	case c.greeting == "":
		return pipeline.Reply{Code: 503, Enhanced: "5.5.1", Text: "EHLO first"}, true
	case c.login != "":
		return loggedInTwice, true
	case !c.private():
		return tlsFirst, true
	}
	defer c.caught("AUTH", func() { c.login, answer, done = "", noLoginsNow, true })
	if !w.conn.SetBusy(true) {
		return answer, false // next says goodbye
	}
	x := sasl.Exchange{Ask: w.ask}
	x.Mechanism, x.Initial, x.Has = strings.Cut(arg, " ")
	account, _, err := c.sasl().Authenticate(c.ctx(), c.saslClient(), x)
	if errors.Is(err, errEnded) {
		return answer, false
	}
	return c.authenticated(account, err), true
}

// errEnded: the connection has ended, and the client has been told so if it can be.
var errEnded = errors.New("the connection has ended")

// ask sends a challenge and returns the answer.
func (w *wire) ask(challenge string) (string, error) {
	if _, err := w.conn.Write([]byte("334 " + challenge + "\r\n")); err != nil {
		w.over.Store(true)
		return "", errEnded
	}
	if !w.conn.SetBusy(false) {
		return "", errEnded // goodbye has been said
	}
	line, _, err := w.line()
	if err != nil {
		_ = w.ending(err) // it is said; the connection ends
		w.over.Store(true)
		return "", errEnded
	}
	if !w.conn.SetBusy(true) {
		return "", errEnded // next says goodbye
	}
	return line, nil
}

func (c *conversation) sasl() *sasl.Server {
	return &sasl.Server{
		Door: string(c.s.door), Directory: c.s.cfg.Directory, Keys: c.s.cfg.Submission.Keys, Logins: c.s.cfg.Submission.Logins,
		Log: c.s.cfg.Log, Login: true,
	}
}

// saslClient is who logs in: somebody behind the peer, where a trusted one has said so.
func (c *conversation) saslClient() sasl.Client {
	who := sasl.ClientOf(c.conn)
	x := c.client()
	who.Addr, who.Trusted = x.Addr, x.Trusted
	return who
}

// mechanisms are what AUTH takes.
func (c *conversation) mechanisms() string {
	return strings.Join(c.sasl().Mechanisms(c.ctx(), c.saslClient()), " ")
}

// authenticated is the answer to AUTH. It begins the pipeline's session for an account that may send.
func (c *conversation) authenticated(account string, err error) pipeline.Reply {
	c.mu.Lock()
	defer c.mu.Unlock()
	var why string
	if err == nil {
		why, err = c.s.cfg.Submission.Submitters.Blocked(c.ctx(), account)
	}
	switch {
	case errors.Is(err, sasl.ErrMechanism):
		return pipeline.Reply{Code: 504, Enhanced: "5.5.4", Text: "the mechanisms are " + c.mechanisms()}
	case errors.Is(err, sasl.ErrCancelled):
		return cancelled
	case errors.Is(err, sasl.ErrResponse):
		return badResponse
	case errors.Is(err, sasl.ErrProxy):
		return noProxy
	case errors.Is(err, sasl.ErrBinding):
		return noBinding
	case errors.Is(err, mailstore.ErrPassword):
		return badPassword
	case errors.Is(err, listen.ErrThrottled):
		return throttled
	case err != nil:
		if c.ctx().Err() == nil {
			c.s.cfg.Log.Error("cannot log in", "door", c.s.door, "client", c.peer(), "error", err)
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
