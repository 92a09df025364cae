package rspamd

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"strings"
	"time"

	"sluice/pipeline"
	"sluice/scanners/peer"
)

// A client speaks rspamd's HTTP protocol, on connections that it keeps.
type client struct {
	peer     *peer.Peer
	http     *http.Client
	most     int64 // octets of a reply
	password string
	settings string
	hostname string
}

func newClient(p *peer.Peer, c Config, password, hostname string) *client {
	const idle = 30 * time.Second // rspamd closes connections that are idle for longer
	transport := &http.Transport{
		DialContext:            func(ctx context.Context, _, _ string) (net.Conn, error) { return p.Dial(ctx) },
		MaxIdleConnsPerHost:    c.AtOnce,
		IdleConnTimeout:        idle,
		MaxResponseHeaderBytes: 64 << 10,
		DisableCompression:     true, // what is not what rspamd sends is no reply of it
	}
	return &client{
		peer: p, most: c.MaxReply, password: password, settings: c.SettingsID, hostname: hostname,
		http: &http.Client{
			Transport: transport,
			// rspamd sends nobody elsewhere, and mail goes to nobody else.
			CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
		},
	}
}

// check asks about one mail.
func (c *client) check(ctx context.Context, v pipeline.View) (r reply, err error) {
	err = c.peer.Ask(ctx, func(ctx context.Context) error {
		req, err := c.request(ctx, v)
		if err != nil {
			return err
		}
		resp, err := c.http.Do(req)
		if err != nil {
			return bare(err)
		}
		defer resp.Body.Close()
		text, err := io.ReadAll(io.LimitReader(resp.Body, c.most+1))
		switch {
		case resp.StatusCode != http.StatusOK:
			return refusal(resp.StatusCode, text)
		case err != nil:
			return fmt.Errorf("read the reply: %w", err)
		case int64(len(text)) > c.most:
			return fmt.Errorf("the reply has more than %d octets", c.most)
		}
		r, err = parseReply(text)
		return err
	})
	return r, err
}

// request is the question. rspamd takes what is known beside the message from header fields.
func (c *client) request(ctx context.Context, v pipeline.View) (*http.Request, error) {
	body := func() (io.ReadCloser, error) { return io.NopCloser(v.Message.Raw()), nil }
	message, _ := body()
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, "http://rspamd/checkv2", message)
	if err != nil {
		return nil, err
	}
	// A question changes nothing, and so can be put again where the connection kept turns out to be closed: rspamd was
	// started anew. An empty Idempotency-Key says so to net/http and is not sent.
	req.GetBody, req.ContentLength = body, v.Message.Size()
	req.Header["Idempotency-Key"] = nil
	req.Header["User-Agent"] = nil
	set := func(name, value string) {
		if value = fieldValue(value); value != "" {
			req.Header.Add(name, value)
		}
	}
	if a := v.Client.Addr; a != (netip.Addr{}) {
		set("IP", a.Unmap().WithZone("").String())
	}
	set("Hostname", v.Client.Name)
	set("Helo", v.Greeting)
	set("User", v.Client.Login)
	set("TLS-Version", v.Client.TLS)
	set("From", v.Sender.Raw) // of the null sender: none
	for _, r := range v.Recipients {
		set("Rcpt", r.Address.Raw)
	}
	if len(v.Recipients) == 1 {
		set("Deliver-To", v.Recipients[0].Account)
	}
	set("Queue-Id", v.ID)
	set("MTA-Name", c.hostname)
	set("Settings-ID", c.settings)
	set("Password", c.password)
	return req, nil
}

// fieldValue drops what a field of HTTP cannot carry. A client that says such things shall be scanned all the same.
func fieldValue(s string) string {
	const most = 1000
	s = strings.Map(func(r rune) rune {
		if r < ' ' || r == 0x7f {
			return -1
		}
		return r
	}, strings.ToValidUTF8(s, "?"))
	return strings.TrimSpace(s[:min(len(s), most)])
}

// bare is the cause of a failure, without the URL that net/http makes up for it.
func bare(err error) error {
	for {
		inner := errors.Unwrap(err)
		if _, ok := err.(interface{ Timeout() bool }); !ok || inner == nil || !strings.HasPrefix(err.Error(), "Post ") {
			return err
		}
		err = inner
	}
}

// refusal is what another status than 200 says. Up to 499 it is about this question: rspamd itself is well.
func refusal(status int, text []byte) error {
	const most = 200
	said := pipeline.CleanText(strings.ToValidUTF8(string(text[:min(len(text), most)]), "?"))
	err := fmt.Errorf("it answers with status %d: %s", status, said)
	if status < 500 && status != http.StatusTooManyRequests {
		return &peer.Answered{Err: err}
	}
	return err
}
