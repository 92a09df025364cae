package smtp

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"strconv"
	"strings"
	"sync/atomic"
	"time"
	"unicode/utf8"

	"github.com/emersion/go-smtp"

	"sluice/pipeline"
	"sluice/pipeline/spool"
	"sluice/protocols/listen"
)

// A wire is the connection as go-smtp sees it. It hands over one line at a time, after it has looked at it, so that
// whatever go-smtp has to say about a line has been written when the next is asked for.
//
// Addresses do not pass through go-smtp: it gets "r0@\x01" for the first recipient, and its replies get the words back.
// Nor do messages: it reads on after an error within DATA, and takes what follows for commands; it takes the end of the
// connection within the last chunk for the end of the message; and the answer to a message that was reset can become
// that of the next. What follows a message in the same packet is not seen before its time.
type wire struct {
	c    *conversation
	conn *listen.Conn
	r    *bufio.Reader

	verb    string       // of the command that was handed over last
	refused string       // the reply that refused it
	pending []byte       // of it, what go-smtp has not read yet
	errors  int          // wrong commands so far
	chunks  *spool.Spool // of BDAT, so far; nil without any
	ends    *lineEnds    // of the message in chunks

	swallow  int         // replies of go-smtp that the client does not get
	over     atomic.Bool // we have said goodbye
	detached atomic.Bool // the conversation goes on over another wire
}

func newWire(c *conversation) *wire {
	return &wire{c: c, conn: c.conn, r: bufio.NewReaderSize(c.conn, 16<<10)}
}

// Read hands go-smtp the next line.
func (w *wire) Read(p []byte) (n int, err error) {
	defer w.c.caught("command", func() {
		w.over.Store(true)
		n, err = 0, io.EOF
	})
	if len(w.pending) == 0 {
		if w.pending, err = w.next(); err != nil {
			return 0, err
		}
	}
	n = copy(p, w.pending)
	w.pending = w.pending[n:]
	return n, nil
}

// broken is the answer to a message whose end did not come.
func broken(err error) error {
	switch {
	case errors.Is(err, listen.ErrShutdown):
		return reply(421, "4.3.2", "shutting down, please try again later")
	case errors.Is(err, os.ErrDeadlineExceeded):
		return reply(421, "4.4.2", "timed out while waiting for the message")
	}
	return reply(421, "4.4.2", "the connection broke within the message")
}

func reply(code int, enhanced, text string) error {
	return replyError(pipeline.Reply{Code: code, Enhanced: enhanced, Text: text})
}

// next returns the next line for go-smtp. Lines that it should not see are answered here. io.EOF ends the conversation.
func (w *wire) next() ([]byte, error) {
	for {
		if w.over.Load() || w.c.hangUp {
			return nil, io.EOF
		}
		if w.chunks == nil && !w.conn.SetBusy(false) {
			return nil, io.EOF // goodbye has been said
		}
		if w.errors > w.c.s.cfg.Limits.CommandErrors {
			w.say(421, "4.7.0", "too many errors")
			return nil, io.EOF
		}
		line, bare, err := w.line()
		if err == nil && bare && w.c.refusesBare() {
			w.say(500, "5.5.2", "bare LF received: commands end with CR LF")
			return nil, io.EOF
		}
		if err != nil {
			return nil, w.ending(err)
		}
		if out := w.look(line); out != nil {
			return out, nil
		}
		if w.detached.Load() {
			return nil, io.EOF
		}
	}
}

var errLongLine = errors.New("command line too long")

// line reads a command without its line end, and reports whether that was an LF alone.
func (w *wire) line() (text string, bare bool, err error) {
	w.conn.ReadUntil(time.Now().Add(w.c.s.cfg.Limits.CommandTimeout))
	defer w.conn.ReadUntil(time.Time{})
	var line []byte
	for {
		part, err := w.r.ReadSlice('\n')
		line = append(line, part...)
		if len(line) > w.c.s.cfg.Limits.CommandLine {
			return "", false, errLongLine
		}
		if err == nil {
			line, ended := bytes.CutSuffix(line[:len(line)-1], []byte("\r"))
			return string(line), !ended, nil
		}
		if err != bufio.ErrBufferFull {
			return "", false, err
		}
	}
}

