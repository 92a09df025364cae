package program

import (
	"bufio"
	"crypto/tls"
	"fmt"
	"net"
	"slices"
	"strings"
	"testing"
	"time"

	"sluice/protocols/sasl"
)

// A saslDoor is how a protocol wraps SASL.
type saslDoor struct {
	name, tls string // the doors without TLS and with it from the first octet; "": STARTTLS
	begin     func(mechanism, response string, initial bool) string
	answer    string // around a response
	challenge func(line string) (string, bool)
	good, bad string // how the last answer begins
	offers    string // what asks for it
}

func cut(prefix string) func(string) (string, bool) {
	return func(line string) (string, bool) { return strings.CutPrefix(line, prefix) }
}

func words(verb string) func(mechanism, response string, initial bool) string {
	return func(mechanism, response string, initial bool) string {
		if !initial {
			return verb + " " + mechanism
		}
		return verb + " " + mechanism + " " + response
	}
}

var saslDoors = []saslDoor{
	{"imap", "imaps", words("a AUTHENTICATE"), "%s", cut("+ "), "a OK [CAPABILITY ", "a NO [AUTHENTICATIONFAILED] wrong name or password", "a CAPABILITY"},
	{"pop3", "pop3s", words("AUTH"), "%s", cut("+ "), "+OK 0 messages", "-ERR [AUTH] wrong name or password", "CAPA"},
	{"submission", "submissions", words("AUTH"), "%s", cut("334 "), "235 2.7.0 ", "535 5.7.8 wrong name or password", "EHLO laptop"},
	{"managesieve", "", func(mechanism, response string, initial bool) string {
		if !initial {
			return fmt.Sprintf("AUTHENTICATE %q", mechanism)
		}
		return fmt.Sprintf("AUTHENTICATE %q {%d+}\r\n%s", mechanism, len(response), response)
	}, "%q", func(line string) (string, bool) {
		line, ok := strings.CutPrefix(line, `"`)
		return strings.TrimSuffix(line, `"`), ok
	}, "OK ", `NO "wrong name or password"`, "CAPABILITY"},
}

// A saslClient is one connection.
type saslClient struct {
	t    *testing.T
	door saslDoor
	conn net.Conn
	in   *bufio.Reader
	tls  *tls.ConnectionState
}

func (s *site) saslClient(t *testing.T, door saslDoor, secure bool) *saslClient {
	t.Helper()
	at := door.name
	if secure && door.tls != "" {
		at = door.tls
	}
	conn, err := net.DialTimeout("tcp", s.door[at], time.Minute)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	if err := conn.SetDeadline(time.Now().Add(time.Minute)); err != nil {
		t.Fatal(err)
	}
	c := &saslClient{t: t, door: door, conn: conn, in: bufio.NewReader(conn)}
	if secure && door.tls == "" {
		c.until("OK")
		c.say("STARTTLS")
		c.until("OK")
	}
	if secure {
		begun := tls.Client(conn, &tls.Config{InsecureSkipVerify: true})
		if err := begun.Handshake(); err != nil {
			t.Fatal(err)
		}
		state := begun.ConnectionState()
		c.conn, c.in, c.tls = begun, bufio.NewReader(begun), &state
	}
	if door.name == "managesieve" {
		c.until("OK")
	} else {
		c.line()
	}
	return c
}

func (c *saslClient) say(line string) {
	c.t.Helper()
	if _, err := fmt.Fprintf(c.conn, "%s\r\n", line); err != nil {
		c.t.Fatal(err)
	}
}

func (c *saslClient) line() string {
	c.t.Helper()
	line, err := c.in.ReadString('\n')
	if err != nil {
		c.t.Fatal(err)
	}
	return strings.TrimRight(line, "\r\n")
}

// until returns the lines up to one that begins so.
func (c *saslClient) until(prefix string) (all string) {
	c.t.Helper()
	for {
		line := c.line()
		all += line + "\n"
		if strings.HasPrefix(line, prefix) {
			return all
		}
	}
}

// offered returns the mechanisms.
func (c *saslClient) offered() []string {
	c.t.Helper()
	c.say(c.door.offers)
	end := map[string]string{"imap": "a OK", "pop3": ".", "submission": "250 ", "managesieve": "OK"}[c.door.name]
	var all []string
	for _, w := range strings.FieldsFunc(c.until(end), func(r rune) bool { return strings.ContainsRune(" =\"\n", r) }) {
		if slices.Contains(sasl.Known(), w) {
			all = append(all, w)
		}
	}
	return all
}

