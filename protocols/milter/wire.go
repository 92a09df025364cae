package milter

import (
	"bufio"
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"slices"
	"strings"
	"sync"
	"time"

	gomilter "github.com/emersion/go-milter"

	"sluice/pipeline"
	"sluice/protocols/listen"
)

const (
	version     = 6 // of the protocol that we speak, if the MTA does
	readAhead   = 8 << 10
	longPacket  = 32 << 10 // octets; the memory for a longer one is given back
	maxPacket   = 1 << 20  // octets of one packet; the MTA's are at most 64 KiB, but for long header fields
	codeUnknown = 'U'      // SMFIC_UNKNOWN
	progress    = 'p'      // SMFIR_PROGRESS

	optHeaderLeadingSpace = gomilter.OptHeaderLeadingSpace

	// What we do to mail. An MTA that does not allow all of it cannot carry out our decisions.
	actions = gomilter.OptAddHeader | gomilter.OptChangeHeader | gomilter.OptRemoveRcpt
	// go-milter closes the session at an unknown command. What refuses a header field or a piece of the body refuses what
	// follows it too, up to the end of the message, which always has an answer: the MTA need not wait for each.
	protocol = gomilter.OptNoUnknown | optHeaderLeadingSpace |
		gomilter.OptNoHeaderReply | gomilter.OptNoEOHReply | gomilter.OptNoBodyReply
)

// wishes returns what of the protocol we ask the MTA for. It need not wait for an answer where a plan has none to give;
// recipients always have one, and get that of MAIL where it had none.
func wishes(p *pipeline.Plan) gomilter.OptProtocol {
	if p.Awaited() {
		return protocol
	}
	return protocol | gomilter.OptNoConnReply | gomilter.OptNoHeloReply | gomilter.OptNoMailReply | gomilter.OptNoDataReply
}

// unanswered returns the wish that an event has no answer, 0 for an event that always has one, or never.
func unanswered(code gomilter.Code) gomilter.OptProtocol {
	switch code {
	case gomilter.CodeConn:
		return gomilter.OptNoConnReply
	case gomilter.CodeHelo:
		return gomilter.OptNoHeloReply
	case gomilter.CodeMail:
		return gomilter.OptNoMailReply
	case gomilter.CodeData:
		return gomilter.OptNoDataReply
	case gomilter.CodeHeader:
		return gomilter.OptNoHeaderReply
	case gomilter.CodeEOH:
		return gomilter.OptNoEOHReply
	case gomilter.CodeBody:
		return gomilter.OptNoBodyReply
	}
	return 0
}

// A wire is an MTA's connection as go-milter's server sees it: whole packets, one by one. On their way it
//
//   - answers with the MTA's protocol version, up to 6, where go-milter says 2: without it Postfix sends no DATA event;
//   - keeps what go-milter drops: macros by stage, parameters of MAIL and RCPT, addresses as they were spelt;
//   - answers itself what go-milter would close the connection for, or not tell us of (UNKNOWN, DATA), or keep a second
//     copy of (header fields, the body);
//   - bounds size and time, and reports every end of the connection as io.EOF: go-milter prints other errors.
//
// Read and Write are called by the one goroutine that serves the connection, and sendProgress by another one only while
// that waits for a decision.
type wire struct {
	net.Conn
	c      *conn
	limits Limits

	r       *bufio.Reader
	packet  []byte // the one at hand
	in      []byte // what go-milter has not read yet of it
	offered [3]uint32
	opening bool // the next answer is to the negotiation
	wished  gomilter.OptProtocol
	agreed  gomilter.OptProtocol // what of it the MTA offers
	leading bool                 // header values come, and are to be given, with their leading space
	mute    bool                 // the packet at hand has no answer
	out     []byte               // what is said but not sent
	whole   int                  // how much of it are whole packets
	broken  error

	closed    chan struct{}
	closeOnce sync.Once

	mu       sync.Mutex
	busy     bool // a message is being transferred or decided about
	stopping bool
}

func newWire(nc net.Conn, c *conn, l Limits, wished gomilter.OptProtocol) *wire {
	return &wire{Conn: nc, wished: wished, r: bufio.NewReaderSize(nc, readAhead), c: c, limits: l, closed: make(chan struct{})}
}

func (w *wire) Read(p []byte) (int, error) {
	for len(w.in) == 0 {
		if err := w.next(); err != nil {
			if !errors.Is(err, io.EOF) && !errors.Is(err, net.ErrClosed) {
				w.c.log.Warn("milter connection ends", "err", err)
			}
			return 0, io.EOF
		}
	}
	n := copy(p, w.in)
	w.in = w.in[n:]
	return n, nil
}

