package program

import (
	"bufio"
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"net/textproto"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/alecthomas/kong"

	"sluice/cmd/sluice/program/config"
	"sluice/pipeline/spool"
	"sluice/protocols/smtp"
)

// deliverCommand hands a mail to the running server. Who calls it knows the answer by sysexits(3): 0 is that the mail is
// the server's to keep, 75 that it should be offered again, any other that it never will be taken. Of several
// recipients 75 wins, for a mail that is bounced is lost to those who were to get it later; then the first refusal.
type deliverCommand struct {
	From     *string  `required:"" placeholder:"SENDER" help:"The envelope sender; empty, <> or MAILER-DAEMON is none."`
	ClientIP string   `name:"client-ip" placeholder:"IP" help:"Who brought the mail to the MTA. Believed of root, the server's own user and deliver_users."`
	Helo     string   `placeholder:"NAME" help:"What that client greeted with."`
	Rcpt     []string `arg:"" placeholder:"RCPT" help:"A recipient, NAME@DOMAIN; NAME alone is in domain:."`
}

// Exit codes of deliver: sysexits(3), as Postfix and Sendmail read them.
const (
	exUsage       = 64
	exDataErr     = 65
	exNoUser      = 67
	exUnavailable = 69
	exTempFail    = 75
	exNoPerm      = 77
)

// An exit is an error that says what the program ends with.
type exit struct {
	code int
	err  error
}

func (e *exit) Error() string { return e.err.Error() }
func (e *exit) Unwrap() error { return e.err }

// usageExit is what the program ends with after a command line that is none.
func usageExit(err error) int {
	var parse *kong.ParseError
	if errors.As(err, &parse) && parse.Context != nil {
		if c := parse.Context.Selected(); c != nil && c.Name == "deliver" {
			return exUsage
		}
	}
	return 2
}

func (c *deliverCommand) Run(p *program) error {
	err := c.run(p)
	var e *exit
	if err == nil || errors.As(err, &e) {
		return err
	}
	return &exit{exTempFail, err} // whatever it is, it is not the mail's fault
}

func (c *deliverCommand) run(p *program) error {
	relay, err := c.relay()
	if err != nil {
		return &exit{exUsage, err}
	}
	settings, err := p.settings()
	if err != nil {
		return err
	}
	d, err := dialDeliver(p.ctx, settings)
	if err != nil {
		return err
	}
	defer d.close()
	mail, size, err := readMail(p.stdin, d.size)
	if err != nil {
		return err
	}
	defer mail.Close()
	if relay != "" {
		r, err := d.ask(relay)
		if err != nil {
			return err
		}
		if r.code >= 400 {
			fmt.Fprintln(p.stderr, "sluice: the client that --client-ip and --helo name does not count: this user is not in deliver_users")
		}
	}
	return c.send(p, d, settings, mail, size)
}

// relay returns the command that says who brought the mail, "" if nobody knows.
func (c *deliverCommand) relay() (string, error) {
	known := func(s string) bool { return s != "" && !strings.EqualFold(s, "unknown") } // Postfix's word
	var addr netip.Addr
	if known(c.ClientIP) {
		var err error
		if addr, err = netip.ParseAddr(strings.TrimPrefix(c.ClientIP, "IPv6:")); err != nil || addr.Zone() != "" {
			return "", fmt.Errorf("--client-ip %s: this is no IP address", c.ClientIP)
		}
	}
	helo := c.Helo
	if !known(helo) {
		helo = ""
	}
	for _, s := range append([]string{helo, *c.From}, c.Rcpt...) {
		if strings.ContainsFunc(s, func(r rune) bool { return r < ' ' || r == 0x7f }) {
			return "", fmt.Errorf("%q has a control character", s)
		}
	}
	if !addr.IsValid() && helo == "" {
		return "", nil
	}
	return smtp.RelayCommand(addr, helo), nil
}

