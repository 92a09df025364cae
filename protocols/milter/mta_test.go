package milter

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"sluice/mailstore"
	"sluice/pipeline"
	"sluice/pipeline/pipelinetest"
)

// A door is a milter server under test and the world around it.
type door struct {
	t       *testing.T
	server  *Server
	journal *pipelinetest.Journal
	held    *quarantine
	path    string // of its socket
	served  chan error

	mu   sync.Mutex
	seen []sight // of the step look
}

// A sight is what a stage saw of one message.
type sight struct {
	pipeline.View
	text string // of the message
}

var testKey = pipeline.Handover{Key: []byte("a key for tests")}

// open starts a server for a plan of these steps; nobody but 127.0.0.1 is trusted.
func open(t *testing.T, change func(*Config), steps ...pipeline.Step) *door {
	t.Helper()
	d := &door{t: t, journal: &pipelinetest.Journal{}, held: &quarantine{}, served: make(chan error, 1)}
	env := pipelinetest.Env(t)
	env.Journal = d.journal
	plan := pipelinetest.Plan(t, env, append([]pipeline.Step{d.look()}, steps...)...)
	cfg := Config{
		Plan:       func() *pipeline.Plan { return plan },
		Quarantine: d.held,
		Handover:   testKey,
		Hostname:   "mx.example.org",
		Trusted:    netip.Addr.IsLoopback,
		Log:        slog.New(slog.DiscardHandler),
		Now:        func() time.Time { return pipelinetest.Epoch },
	}
	if change != nil {
		change(&cfg)
	}
	d.server = New(cfg)
	d.path = filepath.Join(t.TempDir(), "m")
	l, err := net.Listen("unix", d.path)
	if err != nil {
		t.Fatal(err)
	}
	go func() { d.served <- d.server.Serve(l) }()
	t.Cleanup(func() {
		ctx, cancel := context.WithCancel(context.Background())
		cancel() // whoever is still there has failed its test
		_ = d.server.Shutdown(ctx)
	})
	return d
}

// look is a first step that notes what stages see.
func (d *door) look() pipeline.Step {
	return pipelinetest.Step("look", pipelinetest.Stage{
		Looks: pipeline.Reads{Input: pipeline.InputClient | pipeline.InputGreeting | pipeline.InputSender |
			pipeline.InputRecipients | pipeline.InputBody},
		Says: func(_ context.Context, v pipeline.View) (pipeline.Result, error) {
			text, err := io.ReadAll(v.Message.Raw()) // it is gone afterwards
			d.mu.Lock()
			defer d.mu.Unlock()
			d.seen = append(d.seen, sight{v, string(text)})
			return pipeline.Result{}, err
		},
	})
}

// last returns what stages saw of the last message.
func (d *door) last() sight {
	d.t.Helper()
	d.mu.Lock()
	defer d.mu.Unlock()
	if len(d.seen) == 0 {
		d.t.Fatal("no stage has seen a message")
	}
	return d.seen[len(d.seen)-1]
}

// says is a step that gives a verdict for recipients whose mailbox is named, and nothing for others. Without any it is
// about everybody.
func says(name string, phase pipeline.Phase, v pipeline.Verdict, mailboxes ...string) pipeline.Step {
	in := pipeline.InputRecipient
	if len(mailboxes) == 0 {
		in = pipeline.InputClient
	}
	if phase == pipeline.Content {
		in |= pipeline.InputBody
	}
	return pipelinetest.Step(name, pipelinetest.Stage{
		Looks: pipeline.Reads{Input: in, Can: []pipeline.Final{{Action: v.Action}}},
		Says: func(_ context.Context, view pipeline.View) (pipeline.Result, error) {
			for _, m := range mailboxes {
				if view.Rcpt.Address.Mailbox() == m {
					return pipeline.Result{Verdict: v}, nil
				}
			}
			if len(mailboxes) == 0 {
				return pipeline.Result{Verdict: v}, nil
			}
			return pipeline.Result{}, nil
		},
	})
}

func reject(text string) pipeline.Verdict {
	return pipeline.Verdict{
		Action: pipeline.Reject,
		Reply:  pipeline.Reply{Code: 550, Enhanced: "5.7.1", Text: text},
	}
}

// A quarantine keeps what it is given in memory.
type quarantine struct {
	err    error
	panics bool

	mu   sync.Mutex
	held []mailstore.Held
	text []string
}

func (q *quarantine) Hold(_ context.Context, m mailstore.Held) ([]string, error) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.panics {
		q.panics = false
		panic("a quarantine that breaks")
	}
	if q.err != nil {
		return nil, q.err
	}
	b, err := io.ReadAll(m.Content)
	if err != nil {
		return nil, err
	}
	q.held, q.text = append(q.held, m), append(q.text, string(b))
	var ids []string
	for i := range m.Recipients {
		ids = append(ids, "q"+strconv.Itoa(i+1))
	}
	return ids, nil
}