// ending answers an error where a command was expected.
func (w *wire) ending(err error) error {
	switch {
	case errors.Is(err, errLongLine):
		w.say(500, "5.5.2", fmt.Sprintf("a command is at most %d octets long", w.c.s.cfg.Limits.CommandLine))
	case errors.Is(err, os.ErrDeadlineExceeded):
		w.say(421, "4.4.2", "timed out while waiting for a command")
	case errors.Is(err, listen.ErrShutdown):
		w.say(421, "4.3.2", "shutting down, please try again later")
	}
	return io.EOF
}

// look returns the line that go-smtp gets for a command, or nil if it has been answered.
func (w *wire) look(line string) []byte {
	verb, arg, _ := strings.Cut(line, " ")
	verb = strings.ToUpper(verb)
	w.verb, w.refused = verb, ""
	switch {
	case strings.IndexFunc(line, isControl) >= 0:
		if verb == "MAIL" || verb == "RCPT" {
			return w.wrong(553, "5.1.3", "there is a control character in the address")
		}
		return w.wrong(500, "5.5.2", "there is a control character in the command")
	case !utf8.ValidString(line):
		return w.wrong(500, "5.5.2", "the command is not UTF-8")
	}
	if w.chunks != nil && (verb == "MAIL" || verb == "RCPT" || verb == "DATA") {
		return w.wrong(503, "5.5.1", "the message is being sent in chunks")
	}
	switch verb {
	case "HELO", "EHLO", "LHLO":
		return w.hello(line, verb, arg)
	case "MAIL":
		if w.c.s.cfg.Submission != nil && w.c.login == "" { // RFC 6409, 4.3
			return w.wrong(loginFirst.Code, loginFirst.Enhanced, loginFirst.Text)
		}
		return w.path(verb, arg, "FROM:")
	case "RCPT":
		return w.path(verb, arg, "TO:")
	case "DATA":
		return w.data(arg)
	case "BDAT":
		return w.bdat(arg)
	case "RSET":
		w.dropChunks()
		return []byte(line + "\r\n")
	case "STARTTLS":
		w.startTLS(arg)
		return nil
	case "XCLIENT":
		w.xclient(arg)
		return nil
	case "QUIT", "NOOP", "VRFY", "HELP", "EXPN":
		return []byte(line + "\r\n")
	case relayVerb:
		if w.relay(arg) {
			return nil
		}
	case "AUTH":
		if w.c.s.cfg.Submission != nil {
			w.auth(arg)
			return nil
		}
		return w.wrong(502, "5.5.1", "AUTH is not available")
	}
	return w.wrong(500, "5.5.2", "no such command")
}

func isControl(r rune) bool { return r < ' ' && r != '\t' || r == 0x7f }

// wrong answers a command that is wrong.
func (w *wire) wrong(code int, enhanced, text string) []byte {
	w.say(code, enhanced, text)
	return nil
}

// say writes a reply of ours.
func (w *wire) say(code int, enhanced, text string) {
	w.sayAll([]pipeline.Reply{{Code: code, Enhanced: enhanced, Text: text}})
}

// note counts a reply that says the command was wrong. Refused mail is no error.
func (w *wire) note(code int) {
	if 500 <= code && code <= 504 || code == 553 {
		w.errors++
	}
}

func (w *wire) hello(line, verb, arg string) []byte {
	greeting, _, _ := strings.Cut(strings.TrimSpace(arg), " ")
	if lmtp := verb == "LHLO"; greeting == "" || lmtp != w.c.s.cfg.LMTP {
		return []byte(line + "\r\n") // go-smtp has an answer
	}
	w.dropChunks()
	if no := w.c.hello(verb, greeting); no != nil {
		w.sayAll([]pipeline.Reply{*no})
		return nil
	}
	return []byte(line + "\r\n")
}