// send takes the mail through a transaction.
func (c *deliverCommand) send(p *program, d *delivery, settings *config.Config, mail io.Reader, size int64) error {
	from := strings.TrimSuffix(strings.TrimPrefix(*c.From, "<"), ">")
	if strings.EqualFold(from, "MAILER-DAEMON") { // pipe(8), null_sender
		from = ""
	}
	line := fmt.Sprintf("MAIL FROM:<%s> SIZE=%d", from, size)
	if !isASCII(from + strings.Join(c.Rcpt, "")) {
		line += " SMTPUTF8"
	}
	r, err := d.ask(line)
	if err != nil {
		return err
	}
	var worst answer
	if worst.worsen(r); r.code >= 400 {
		return c.end(p, d, "<"+from+">", r, worst)
	}
	var taken []string
	for _, to := range c.Rcpt {
		to = strings.TrimSuffix(strings.TrimPrefix(to, "<"), ">")
		if !strings.Contains(to, "@") && !strings.EqualFold(to, "postmaster") {
			to += "@" + settings.Users.Domain
		}
		if r, err = d.ask("RCPT TO:<" + to + ">"); err != nil {
			return err
		}
		if worst.worsen(r); r.code < 400 {
			taken = append(taken, to)
			continue
		}
		r.print(p.stderr, to)
	}
	if len(taken) == 0 {
		return c.end(p, d, "", answer{}, worst)
	}
	if r, err = d.ask("DATA"); err != nil {
		return err
	}
	if r.code != 354 {
		worst.worsen(r)
		return c.end(p, d, strings.Join(taken, " "), r, worst)
	}
	if err := d.data(mail); err != nil {
		return err
	}
	for _, to := range taken {
		if r, err = d.reply(); err != nil {
			return err
		}
		if worst.worsen(r); r.code >= 400 {
			r.print(p.stderr, to)
		}
	}
	return c.end(p, d, "", answer{}, worst)
}

// end says goodbye and returns how the program ends. about is whom a last answer is about that was not shown yet.
func (c *deliverCommand) end(p *program, d *delivery, about string, r, worst answer) error {
	if about != "" {
		r.print(p.stderr, about)
	}
	_, _ = d.ask("QUIT") // all is said
	if code := worst.exit(); code != 0 {
		return &exit{code, errSilent}
	}
	return nil
}

// An answer is one of the server's.
type answer struct {
	code int
	text string // with its enhanced status code
}

// worsen keeps the worse of two answers: one for now before one for good, for the mail must come again; else the first.
func (a *answer) worsen(b answer) {
	rank := func(x answer) int {
		switch {
		case x.code < 400:
			return 0
		case x.code >= 500:
			return 1
		}
		return 2
	}
	if rank(b) > rank(*a) {
		*a = b
	}
}

func (a answer) exit() int {
	enhanced, _, _ := strings.Cut(a.text, " ")
	switch {
	case a.code < 400:
		return 0
	case a.code < 500:
		return exTempFail
	case strings.HasPrefix(enhanced, "5.1.") && enhanced != "5.1.7":
		return exNoUser
	case strings.HasPrefix(enhanced, "5.6."), enhanced == "5.3.4", enhanced == "5.1.7", enhanced == "5.4.6":
		return exDataErr
	case strings.HasPrefix(enhanced, "5.7."):
		return exNoPerm
	}
	return exUnavailable
}

// print shows an answer so that Postfix finds its enhanced status code where pipe(8) looks for it.
func (a answer) print(w io.Writer, about string) {
	enhanced, text, _ := strings.Cut(a.text, " ")
	text = strings.TrimPrefix(text, "<"+about+"> ") // as LMTP begins the answers after DATA
	fmt.Fprintf(w, "%s %s: %s\n", enhanced, config.Printable(about), config.Printable(text))
}

// deliverTimeout bounds one answer of the server: longer than what all its stages and its store may take.
const deliverTimeout = 10 * time.Minute

// A delivery is a conversation with the server.
type delivery struct {
	conn net.Conn
	r    *textproto.Reader
	stop func() bool
	size int64 // the largest message it takes; 0: any
}

// deliverSocket is where the server listens for deliver.
func deliverSocket(data string) string { return filepath.Join(data, "run", "deliver.sock") }