// An mta speaks the MTA's side, packet by packet.
type mta struct {
	t *testing.T
	net.Conn
}

// dial connects as an MTA does.
func (d *door) dial() *mta {
	d.t.Helper()
	c, err := net.Dial("unix", d.path)
	if err != nil {
		d.t.Fatal(err)
	}
	d.t.Cleanup(func() { c.Close() })
	if err := c.SetDeadline(time.Now().Add(time.Minute)); err != nil {
		d.t.Fatal(err)
	}
	return &mta{d.t, c}
}

// postfix is how the dialogues begin: what Postfix 3.7 offers but for events without answers, and a client.
const postfix = `
C: O 6 0x1ff 0x100f7f
S: O 6 0x19 0x100100
C: C mail.example|4|192.0.2.7
S: c
C: H mail.example
S: c
C: A
`

// message is one message from MAIL to its end, with the answers that let it pass.
const message = `
C: M <a@sender.example>
S: c
C: R <me@example.org>
S: c
` + transfer

const transfer = `
C: T
S: c
C: L Subject| hello
S: c
C: N
S: c
C: B text\r\n
S: c
C: E
`

// talk holds a dialogue. A line "C: X text" is what the MTA says: the command X and its data, where | stands for NUL;
// "S: x text" is what it must hear. A last * matches the rest. Numbers of the protocol are written as text.
func (m *mta) talk(dialogue string) {
	m.t.Helper()
	for n, line := range strings.Split(dialogue, "\n") {
		switch side, text, _ := strings.Cut(line, ": "); side {
		case "C":
			m.say(text)
		case "S":
			got := m.hear()
			want, prefix := strings.CutSuffix(text, "*")
			if got != want && !(prefix && strings.HasPrefix(got, want)) {
				m.t.Fatalf("line %d: heard %q, want %q", n, got, text)
			}
		case "":
		default:
			m.t.Fatalf("line %d: %q", n, line)
		}
	}
}

func (m *mta) say(text string) {
	m.t.Helper()
	code, data, _ := strings.Cut(text, " ")
	data = strings.NewReplacer(`\r`, "\r", `\n`, "\n", `\t`, "\t", "|", "\x00").Replace(data)
	switch code {
	case "O":
		var b []byte
		for w := range strings.FieldsSeq(data) {
			n, err := strconv.ParseUint(w, 0, 32)
			if err != nil {
				m.t.Fatal(err)
			}
			b = binary.BigEndian.AppendUint32(b, uint32(n))
		}
		data = string(b)
	case "C":
		w := strings.Split(data, "\x00")
		data = w[0] + "\x00" + w[1]
		if len(w) > 2 {
			data += "\x04\xd2" + w[2] + "\x00" // port 1234
		}
	case "D":
		stage, values, _ := strings.Cut(data, "\x00") // the stage is one octet, without NUL
		data = stage + values + "\x00"
	case "H", "M", "R", "L", "U":
		data += "\x00"
	}
	m.raw(code[0], data)
}

func (m *mta) raw(code byte, data string) {
	m.t.Helper()
	b := binary.BigEndian.AppendUint32(nil, uint32(1+len(data)))
	b = append(append(b, code), data...)
	if _, err := m.Write(b); err != nil {
		m.t.Fatal(err)
	}
}

func (m *mta) hear() string {
	m.t.Helper()
	var head [5]byte
	_, err := io.ReadFull(m, head[:])
	switch {
	case errors.Is(err, syscall.ECONNRESET):
		return io.EOF.Error() // the end came before our last words were read
	case err != nil:
		return err.Error()
	}
	data := make([]byte, binary.BigEndian.Uint32(head[:])-1)
	if _, err := io.ReadFull(m, data); err != nil {
		return err.Error()
	}
	code, text := head[4], string(data)
	switch code {
	case 'O':
		text = fmt.Sprintf("%d %#x %#x", binary.BigEndian.Uint32(data), binary.BigEndian.Uint32(data[4:]),
			binary.BigEndian.Uint32(data[8:]))
	case 'i', 'm':
		text = fmt.Sprintf("%d %s", binary.BigEndian.Uint32(data), data[4:])
	}
	text = strings.ReplaceAll(strings.TrimSuffix(text, "\x00"), "\x00", "|")
	return strings.TrimSuffix(string(code)+" "+text, " ")
}

// serveOn has the door answer at a path of its own, which everybody may use.
func serveOn(t *testing.T, d *door, path string) {
	t.Helper()
	l, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(path, 0o666); err != nil {
		t.Fatal(err)
	}
	go func() { _ = d.server.Serve(l) }() // ends with Shutdown, at the end of the test
}