// path keeps the address of MAIL or RCPT and puts one in its place that go-smtp cannot misread.
func (w *wire) path(verb, arg, prefix string) []byte {
	if len(arg) < len(prefix) || !strings.EqualFold(arg[:len(prefix)], prefix) {
		return w.wrong(501, "5.5.4", "write "+verb+" "+prefix+"<address>")
	}
	path, params, ok := cutPath(strings.TrimLeft(arg[len(prefix):], " \t"))
	if !ok || path == "" && verb == "RCPT" {
		return w.wrong(501, "5.1.3", "write "+verb+" "+prefix+"<address>")
	}
	p, no := w.parameters(verb, params)
	if no != nil {
		w.say(no.Code, no.Enhanced, no.Text)
		return nil
	}
	before := ""
	if verb == "MAIL" {
		if before, ok = w.greeted(); !ok {
			return nil
		}
	}
	w.c.path, w.c.parameters = path, p
	if verb == "MAIL" {
		w.c.utf8 = p.asked.UTF8
	}
	switch {
	case verb == "RCPT":
		path = "r" + strconv.Itoa(w.c.nextPlace()) + placeholder
	case path != "":
		path = "s" + placeholder
		fallthrough
	default:
		w.c.another()
	}
	return []byte(before + verb + " " + prefix + "<" + path + ">\r\n")
}

// placeholder cannot come from a client, for control characters are refused.
const placeholder = "@\x01"

// cutPath splits "<path> parameters" (RFC 5321, 4.1.2) and returns the mailbox as written, without angle brackets and
// without a source route, which is ignored as appendix F.2 demands. Angle brackets may be missing.
func cutPath(s string) (mailbox, params string, ok bool) {
	bracket := strings.HasPrefix(s, "<")
	if bracket {
		s = s[1:]
	}
	if strings.HasPrefix(s, "@") {
		if _, s, ok = strings.Cut(s, ":"); !ok {
			return "", "", false
		}
	}
	end, quoted := 0, false
scan:
	for ; end < len(s); end++ {
		switch c := s[end]; {
		case c == '"':
			quoted = !quoted
		case c == '\\' && quoted:
			end++
		case quoted:
		case c == '<':
			return "", "", false
		case c == '>' && bracket, (c == ' ' || c == '\t') && !bracket:
			break scan
		case c == '>', c == ' ', c == '\t':
			return "", "", false
		}
	}
	if quoted || end > len(s) {
		return "", "", false
	}
	mailbox, params = s[:end], s[end:]
	if bracket {
		if params, ok = strings.CutPrefix(params, ">"); !ok {
			return "", "", false
		}
	}
	if params = strings.TrimRight(params, " \t"); params != "" && params[0] != ' ' && params[0] != '\t' {
		return "", "", false
	}
	return mailbox, params, bracket || mailbox != ""
}

// forget makes go-smtp forget its sender and recipients. The client hears nothing of it.
func (w *wire) forget() []byte {
	w.swallow++
	return []byte("RSET\r\n")
}

// bdat receives a chunk of a message, and with the last one has it decided: RFC 3030, 2. The chunk follows whatever the
// answer is; where its size cannot be read nothing after it can.
func (w *wire) bdat(arg string) []byte {
	fields := strings.Fields(arg)
	last := len(fields) == 2 && strings.EqualFold(fields[1], "LAST")
	var size uint64
	err := errors.New("no size")
	if (len(fields) == 1 || last) && strings.Trim(fields[0], "0123456789") == "" {
		size, err = strconv.ParseUint(fields[0], 10, 32)
	}
	if err != nil {
		w.say(501, "5.5.4", "write BDAT size [LAST]")
		w.over.Store(true)
		return nil
	}
	if !w.conn.SetBusy(true) {
		return nil // next says goodbye
	}
	if w.chunks == nil && !w.c.ready() {
		if w.discard(int64(size)) {
			w.say(503, "5.5.1", "MAIL and RCPT first")
		}
		return nil
	}
	if w.chunks == nil {
		w.chunks, w.ends = spool.New(w.c.spooling()), &lineEnds{}
	}
	rest := &io.LimitedReader{R: w.r, N: int64(size)}
	src := &source{r: rest}
	_, err = io.Copy(mended{w.chunks, w.ends}, src)
	if err == nil && last {
		_, err = io.WriteString(w.chunks, w.ends.end())
	}
	if src.err == nil && err == nil && rest.N > 0 {
		src.err = io.ErrUnexpectedEOF
	}
	switch {
	case src.err != nil:
		w.fail(src.err)
		return nil
	case err != nil:
		return w.refuseChunk(w.c.untaken(err), rest.N)
	case !last:
		w.say(250, "2.0.0", fmt.Sprintf("%d octets received", size))
		return nil
	}
	m := w.chunks
	w.chunks = nil // it is closed there
	w.sayAll(w.c.finish(session{w.c, w}, m, w.ends))
	return w.forget()
}