func dialDeliver(ctx context.Context, settings *config.Config) (*delivery, error) {
	path := deliverSocket(settings.Data)
	conn, err := (&net.Dialer{Timeout: 30 * time.Second}).DialContext(ctx, "unix", path)
	if err != nil {
		var op *net.OpError
		if errors.As(err, &op) {
			err = op.Err // which is about what is said below
		}
		return nil, fmt.Errorf("no server answers at %s: %w", path, err)
	}
	d := &delivery{conn: conn, r: textproto.NewReader(bufio.NewReader(conn))}
	d.stop = context.AfterFunc(ctx, func() { _ = conn.Close() }) // told to end: the mail stays where it was
	if r, err := d.reply(); err != nil || r.code != 220 {
		d.close()
		return nil, cmp.Or(err, fmt.Errorf("the server says %d %s", r.code, r.text))
	}
	r, err := d.ask("LHLO localhost")
	if err != nil || r.code != 250 {
		d.close()
		return nil, cmp.Or(err, fmt.Errorf("the server says %d %s", r.code, r.text))
	}
	for line := range strings.Lines(r.text) {
		if number, ok := strings.CutPrefix(strings.TrimSpace(line), "SIZE "); ok {
			d.size, _ = strconv.ParseInt(number, 10, 64) // 0 is any
		}
	}
	return d, nil
}

func (d *delivery) close() {
	d.stop()
	_ = d.conn.Close()
}

// ask sends a command and returns the answer.
func (d *delivery) ask(line string) (answer, error) {
	if err := d.conn.SetDeadline(time.Now().Add(deliverTimeout)); err != nil {
		return answer{}, err
	}
	if _, err := io.WriteString(d.conn, line+"\r\n"); err != nil {
		return answer{}, fmt.Errorf("talk to the server: %w", err)
	}
	return d.reply()
}

func (d *delivery) reply() (answer, error) {
	if err := d.conn.SetDeadline(time.Now().Add(deliverTimeout)); err != nil {
		return answer{}, err
	}
	code, text, err := d.r.ReadResponse(0)
	if err != nil {
		return answer{}, fmt.Errorf("hear the server: %w", err)
	}
	return answer{code, text}, nil
}

// data sends the mail. Every line gets the end that it has on the wire.
func (d *delivery) data(mail io.Reader) error {
	if err := d.conn.SetDeadline(time.Now().Add(deliverTimeout)); err != nil {
		return err
	}
	w := textproto.NewWriter(bufio.NewWriter(d.conn)).DotWriter()
	if _, err := io.Copy(w, mail); err != nil {
		return fmt.Errorf("send the mail: %w", err) // without its end, so the server does not take it
	}
	if err := w.Close(); err != nil {
		return fmt.Errorf("send the mail: %w", err)
	}
	return nil
}

// A mailFile is a mail that was read to its end.
type mailFile struct {
	io.Reader
	io.Closer
}

// readMail reads a mail to its end, without the line "From …" that mbox puts before it, and returns its size on the wire.
func readMail(in io.Reader, most int64) (mailFile, int64, error) {
	r := bufio.NewReader(in)
	if begin, _ := r.Peek(5); string(begin) == "From " {
		for {
			_, err := r.ReadSlice('\n')
			if err == nil || errors.Is(err, io.EOF) {
				break
			}
			if !errors.Is(err, bufio.ErrBufferFull) {
				return mailFile{}, 0, fmt.Errorf("read the mail: %w", err)
			}
		}
	}
	if most <= 0 {
		most = -1
	}
	wire := &wireSize{r: r}
	s, err := spool.Receive(wire, spool.Options{Max: most})
	switch {
	case errors.Is(err, spool.ErrTooLarge):
		return mailFile{}, 0, &exit{exDataErr, fmt.Errorf("the mail has more than %d octets", most)}
	case err != nil:
		return mailFile{}, 0, fmt.Errorf("read the mail: %w", err)
	case s.Size() == 0:
		_ = s.Close()
		return mailFile{}, 0, &exit{exDataErr, errors.New("there is no mail on standard input")}
	}
	return mailFile{io.NewSectionReader(s, 0, s.Size()), s}, wire.size, nil
}

// wireSize counts the octets of a mail as they will be on the wire, where lines end with CRLF (RFC 1870, 4).
type wireSize struct {
	r    io.Reader
	size int64
	last byte
}

func (w *wireSize) Read(p []byte) (int, error) {
	n, err := w.r.Read(p)
	for _, b := range p[:n] {
		if w.size++; b == '\n' && w.last != '\r' {
			w.size++
		}
		w.last = b
	}
	return n, err
}

func isASCII(s string) bool {
	return !strings.ContainsFunc(s, func(r rune) bool { return r >= 0x80 })
}
