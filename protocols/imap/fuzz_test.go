package imap

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"net"
	"slices"
	"strings"
	"testing"
	"time"
	"unicode/utf16"

	goimap "github.com/emersion/go-imap/v2"
	"github.com/emersion/go-imap/v2/imapserver"

	"sluice/mailstore"
)

// canned is a connection that says something and remembers the answers.
type canned struct {
	in     io.Reader
	out    bytes.Buffer
	closed chan struct{}
}

func (c *canned) Read(p []byte) (int, error)       { return c.in.Read(p) }
func (c *canned) Write(p []byte) (int, error)      { return c.out.Write(p) }
func (c *canned) Close() error                     { close(c.closed); return nil }
func (c *canned) LocalAddr() net.Addr              { return &net.TCPAddr{} }
func (c *canned) RemoteAddr() net.Addr             { return &net.TCPAddr{} }
func (c *canned) SetDeadline(time.Time) error      { return nil }
func (c *canned) SetReadDeadline(time.Time) error  { return nil }
func (c *canned) SetWriteDeadline(time.Time) error { return nil }

type cannedListener struct {
	conn  *canned
	given bool
}

func (l *cannedListener) Accept() (net.Conn, error) {
	if !l.given {
		l.given = true
		return l.conn, nil
	}
	<-l.conn.closed
	return nil, net.ErrClosed
}
func (l *cannedListener) Close() error   { return nil }
func (l *cannedListener) Addr() net.Addr { return &net.TCPAddr{} }

// askLibrary lets the library read octets as a logged-in client's, with a session that knows no mailbox.
func askLibrary(text string) string {
	log := slog.New(slog.DiscardHandler)
	g := &guard{client: &client{Server: New(Config{Log: log}), ctx: context.Background(), log: log}}
	g.session = newSession(g, nil)
	conn := &canned{in: strings.NewReader(text), closed: make(chan struct{})}
	lib := imapserver.New(&imapserver.Options{
		NewSession: func(*imapserver.Conn) (imapserver.Session, *imapserver.GreetingData, error) {
			return g.session, &imapserver.GreetingData{PreAuth: true}, nil
		},
		Caps: libraryCapabilities(), Logger: libraryLog{g.client}, InsecureAuth: true,
	})
	_ = lib.Serve(&cannedListener{conn: conn})
	return conn.out.String()
}

// FuzzGuard checks that whatever the guard lets through is one command for the library too: it answers once, and takes
// what follows for the next command.
func FuzzGuard(f *testing.F) {
	for _, seed := range []string{
		"a NOOP\r\n", "a SELECT INBOX\r\nb FETCH 1:* (FLAGS BODY[HEADER.FIELDS (a {1+}\r\nb)]<0.5>)\r\n",
		"a SEARCH TEXT {5+}\r\nab\"\\c OR (NOT ALL) 1:*\r\n", "a LOGIN {3}\r\nabc {4+}\r\nabcd\r\n", "a APPEND x (\\Seen) {3}\r\nabc\r\n",
		"a LIST (SUBSCRIBED) \"\" (a \"b\\\"c\" {0+}\r\n) RETURN (STATUS (MESSAGES))\r\n", "a SELECT \"{5+}\r\nb NOOP\r\n",
		"a SEARCH {5+}\r\nx\r\nyz\r\nb NOOP\r\n", "a STORE 1 +FLAGS (\\Seen \"x\")\r\n", "a CREATE x (USE (\\Sent))\r\n", "a LIST ~{1}\r\n",
		"a UID FETCH $ BODY[1.2.TEXT]\r\n", "a MOVE 1 {2+}\r\nab\r\n", "a STATUS {9999+}\r\n", "a LIST \"\" a\x80\xff%*]\r\n", "] NOOP\r\na NOOP\r\n",
	} {
		f.Add([]byte(seed))
	}
	lim := commandLimits{line: 300, literal: 50, literals: 3, nesting: 10, message: true, swallow: true}
	f.Fuzz(func(t *testing.T, in []byte) {
		leaves := 0
		r := commandReader{br: bufio.NewReaderSize(bytes.NewReader(in), 64), leave: func() error { leaves++; return nil }}
		for range len(in) + 1 {
			cmd, err := r.read(lim)
			var no *refusal
			if errors.As(err, &no) {
				if strings.ContainsAny(strings.TrimSuffix(no.line(), "\r\n"), "\r\n") {
					t.Fatalf("answer %q", no.line())
				}
				continue
			}
			if err != nil {
				return
			}
			if cmd.message != nil {
				if cmd.name != "APPEND" {
					t.Fatalf("%s has a message", cmd.name)
				}
				if _, _, _, err := parseAppend(cmd); err != nil && !errors.As(err, &no) {
					t.Fatalf("append: %v", err)
				}
				continue
			}
			switch cmd.name {
			case "CAPABILITY", "ENABLE", "LOGIN", "AUTHENTICATE", "STARTTLS", "UNAUTHENTICATE", "APPEND", "IDLE", "LOGOUT":
				continue // the guard answers, or nothing follows
			}
			line := cmd.line()
			if body := strings.TrimSuffix(line, "\r\n"); len(line) > maxCommand || strings.ContainsAny(body, "\r\n\x00") {
				t.Fatalf("line %q", line)
			}
			out := askLibrary(line + "theend NOOP\r\n")
			answers := 0
			for l := range strings.SplitSeq(out, "\r\n") {
				if l != "" && !strings.HasPrefix(l, "*") {
					answers++
				}
			}
			if answers != 2 || !strings.HasSuffix(out, "theend OK NOOP completed\r\n") {
				t.Fatalf("the library answers %q with %q", line, out)
			}
		}
		t.Fatal("the reader makes no progress")
	})
}