// A source keeps the error of its reader, to tell it from that of the writer.
type source struct {
	r   io.Reader
	err error
}

func (s *source) Read(p []byte) (int, error) {
	n, err := s.r.Read(p)
	if err != io.EOF {
		s.err = err
	}
	return n, err
}

// refuseChunk answers a chunk that could not be kept, of which left octets are still to come.
func (w *wire) refuseChunk(no error, left int64) []byte {
	w.dropChunks()
	if !w.discard(left) {
		return nil
	}
	var e *smtp.SMTPError
	if !errors.As(no, &e) {
		return nil // it always is one
	}
	w.say(e.Code, enhanced(e), e.Message)
	w.c.abort(fmt.Sprintf("BDAT: %d %s %s", e.Code, enhanced(e), e.Message))
	return w.forget()
}

func enhanced(e *smtp.SMTPError) string {
	return fmt.Sprintf("%d.%d.%d", e.EnhancedCode[0], e.EnhancedCode[1], e.EnhancedCode[2])
}

// discard reads what remains of a chunk that is not taken. It reports whether the connection goes on.
func (w *wire) discard(n int64) bool {
	got, err := io.CopyN(io.Discard, w.r, n)
	if got < n {
		w.fail(err)
	}
	return got == n
}

// fail ends the conversation because a chunk did not come.
func (w *wire) fail(err error) {
	w.dropChunks()
	w.c.abort("the message did not come to its end")
	var no *smtp.SMTPError
	if errors.As(broken(err), &no) {
		w.say(no.Code, enhanced(no), no.Message)
	}
	w.over.Store(true)
}

func (w *wire) dropChunks() {
	if w.chunks != nil {
		_ = w.chunks.Close() // nothing in it is wanted
		w.chunks = nil
	}
}

// startTLS begins TLS and hands the conversation to another wire, over which go-smtp begins anew: RFC 3207, 4.2, wants
// all that was known from the client forgotten.
func (w *wire) startTLS(arg string) {
	switch {
	case arg != "":
		w.say(501, "5.5.4", "STARTTLS takes no argument")
		return
	case !w.conn.CanStartTLS():
		w.say(502, "5.5.1", "STARTTLS is not available")
		return
	case w.r.Buffered() > 0:
		w.say(554, "5.5.1", "nothing may follow STARTTLS before its answer")
		w.over.Store(true)
		return
	}
	w.say(220, "2.0.0", "ready to start TLS")
	if err := w.conn.StartTLS(w.r.Buffered()); err != nil {
		w.c.s.cfg.Log.Debug("TLS handshake failed", "client", w.c.peer(), "error", err)
		w.over.Store(true)
		return
	}
	w.dropChunks()
	w.c.secured()
	next := newWire(w.c)
	next.errors = w.errors
	next.swallow = 1 // the greeting has been said
	w.detached.Store(true)
	w.c.goOn(next)
}

// Write writes a line of a reply of go-smtp.
func (w *wire) Write(p []byte) (int, error) {
	code := 0
	if len(p) > 3 {
		code, _ = strconv.Atoi(string(p[:3])) // go-smtp writes nothing else
	}
	final := len(p) > 3 && p[3] == ' '
	if w.swallow > 0 {
		if final {
			w.swallow--
		}
		return len(p), nil
	}
	if final {
		w.note(code)
	}
	if final && code != 250 && w.verb == "RCPT" {
		w.c.untake()
		w.c.postponed = w.c.postponed || code < 500
	}
	if code >= 400 { // line by line
		w.refused = strings.TrimSpace(w.refused + " " + string(p))
	}
	_, err := w.conn.Write(w.words(p, code)) // of nothing: nothing
	if err != nil || code == 421 {
		w.over.Store(true)
	}
	return len(p), err
}

