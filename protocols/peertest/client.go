package peertest

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"strings"
	"time"
)

// A Client speaks SMTP or LMTP line by line, and sends whatever it is told to, right or wrong.
type Client struct {
	net.Conn
	r *bufio.Reader
}

// DialClient connects to address, "host:port" or the path of a unix socket, and reads the greeting. Everything it does
// has a minute.
func DialClient(address string) (*Client, error) {
	network := "tcp"
	if strings.HasPrefix(address, "/") {
		network = "unix"
	}
	conn, err := net.DialTimeout(network, address, 10*time.Second)
	if err != nil {
		return nil, err
	}
	if err := conn.SetDeadline(time.Now().Add(time.Minute)); err != nil {
		return nil, err
	}
	c := &Client{conn, bufio.NewReader(conn)}
	if _, err := c.Reply(); err != nil {
		_ = conn.Close()
		return nil, err
	}
	return c, nil
}

// Reply reads one reply, all its lines, without the last line end.
func (c *Client) Reply() (string, error) {
	var b strings.Builder
	for {
		line, err := c.r.ReadString('\n')
		if err != nil {
			return b.String() + line, err
		}
		b.WriteString(line)
		if len(line) < 4 || line[3] != '-' {
			return strings.TrimRight(b.String(), "\r\n"), nil
		}
	}
}

// Say sends a line and returns the reply.
func (c *Client) Say(format string, args ...any) (string, error) {
	if _, err := io.WriteString(c, fmt.Sprintf(format, args...)+"\r\n"); err != nil {
		return "", err
	}
	return c.Reply()
}

// Expect is Say, with an error unless the reply begins with code.
func (c *Client) Expect(code, format string, args ...any) (string, error) {
	reply, err := c.Say(format, args...)
	if err == nil && !strings.HasPrefix(reply, code) {
		err = fmt.Errorf("%s: %s", fmt.Sprintf(format, args...), reply)
	}
	return reply, err
}

// Rest reads until the server closes the connection.
func (c *Client) Rest() string {
	b, _ := io.ReadAll(c.r) // a reset is an end, too
	return string(b)
}

// Mail sends one message on an open connection and returns the replies to its end: one for SMTP, with lmtp one for each
// recipient. text has CRLF line ends and no line that begins with a dot.
func (c *Client) Mail(lmtp bool, from string, to []string, text string) ([]string, error) {
	if _, err := c.Expect("250", "MAIL FROM:<%s>", from); err != nil {
		return nil, err
	}
	for _, r := range to {
		if _, err := c.Expect("250", "RCPT TO:<%s>", r); err != nil {
			return nil, err
		}
	}
	if _, err := c.Expect("354", "DATA"); err != nil {
		return nil, err
	}
	if _, err := io.WriteString(c, text+".\r\n"); err != nil {
		return nil, err
	}
	n := 1
	if lmtp {
		n = len(to)
	}
	var replies []string
	for range n {
		reply, err := c.Reply()
		if err != nil {
			return replies, err
		}
		replies = append(replies, reply)
	}
	return replies, nil
}