// FuzzStructure checks that parts lie within their message, and that any message has a structure that can be written.
func FuzzStructure(f *testing.F) {
	f.Add([]byte(letter("one")))
	f.Add([]byte(nested(40)))
	f.Add([]byte("Content-Type: multipart/mixed; boundary=\"a b\"\r\n\r\n--a b\r\nContent-Type: message/rfc822\r\n\r\nTo: x:y;\r\n\r\n--a b--\r\n"))
	f.Add([]byte("Content-Type: multipart/digest; boundary=x\n\n--x\n\nA: b\n\n--x\nContent-Disposition: attachment; filename*0=\"a\"\n--x--"))
	f.Fuzz(func(t *testing.T, in []byte) {
		root, err := parseStructure(bytes.NewReader(in), int64(len(in)), Limits{}.withDefaults())
		if err != nil {
			t.Fatal(err)
		}
		var check func(p *part, within span, path []int)
		check = func(p *part, within span, path []int) {
			for _, s := range []span{p.header, p.body} {
				if s.from < within.from || s.to > within.to || s.from > s.to {
					t.Fatalf("part %v: %v is not in %v", path, s, within)
				}
			}
			if p.header.to > p.body.from || p.lines < 0 || p.typ == "" {
				t.Fatalf("part %v: %+v", path, p)
			}
			if p.message != nil {
				check(p.message, p.body, append(path, 0))
			}
			for i, child := range p.parts {
				if found := p.find([]int{i + 1}); found != child {
					t.Fatalf("part %v %d is not found", path, i+1)
				}
				check(child, p.body, append(path, i+1))
			}
		}
		check(root, span{0, int64(len(in))}, nil)
		root.envelope()
		var walk func(goimap.BodyStructure)
		walk = func(b goimap.BodyStructure) {
			switch b := b.(type) {
			case *goimap.BodyStructureMultiPart:
				if len(b.Children) == 0 || b.Extended == nil {
					t.Fatal("a multipart that can not be written")
				}
				for _, c := range b.Children {
					walk(c)
				}
			case *goimap.BodyStructureSinglePart:
				if b.Extended == nil || (b.Type == "text") != (b.Text != nil) || b.Type == "multipart" ||
					(b.Type == "message" && (b.Subtype == "rfc822" || b.Subtype == "global")) != (b.MessageRFC822 != nil) {
					t.Fatalf("a part that can not be written: %+v", b)
				}
				if b.MessageRFC822 != nil {
					walk(b.MessageRFC822.BodyStructure)
				}
			}
		}
		walk(root.bodyStructure())
	})
}

