package sasl

import (
	"crypto/tls"
	"encoding/base64"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/xdg-go/scram"
	"github.com/xdg-go/stringprep"
)

// Known returns the mechanisms that we log in elsewhere by, strongest first.
func Known() []string {
	return []string{"SCRAM-SHA-256-PLUS", "SCRAM-SHA-256", "SCRAM-SHA-1-PLUS", "SCRAM-SHA-1", "PLAIN", "LOGIN"}
}

// Choose returns the mechanisms of a server that can be used on a connection, strongest first. only are those that may
// be; nil is all.
func Choose(offered, only []string, state *tls.ConnectionState) []string {
	_, binds := binding(state)
	return slices.DeleteFunc(Known(), func(m string) bool {
		return !slices.Contains(offered, m) || only != nil && !slices.Contains(only, m) || strings.HasSuffix(m, plus) && !binds
	})
}

// SendsPassword reports whether a mechanism tells the server the password.
func SendsPassword(mechanism string) bool { return mechanism == "PLAIN" || mechanism == "LOGIN" }

// mostIterations bounds the work that a server can have us do: some seconds.
const mostIterations = 10_000_000

// A Login is our side of an exchange. All that it takes and returns is in base64.
type Login struct {
	mechanism      string
	user, password string
	steps          int
	conversation   *scram.ClientConversation // nil: none of SCRAM
}

// NewLogin begins an exchange by a mechanism that Choose has returned for the same server and connection.
func NewLogin(mechanism, user, password string, offered []string, state *tls.ConnectionState) (*Login, error) {
	l := &Login{mechanism: mechanism, user: user, password: password}
	hash, ok := hashOf(mechanism)
	if !ok {
		return l, nil
	}
	client, err := hash.NewClientUnprepped(prepared(user), prepared(password), "")
	if err != nil {
		return nil, err
	}
	b, binds := binding(state)
	switch {
	case strings.HasSuffix(mechanism, plus):
		l.conversation = client.NewConversationWithChannelBinding(b)
	case binds && !slices.ContainsFunc(offered, func(m string) bool { return strings.HasSuffix(m, plus) }):
		// RFC 5802, 6: then the server can tell us that somebody has taken it out.
		l.conversation = client.NewConversationAdvertisingChannelBinding()
	default:
		l.conversation = client.NewConversation()
	}
	return l, nil
}

// prepared is SASLprep (RFC 4013), or s itself where that has no answer.
func prepared(s string) string {
	if p, err := stringprep.SASLprep.Prepare(s); err == nil && p != "" {
		return p
	}
	return s
}

// Initial returns the initial response; ok is false for a mechanism that begins with a challenge.
func (l *Login) Initial() (response string, ok bool) {
	if l.mechanism == "LOGIN" {
		return "", false
	}
	response, err := l.Next("")
	return response, err == nil
}

var errMore = errors.New("the server asks for more than the mechanism has")

// Next answers a challenge. An error says that the server is not what it should be.
func (l *Login) Next(challenge string) (response string, err error) {
	text, err := base64.StdEncoding.DecodeString(challenge)
	if err != nil && l.mechanism != "LOGIN" { // whose challenges say nothing
		return "", errors.New("the challenge is not in base64")
	}
	l.steps++
	var answer string
	switch {
	case l.conversation != nil:
		answer, err = l.scram(string(text))
	case l.mechanism == "PLAIN" && l.steps == 1:
		answer = "\x00" + l.user + "\x00" + l.password
	case l.mechanism == "LOGIN" && l.steps <= 2:
		answer = []string{l.user, l.password}[l.steps-1]
	default:
		err = errMore
	}
	return base64.StdEncoding.EncodeToString([]byte(answer)), err
}

func (l *Login) scram(challenge string) (string, error) {
	switch l.steps {
	case 2:
		for field := range strings.SplitSeq(challenge, ",") {
			text, ok := strings.CutPrefix(field, "i=")
			if n, err := strconv.Atoi(text); ok && (err != nil || n > mostIterations) {
				return "", fmt.Errorf("the server wants the password hashed %.20q times; at most %d are done", text, mostIterations)
			}
		}
	case 3:
		if _, err := l.conversation.Step(challenge); err != nil {
			return "", errServer
		}
		return "", nil
	}
	if l.steps > 3 {
		return "", errMore
	}
	answer, err := l.conversation.Step(challenge)
	if err != nil {
		return "", fmt.Errorf("the challenge is not as %s wants it", l.mechanism)
	}
	return answer, nil
}

var errServer = errors.New("the server does not show that it knows the password: it is not who it seems to be")

// Proved returns nil if a success that the server reports now can be believed: in SCRAM it has to show that it knows the
// password, too.
func (l *Login) Proved() error {
	if l.conversation != nil && !l.conversation.Valid() {
		return errServer
	}
	return nil
}