// why says for the record what ended a transaction.
func (w *wire) why() string {
	switch {
	case w.refused != "":
		return w.verb + ": " + pipeline.CleanText(w.refused)
	case w.verb == "DATA", w.verb == "BDAT":
		return "the message did not come to its end"
	}
	return w.verb
}

// words puts the client's own words, and ours, into a reply of go-smtp.
func (w *wire) words(p []byte, code int) []byte {
	switch {
	case code == 220 && w.verb == "" && w.conn.Banner() != "": // the greeting: go-smtp has put our name first
		name, _, _ := bytes.Cut(p[4:], []byte(" "))
		return fmt.Appendf(nil, "220 %s %s\r\n", name, w.conn.Banner())
	case code == 502 && (w.verb == "MAIL" || w.verb == "RCPT" || w.verb == "DATA"):
		// RFC 5321, 4.2.4: a command that there is, out of its order, gets 503.
		return append([]byte("503"), p[3:]...)
	case code == 250 && w.verb == "MAIL":
		return []byte("250 2.1.0 sender ok\r\n")
	case code == 250 && w.verb == "RCPT":
		return []byte("250 2.1.5 recipient ok\r\n")
	case code == 250 && (w.verb == "EHLO" || w.verb == "LHLO") && bytes.HasPrefix(p[4:], []byte("SIZE ")):
		var more []byte
		if w.c.s.cfg.Submission != nil && w.c.private() {
			more = fmt.Appendf(more, "250-AUTH %s\r\n", w.c.mechanisms())
		}
		if w.c.mayState() {
			more = fmt.Appendf(more, "250-XCLIENT %s\r\n", xclientAttributes)
		}
		return fmt.Appendf(more, "%sSIZE %d\r\n", p[:4], w.c.s.cfg.Limits.MessageSize)
	case code == 250 && w.verb == "EHLO" && string(p) == "250-DSN\r\n" && !w.c.offersDSN():
		return nil
	case bytes.Contains(p, []byte(placeholder+">")):
		before, rest, _ := bytes.Cut(p, []byte("<r"))
		place, after, _ := bytes.Cut(rest, []byte(placeholder+">"))
		i, _ := strconv.Atoi(string(place)) // it is ours
		return fmt.Appendf(nil, "%s<%s>%s", before, w.c.written(i), after)
	}
	return p
}

// Close ends the conversation, unless it goes on elsewhere.
func (w *wire) Close() error {
	if w.detached.Load() {
		return nil
	}
	w.over.Store(true)
	w.dropChunks()
	err := w.conn.Close()
	w.c.end()
	return err
}

func (w *wire) LocalAddr() net.Addr  { return w.conn.LocalAddr() }
func (w *wire) RemoteAddr() net.Addr { return w.conn.RemoteAddr() }

// Deadlines are those of package listen.
func (w *wire) SetDeadline(time.Time) error      { return nil }
func (w *wire) SetReadDeadline(time.Time) error  { return nil }
func (w *wire) SetWriteDeadline(time.Time) error { return nil }

// replyError makes r a reply of go-smtp, in ASCII.
func replyError(r pipeline.Reply) error { return replyErrorIn(r, false) }

// replyErrorIn makes r a reply of go-smtp, which puts the enhanced code on the last line alone.
func replyErrorIn(r pipeline.Reply, utf8 bool) error {
	lines := r.Lines(utf8)
	for i := range lines[:len(lines)-1] {
		lines[i] = r.Enhanced + " " + lines[i]
	}
	e := &smtp.SMTPError{Code: r.Code, Message: strings.Join(lines, "\n")}
	if n, _ := fmt.Sscanf(r.Enhanced, "%d.%d.%d", &e.EnhancedCode[0], &e.EnhancedCode[1], &e.EnhancedCode[2]); n != 3 {
		e.EnhancedCode = smtp.EnhancedCodeNotSet
	}
	return e
}