// logIn returns the last answer.
func (c *saslClient) logIn(mechanism, user, password string, initial bool) (last string, proved error) {
	c.t.Helper()
	l, err := sasl.NewLogin(mechanism, user, password, []string{"SCRAM-SHA-256-PLUS"}, c.tls)
	if err != nil {
		c.t.Fatal(err)
	}
	response, begins := l.Initial()
	initial = initial && begins
	c.say(c.door.begin(mechanism, response, initial))
	for {
		line := c.line()
		challenge, ok := c.door.challenge(line)
		switch {
		case !ok:
			if _, rest, ok := strings.Cut(line, `(SASL "`); ok { // RFC 5804, 1.3
				challenge, _, _ := strings.Cut(rest, `"`)
				if _, err := l.Next(challenge); err != nil {
					c.t.Error(err)
				}
			}
			return line, l.Proved()
		case !initial && begins:
			begins = false
			if challenge != "" {
				c.t.Errorf("asked %q at first", challenge)
			}
		default:
			if response, err = l.Next(challenge); err != nil {
				c.t.Fatal(err)
			}
		}
		c.say(fmt.Sprintf(c.door.answer, response))
	}
}

// Every door takes SCRAM once every account has keys, in its own words, and counts what is wrong as it does with PLAIN.
func TestSCRAMAtEveryDoor(t *testing.T) {
	s := startSite(t, map[string]string{"sluice.yaml": `hostname: mx.example.org
domain: example.org
scram: {mechanisms: [SCRAM-SHA-256-PLUS, SCRAM-SHA-256, SCRAM-SHA-1], iterations: 4096}
listen:
  imap: ["127.0.0.1:0"]
  imaps: ["127.0.0.1:0"]
  pop3: ["127.0.0.1:0"]
  pop3s: ["127.0.0.1:0"]
  submission: ["127.0.0.1:0"]
  submissions: ["127.0.0.1:0"]
  managesieve: ["127.0.0.1:0"]
pipeline: [sieve: {}]
`}, "-c", "sluice.yaml")
	if got := s.run(t, "", "user", "list", "--lacking", "SCRAM-SHA-256"); got != "me@example.org\n" {
		t.Errorf("lacking: %q", got)
	}
	for _, door := range saslDoors {
		if got := s.saslClient(t, door, true).offered(); slices.ContainsFunc(got, func(m string) bool { return strings.HasPrefix(m, "SCRAM") }) {
			t.Errorf("%s offers %q, and the account has no keys", door.name, got)
		}
	}
	if last, _ := s.saslClient(t, saslDoors[0], false).logIn("PLAIN", "me", "secret", true); !strings.HasPrefix(last, "a OK") {
		t.Fatal(last)
	}
	if got := s.run(t, "", "user", "show", "me@example.org"); !strings.Contains(got, "keys     SCRAM-SHA-256, 4096 iterations\nkeys     SCRAM-SHA-1, 4096 iterations\n") {
		t.Errorf("shown: %s", got)
	}
	t.Run("doors", func(t *testing.T) {
		for _, door := range saslDoors {
			t.Run(door.name, func(t *testing.T) {
				t.Parallel()
				want := []string{"SCRAM-SHA-256", "SCRAM-SHA-1", "PLAIN"}
				for _, secure := range []bool{false, true} {
					if secure {
						want = slices.Insert(want, 0, "SCRAM-SHA-256-PLUS")
					}
					c := s.saslClient(t, door, secure)
					got := slices.DeleteFunc(c.offered(), func(m string) bool { return m == "LOGIN" })
					if !slices.Equal(got, want) {
						t.Errorf("offered %q, want %q", got, want)
					}
					for i, mechanism := range want {
						if i > 0 {
							c = s.saslClient(t, door, secure)
							c.offered() // EHLO
						}
						if last, err := c.logIn(mechanism, "me", "secret", secure != (i%2 == 0)); err != nil || !strings.HasPrefix(last, door.good) {
							t.Errorf("%s: %s, %v", mechanism, last, err)
						}
						if door.name == "pop3" {
							c.say("QUIT") // one session at a time has the inbox
							c.line()
						}
					}
				}
				c := s.saslClient(t, door, false)
				c.offered()
				c.say(c.door.begin("SCRAM-SHA-256", "", false))
				c.line()
				c.say(fmt.Sprintf(door.answer, "*"))
				if got := c.line(); !strings.Contains(got, "cancelled") {
					t.Errorf("cancelled: %s", got)
				}
				who := "nobody." + door.name + "@example.org"
				if last, err := c.logIn("SCRAM-SHA-256", who, "secret", false); err == nil || last != door.bad {
					t.Errorf("%s: %s, %v", who, last, err)
				}
				if want := "account=" + who + " door=" + door.name + " failures=1"; !strings.Contains(s.log.String(), want) {
					t.Errorf("the log has no %s:\n%s", want, s.log)
				}
			})
		}
	})
}