// next reads one packet, and leaves it in w.in if it is for go-milter.
func (w *wire) next() error {
	if w.broken != nil {
		return w.broken
	}
	if !w.enter(w.c.transferring()) {
		return io.EOF
	}
	if w.r.Buffered() == 0 {
		if err := w.wait(w.limits.Idle); err != nil {
			return err
		}
		if _, err := w.r.Peek(1); err != nil {
			return err
		}
	}
	size, err := w.size()
	if err != nil {
		return err
	}
	if cap(w.packet) > longPacket && 4+size <= longPacket {
		w.packet = nil // a long one does not stay
	}
	w.packet = slices.Grow(w.packet[:0], 4+size)[:4+size]
	if _, err := io.ReadFull(w.r, w.packet); err != nil {
		return fmt.Errorf("read a packet of %d octets: %w", size, err)
	}
	return w.sort(w.packet)
}

// size returns how many octets the packet that has begun to come has behind its head. All of it must come in time.
func (w *wire) size() (int, error) {
	timed := w.r.Buffered() < 4
	if timed {
		if err := w.wait(w.limits.Packet); err != nil {
			return 0, err
		}
	}
	head, err := w.r.Peek(4)
	if err != nil {
		return 0, fmt.Errorf("read a packet: %w", err)
	}
	size := binary.BigEndian.Uint32(head)
	if size == 0 || size > maxPacket {
		return 0, fmt.Errorf("a packet of %d octets", size)
	}
	if !timed && w.r.Buffered() < 4+int(size) {
		err = w.wait(w.limits.Packet)
	}
	return int(size), err
}

// wait bounds what is read from now on.
func (w *wire) wait(d time.Duration) error {
	until := time.Now().Add(d)
	if l, ok := w.Conn.(*listen.Conn); ok { // deadlines are its own business
		l.SetReadTimeout(d)
		l.ReadUntil(until)
		return nil
	}
	return w.SetReadDeadline(until)
}

// sort decides who gets a packet.
func (w *wire) sort(packet []byte) error {
	data := packet[5:]
	w.mute = w.agreed&unanswered(gomilter.Code(packet[4])) != 0
	switch code := gomilter.Code(packet[4]); code {
	case gomilter.CodeOptNeg:
		if err := w.negotiate(data); err != nil {
			return err
		}
	case gomilter.CodeMacro:
		if len(data) == 0 {
			return errors.New("a macro packet without a stage")
		}
		w.c.macros.set(gomilter.Code(data[0]), data[1:])
		return nil
	case gomilter.CodeConn:
		peer, err := parsePeer(data)
		if err != nil {
			return err
		}
		w.c.peer = peer
	case gomilter.CodeMail, gomilter.CodeRcpt:
		w.c.args = strings.Split(strings.TrimSuffix(string(data), "\x00"), "\x00")
	case gomilter.CodeHeader:
		name, value, ok := bytes.Cut(data, []byte{0})
		if !ok {
			return errors.New("a header packet without a value")
		}
		return w.respond(w.c.header(string(name), bytes.TrimSuffix(value, []byte{0})))
	case gomilter.CodeData:
		return w.respond(w.c.data())
	case gomilter.CodeEOH:
		return w.respond(w.c.headerEnds())
	case gomilter.CodeBody:
		return w.respond(w.c.body(data))
	case codeUnknown:
		return w.respond(gomilter.RespContinue)
	case gomilter.CodeQuitNewConn:
		// Another client on the same socket. There is no answer; to go-milter it is an abort, which has none either.
		w.c.forget()
		packet = []byte{0, 0, 0, 1, byte(gomilter.CodeAbort)}
	case gomilter.CodeHelo, gomilter.CodeEOB, gomilter.CodeAbort, gomilter.CodeQuit:
	default:
		return fmt.Errorf("an unknown packet %q", byte(code))
	}
	w.in = packet
	return nil
}

func (w *wire) negotiate(data []byte) error {
	if len(data) < 12 {
		return errors.New("a short negotiation packet")
	}
	for i := range w.offered {
		w.offered[i] = binary.BigEndian.Uint32(data[4*i:])
	}
	if missing := uint32(actions) &^ w.offered[1]; missing != 0 {
		return fmt.Errorf("the MTA does not allow milters what we need to carry out decisions (actions %#x)", missing)
	}
	w.opening = true
	w.agreed = w.wished & gomilter.OptProtocol(w.offered[2])
	w.leading = w.agreed&optHeaderLeadingSpace != 0
	return nil
}