// FuzzMailboxName checks that no two spellings name one mailbox.
func FuzzMailboxName(f *testing.F) {
	for _, s := range []string{"INBOX", "&-", "B&APw-cher", "&U,BTFw-", "&2DzfVQ-", "&AAA-", "&AP8A", "&\r-", "&AP8\n-"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		name, err := decodeUTF7(s)
		if err != nil {
			return
		}
		if back := encodeUTF7(name); back != s {
			t.Fatalf("%q decodes to %q, which encodes to %q", s, name, back)
		}
	})
}

// encodeUTF7 is the encoding of a name as RFC 3501, 5.1.3 has it.
func encodeUTF7(name string) string {
	var b strings.Builder
	var units []byte
	flush := func() {
		if len(units) > 0 {
			b.WriteString("&" + base64UTF7().EncodeToString(units) + "-")
			units = nil
		}
	}
	for _, r := range name {
		switch {
		case r == '&':
			flush()
			b.WriteString("&-")
		case r >= ' ' && r <= '~':
			flush()
			b.WriteRune(r)
		default:
			for _, u := range utf16.AppendRune(nil, r) {
				units = append(units, byte(u>>8), byte(u))
			}
		}
	}
	flush()
	return b.String()
}

// A replica is what a client makes of updates: the rules of RFC 9051, 7.5.
type replica struct{ flags []string }

func (r *replica) apply(t *testing.T, updates string, expunge bool) {
	t.Helper()
	for line := range strings.SplitSeq(strings.TrimSuffix(updates, "\r\n"), "\r\n") {
		var n, uid int
		var flags string
		switch {
		case line == "":
		case strings.HasSuffix(line, " EXPUNGE"):
			if _, err := fmt.Sscanf(line, "* %d EXPUNGE", &n); err != nil || !expunge || n < 1 || n > len(r.flags) {
				t.Fatalf("%q with %d messages", line, len(r.flags))
			}
			r.flags = slices.Delete(r.flags, n-1, n)
		case strings.HasSuffix(line, " EXISTS"):
			if _, err := fmt.Sscanf(line, "* %d EXISTS", &n); err != nil || n <= len(r.flags) {
				t.Fatalf("%q with %d messages", line, len(r.flags))
			}
			for len(r.flags) < n {
				r.flags = append(r.flags, "?")
			}
		case strings.HasSuffix(line, " RECENT"):
		default:
			line = strings.NewReplacer("(", "( ", ")", " )").Replace(line)
			if _, err := fmt.Sscanf(line, "* %d FETCH ( UID %d FLAGS ( %s ) )", &n, &uid, &flags); err != nil || n > len(r.flags) {
				t.Fatalf("%q: %v", line, err)
			}
			r.flags[n-1] = flags
		}
	}
}

// Whatever happens to a mailbox, in whatever steps the client hears of it: in the end it knows what there is.
func TestUpdatesLeadToTheTruth(t *testing.T) {
	for seed := range uint64(300) {
		rnd := rand.New(rand.NewPCG(seed, 1))
		now := mailstore.Listing{UIDValidity: 1, UIDNext: 1}
		change := func() {
			messages := slices.Clone(now.Messages)
			for range rnd.IntN(4) {
				switch k := rnd.IntN(3); {
				case k == 0:
					messages = append(messages, mailstore.Message{UID: now.UIDNext, Flags: []string{"f0"}})
					now.UIDNext += 1 + uint32(rnd.IntN(2))
				case len(messages) == 0:
				case k == 1:
					i := rnd.IntN(len(messages))
					messages = slices.Delete(messages, i, i+1)
				default:
					messages[rnd.IntN(len(messages))].Flags = []string{fmt.Sprintf("f%d", rnd.IntN(5))}
				}
			}
			now.Messages = messages
		}
		for range 5 {
			change()
		}
		v := newView(nil, now, false)
		client := &replica{}
		for _, m := range now.Messages {
			client.flags = append(client.flags, m.Flags[0])
		}
		for step := range 30 {
			change()
			expunge := rnd.IntN(2) == 0 || step == 29
			client.apply(t, v.update(now, expunge), expunge)
			if len(client.flags) != len(v.messages) {
				t.Fatalf("seed %d: the client counts %d, the view %d", seed, len(client.flags), len(v.messages))
			}
		}
		if len(v.messages) != len(now.Messages) {
			t.Fatalf("seed %d: %d messages in view, there are %d", seed, len(v.messages), len(now.Messages))
		}
		for i, m := range now.Messages {
			if got := client.flags[i]; v.messages[i].UID != m.UID || got != "?" && got != m.Flags[0] {
				t.Fatalf("seed %d: message %d is %v %s, want %v", seed, i+1, v.messages[i].UID, got, m)
			}
		}
	}
}

func TestMatch(t *testing.T) {
	tests := []struct {
		pattern, name string
		want          bool
	}{
		{"*", "a/b", true},
		{"%", "a/b", false},
		{"%", "a", true},
		{"a/%", "a/b", true},
		{"a/%", "a/b/c", false},
		{"a*c", "a/b/c", true},
		{"inbox", "INBOX", true},
		{"InBox/x", "INBOX/x", true},
		{"inbox", "inboxes", false},
		{"a", "A", false},
		{"", "", true},
		{"%%", "", true},
		{"*b*", "abc", true},
		{"*d*", "abc", false},
		{"Bü*", "Bücher", true},
	}
	for _, tt := range tests {
		if got := match(tt.pattern, tt.name); got != tt.want {
			t.Errorf("match(%q, %q) is %v", tt.pattern, tt.name, got)
		}
	}
}

func TestSections(t *testing.T) {
	text := "Subject: out\r\nContent-Type: multipart/mixed; boundary=x\r\n\r\npre\r\n--x\r\n\r\nfirst\r\n--x\r\nContent-Type: message/rfc822\r\n\r\n" +
		"Subject: in\r\nContent-Type: multipart/alternative; boundary=y\r\n\r\n--y\r\nContent-Type: text/html\r\n\r\nhtml\r\n--y--\r\n\r\n--x\r\nContent-Type: message/rfc822\r\n\r\nSubject: plain\r\n\r\nwords\r\n--x--\r\npost\r\n"
	root, err := parseStructure(strings.NewReader(text), int64(len(text)), Limits{}.withDefaults())
	if err != nil {
		t.Fatal(err)
	}
	tests := []struct {
		part []int
		spec goimap.PartSpecifier
		want string
	}{
		{nil, "", text},
		{nil, "HEADER", text[:strings.Index(text, "pre")]},
		{nil, "TEXT", text[strings.Index(text, "pre"):]},
		{nil, "MIME", ""},
		{[]int{1}, "", "first"},
		{[]int{1}, "MIME", "\r\n"},
		{[]int{1}, "HEADER", ""},
		{[]int{1, 1}, "", ""},
		{[]int{2}, "MIME", "Content-Type: message/rfc822\r\n\r\n"},
		{[]int{2}, "HEADER", "Subject: in\r\nContent-Type: multipart/alternative; boundary=y\r\n\r\n"},
		{[]int{2}, "TEXT", "--y\r\nContent-Type: text/html\r\n\r\nhtml\r\n--y--\r\n"},
		{[]int{2, 1}, "", "html"},
		{[]int{2, 1}, "MIME", "Content-Type: text/html\r\n\r\n"},
		{[]int{2, 2}, "", ""},
		{[]int{3, 1}, "", "words"},
		{[]int{3}, "TEXT", "words"},
		{[]int{3, 1, 1}, "", ""},
		{[]int{4}, "", ""},
		{[]int{0}, "", ""},
	}
	for _, tt := range tests {
		r, err := section(stringContent{strings.NewReader(text)}, root, &goimap.FetchItemBodySection{Part: tt.part, Specifier: tt.spec})
		if err != nil {
			t.Fatal(err)
		}
		if got, _ := io.ReadAll(r); string(got) != tt.want {
			t.Errorf("BODY[%v %s]:\n got %q\nwant %q", tt.part, tt.spec, got, tt.want)
		}
	}
}

type stringContent struct{ *strings.Reader }

func (stringContent) Close() error { return nil }