// respond writes an answer that go-milter knows nothing of.
func (w *wire) respond(r gomilter.Response) error {
	m := r.Response()
	w.say(m.Code, m.Data)
	return nil
}

// say writes a packet.
func (w *wire) say(code byte, data []byte) {
	packet := binary.BigEndian.AppendUint32(make([]byte, 0, 5+len(data)), uint32(1+len(data)))
	_, _ = w.Write(append(append(packet, code), data...)) // it never fails
}

// removeField tells the MTA to remove the field of this name at this place among those of the name.
func (w *wire) removeField(name string, place int) {
	w.field(gomilter.ActChangeHeader, place, name, "")
}

// insertField tells the MTA to insert a field before all others: above its own Received, which is not among the fields
// that we are shown. The last one inserted is on top.
func (w *wire) insertField(name, value string) {
	if w.leading {
		value = " " + value
	}
	w.field(gomilter.ActInsertHeader, 0, name, value)
}

func (w *wire) field(code gomilter.ModifyActCode, place int, name, value string) {
	w.say(byte(code), fmt.Appendf(binary.BigEndian.AppendUint32(nil, uint32(place)), "%s\x00%s\x00", name, value))
}

// removeRecipient takes the address as the MTA has named it, without the outer angle brackets.
func (w *wire) removeRecipient(raw string) {
	w.say(byte(gomilter.ActDelRcpt), fmt.Appendf(nil, "<%s>\x00", raw))
}

// sendProgress tells the MTA that waits for a decision to wait on. Its answer deadline begins anew.
func (w *wire) sendProgress() {
	_ = w.write([]byte{0, 0, 0, 1, progress}) // a broken connection shows at the next Read
}

// Write never fails: go-milter would print why. A connection that cannot be written to is at its end at the next Read.
// What the MTA is to change in the message waits for the answer that follows it, and goes with it. A long packet comes in
// pieces.
func (w *wire) Write(p []byte) (int, error) {
	w.out = append(w.out, p...)
	answered := false
	for rest := w.out[w.whole:]; len(rest) > 4; rest = w.out[w.whole:] {
		size := 4 + int(binary.BigEndian.Uint32(rest))
		if len(rest) < size {
			return len(p), nil
		}
		w.whole += size
		answered = !changes(rest[4])
	}
	if answered {
		w.flush()
	}
	return len(p), nil
}

// flush sends the answer that stands in w.out.
func (w *wire) flush() {
	if w.opening && len(w.out) >= 17 && w.out[4] == byte(gomilter.CodeOptNeg) {
		w.opening = false
		binary.BigEndian.PutUint32(w.out[5:], min(version, w.offered[0]))
		for i := 1; i < 3; i++ { // never more than was offered
			at := w.out[5+4*i:]
			binary.BigEndian.PutUint32(at, binary.BigEndian.Uint32(at)&w.offered[i])
		}
	}
	if !w.mute && w.broken == nil {
		w.broken = w.write(w.out)
	}
	w.out, w.whole = w.out[:0], 0
	if cap(w.out) > longPacket {
		w.out = nil
	}
}

// changes reports whether an answer only says what to change in the message; another one follows it.
func changes(code byte) bool {
	switch gomilter.ModifyActCode(code) {
	case gomilter.ActInsertHeader, gomilter.ActChangeHeader, gomilter.ActDelRcpt:
		return true
	}
	return false
}

func (w *wire) write(p []byte) error {
	if err := w.SetWriteDeadline(time.Now().Add(w.limits.Packet)); err != nil {
		return err
	}
	_, err := w.Conn.Write(p)
	return err
}

// Close is called by go-milter at its end.
func (w *wire) Close() error {
	err := w.Conn.Close()
	w.closeOnce.Do(func() { close(w.closed) })
	return err
}

// enter notes whether a message is being transferred; it is false when the connection shall go on no more.
func (w *wire) enter(busy bool) bool {
	if l, ok := w.Conn.(*listen.Conn); ok && !l.SetBusy(busy) && !busy {
		return false
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	w.busy = busy
	return busy || !w.stopping
}

// stop ends the connection now, or once the message that is being transferred has its answer.
func (w *wire) stop() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.stopping = true
	if !w.busy {
		w.Conn.Close()
	}
}

// hangUp ends the connection whatever it is doing.
func (w *wire) hangUp() { w.Conn.Close() }

// once is a listener with one connection.
type once struct {
	net.Conn
	taken bool
}

func (o *once) Accept() (net.Conn, error) {
	if o.taken {
		return nil, errOnce
	}
	o.taken = true
	return o.Conn, nil
}

func (o *once) Close() error   { return nil }
func (o *once) Addr() net.Addr { return o.LocalAddr() }
