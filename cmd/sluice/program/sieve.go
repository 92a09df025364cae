package program

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"sluice/cmd/sluice/program/config"
	"sluice/mailstore"
	"sluice/pipeline/mime"
	"sluice/rules/sieve"
)

type sieveCommands struct {
	Check sieveCheckCommand `cmd:"" help:"Check Sieve scripts, and say everything that is wrong with them."`
	Test  sieveTestCommand  `cmd:"" help:"Run a Sieve script over a mail, and say line by line what would happen. Nothing does."`
}

// sieveVersion is the version of what sieve check --json and sieve test --json print.
const sieveVersion = 1

type sieveCheckCommand struct {
	Files    []string `arg:"" name:"file" help:"The scripts; - reads one from standard input."`
	JSON     bool     `help:"Print JSON."`
	Includes string   `placeholder:"DIR" help:"Where scripts that are included are. Default: beside the script."`
}

// A sieveResult is what --json prints of both commands.
type sieveResult struct {
	Version  int             `json:"version"`
	OK       bool            `json:"ok"` // no errors, and no failure
	Errors   []sieve.Problem `json:"errors"`
	Warnings []sieve.Problem `json:"warnings"`
}

func (r *sieveResult) add(problems []sieve.Problem) {
	for _, p := range problems {
		if p.Warning {
			r.Warnings = append(r.Warnings, p)
		} else {
			r.Errors = append(r.Errors, p)
		}
	}
	r.OK = len(r.Errors) == 0
}

func newSieveResult() sieveResult {
	return sieveResult{Version: sieveVersion, OK: true, Errors: []sieve.Problem{}, Warnings: []sieve.Problem{}}
}

// print says what is wrong, each with the line it is in.
func (r *sieveResult) print(w io.Writer) error {
	for _, list := range [][]sieve.Problem{r.Errors, r.Warnings} {
		for _, p := range list {
			if _, err := fmt.Fprintln(w, config.Printable(p.Error())); err != nil {
				return err
			}
			if at := p.Excerpt(); at != "" {
				fmt.Fprintln(w, at)
			}
		}
	}
	if n := len(r.Errors); n > 0 {
		fmt.Fprintf(w, "%d %s\n", n, plural(n, "error", "errors"))
	}
	return nil
}

// largestScript is what is read of a file that is said to be a script; the limit on scripts is smaller.
const largestScript = 16 << 20

func (c *sieveCheckCommand) Run(p *program) error {
	result := newSieveResult()
	for _, file := range c.Files {
		_, problems, err := compileFile(p, file, c.Includes)
		if err != nil {
			return err
		}
		result.add(problems)
	}
	if c.JSON {
		if err := printJSON(p, result); err != nil {
			return err
		}
	} else if err := result.print(p.stderr); err != nil {
		return err
	}
	if !result.OK {
		return errSilent
	}
	if !c.JSON {
		for _, file := range c.Files {
			fmt.Fprintf(p.stdout, "%s is right\n", config.Printable(scriptName(file)))
		}
	}
	return nil
}

// compileFile compiles a script from a file, with every extension. Which programs a site lists is not known.
func compileFile(p *program, file, includes string) (*sieve.Script, []sieve.Problem, error) {
	text, err := readUpTo(p, file, largestScript)
	if err != nil {
		return nil, nil, err
	}
	if includes == "" && file != "-" {
		includes = filepath.Dir(file)
	}
	script, problems := sieve.Compile(scriptName(file), text, sieve.Options{
		Include: includeFrom(includes), Programs: &sieve.Programs{Unknown: true},
	})
	return script, problems, nil
}

// scriptName is what messages call a script.
func scriptName(file string) string {
	if file == "-" {
		return "standard input"
	}
	return file
}

// includeFrom finds scripts in a folder, as they are named or with .sieve behind; those of the site in its folder global.
func includeFrom(dir string) func(global bool, name string) ([]byte, error) {
	return func(global bool, name string) ([]byte, error) {
		if dir == "" {
			return nil, errors.New("a script on standard input has no others beside it; say --includes")
		}
		from := dir
		if global {
			from = filepath.Join(dir, "global")
		}
		root, err := os.OpenRoot(from)
		if errors.Is(err, fs.ErrNotExist) {
			return nil, fmt.Errorf("there is no folder %s", from)
		}
		if err != nil {
			return nil, err
		}
		defer root.Close()
		for _, file := range []string{name + ".sieve", name} {
			f, err := root.Open(file)
			if errors.Is(err, fs.ErrNotExist) {
				continue
			}
			if err != nil {
				return nil, err
			}
			defer f.Close()
			return io.ReadAll(io.LimitReader(f, largestScript))
		}
		return nil, fmt.Errorf("there is no %s.sieve in %s", name, from)
	}
}

// readUpTo reads a file, or standard input for "-", and refuses one that is larger.
func readUpTo(p *program, file string, most int64) ([]byte, error) {
	in, name := p.stdin, "standard input"
	if file != "-" {
		f, err := os.Open(file)
		if errors.Is(err, fs.ErrNotExist) {
			return nil, fmt.Errorf("%s: there is no such file", file)
		}
		if err != nil {
			return nil, err
		}
		defer f.Close()
		in, name = f, file
	}
	b, err := io.ReadAll(io.LimitReader(in, most+1))
	if err != nil {
		return nil, fmt.Errorf("read %s: %w", name, cause(err))
	}
	if int64(len(b)) > most {
		return nil, fmt.Errorf("%s has more than %d octets", name, most)
	}
	return b, nil
}

type sieveTestCommand struct {
	File     string   `arg:"" help:"The script; - reads it from standard input."`
	Mail     string   `arg:"" help:"The mail; - reads it from standard input."`
	From     *string  `placeholder:"ADDRESS" help:"The sender in the envelope; empty for the null sender. Default: the mail's own From."`
	To       string   `placeholder:"ADDRESS" help:"The recipient in the envelope. Default: the first of the mail's own To."`
	JSON     bool     `help:"Print JSON."`
	Includes string   `placeholder:"DIR" help:"Where scripts that are included are. Default: beside the script."`
	Mailbox  []string `sep:"none" placeholder:"FOLDER" help:"A folder that there is besides INBOX; may be repeated."`
	Spam     *int     `placeholder:"PERCENT" help:"What spamtest sees, 0 to 100. Default: a number in X-Spam-Score, ten times as much."`
	Virus    int      `placeholder:"1-5" help:"What virustest sees. Default: not tested."`
}

// largestTestMail is the largest mail that a script is tried on.
const largestTestMail = 128 << 20

// A sieveTestResult is what sieve test --json prints.
type sieveTestResult struct {
	sieveResult
	Actions []sieveAction  `json:"actions"` // in order
	Failure *sieve.Failure `json:"failure,omitempty"`
	Notes   []sieve.Line   `json:"notes,omitempty"` // what was asked for and is not done
	Log     []sieve.Line   `json:"log,omitempty"`   // of debug_log
	Trace   []sieve.Line   `json:"trace"`
}

func (c *sieveTestCommand) Run(p *program) error {
	if c.File == "-" && c.Mail == "-" {
		return errors.New("standard input is either the script or the mail")
	}
	if c.Virus < 0 || c.Virus > 5 || c.Spam != nil && (*c.Spam < 0 || *c.Spam > 100) {
		return errors.New("--virus is 1 to 5, and --spam is 0 to 100")
	}
	script, problems, err := compileFile(p, c.File, c.Includes)
	if err != nil {
		return err
	}
	result := sieveTestResult{sieveResult: newSieveResult(), Actions: []sieveAction{}, Trace: []sieve.Line{}}
	result.add(problems)
	if script != nil {
		in, err := c.input(p)
		if err != nil {
			return err
		}
		out := script.Run(p.ctx, in)
		for _, a := range out.Actions {
			result.Actions = append(result.Actions, newSieveAction(a))
		}
		result.Failure, result.Notes, result.Log, result.Trace = out.Failure, out.Notes, out.Log, append(result.Trace, out.Trace...)
		result.OK = out.Failure == nil
	}
	if c.JSON {
		err = printJSON(p, result)
	} else {
		err = result.print(p)
	}
	if err == nil && !result.OK {
		return errSilent
	}
	return err
}

// input is what the script is told of the world.
func (c *sieveTestCommand) input(p *program) (sieve.Input, error) {
	b, err := readUpTo(p, c.Mail, largestTestMail)
	if err != nil {
		return sieve.Input{}, err
	}
	m, err := mime.Parse(strings.NewReader(string(b)), int64(len(b)), mime.Limits{})
	if err != nil {
		return sieve.Input{}, fmt.Errorf("%s: %w", c.Mail, err)
	}
	host := machine()
	_, domain, _ := strings.Cut(host, ".")
	in := sieve.Input{
		Message: m, Now: p.now(), Trace: true, Mailboxes: trialMailboxes(c.Mailbox),
		Environment: map[string]string{
			"domain": domain, "host": host, "location": "MDA", "name": "Sluice", "phase": "during", "version": version(),
		},
	}
	in.Envelope.To, err = enveloped("--to", c.To)
	if c.From != nil {
		var wrong error
		in.Envelope.From, wrong = enveloped("--from", *c.From)
		err = errors.Join(wrong, err)
	} else if from := m.From(); len(from) > 0 {
		in.Envelope.From = from[0].Raw
	}
	if err != nil {
		return sieve.Input{}, err
	}
	if in.Envelope.To == "" {
		f, _ := m.Header().First("To")
		if to := f.Addresses(); len(to) > 0 {
			in.Envelope.To = to[0].Raw
		}
	}
	if in.Envelope.To != "" {
		in.Account = withoutDetail(in.Envelope.To)
		in.Own = []string{in.Account, in.Envelope.To}
		in.Environment["vnd.dovecot.username"], in.Environment["vnd.dovecot.default-mailbox"] = in.Account, "INBOX"
	}
	in.Spam = spamScore(m, c.Spam)
	if c.Virus > 0 {
		in.Virus = sieve.Score{Known: true, Value: c.Virus}
	}
	return in, nil
}

// withoutDetail is whose mail an address is: that without the subaddress.
func withoutDetail(address string) string {
	at := strings.LastIndexByte(address, '@')
	if plus := strings.IndexByte(address, '+'); plus > 0 && plus < at {
		return address[:plus] + address[at:]
	}
	return address
}

// enveloped is an address as an envelope has it, which may be written with its angle brackets.
func enveloped(flag, s string) (string, error) {
	if inside, ok := strings.CutPrefix(s, "<"); ok && strings.HasSuffix(inside, ">") {
		s = strings.TrimSuffix(inside, ">")
	}
	if _, err := mime.ParseAddress(s); err != nil {
		return "", fmt.Errorf("%s: %q is no mail address; write NAME@DOMAIN", flag, s)
	}
	return s, nil
}

// spamScore is what spamtest sees: a percentage, or what a filter has written into the mail.
func spamScore(m *mime.Message, percent *int) sieve.Score {
	if percent == nil {
		f, ok := m.Header().First("X-Spam-Score")
		words := strings.Fields(f.Value())
		if !ok || len(words) == 0 {
			return sieve.Score{}
		}
		score, err := strconv.ParseFloat(words[0], 64)
		if err != nil || math.IsNaN(score) {
			return sieve.Score{}
		}
		n := int(max(0, min(score*10, 100)))
		percent = &n
	}
	// RFC 5235, 2.1: 1 is certainly none, 10 certainly spam.
	return sieve.Score{Known: true, Percent: *percent, Value: 1 + *percent*9/100}
}

// trialMailboxes are the folders that sieve test was told of.
type trialMailboxes []string

// Exists implements sieve.Mailboxes.
func (t trialMailboxes) Exists(name string) bool {
	return slices.Contains(t, name) || strings.EqualFold(name, "INBOX")
}

// ByID implements sieve.Mailboxes: nothing has an identity here.
func (trialMailboxes) ByID(string) (string, bool) { return "", false }

// BySpecialUse implements sieve.Mailboxes: folders have the uses that their names say.
func (t trialMailboxes) BySpecialUse(use string) (string, bool) {
	i := slices.IndexFunc(t, func(name string) bool { return use != "" && strings.EqualFold(mailstore.UseByName(name), use) })
	if i < 0 {
		return "", false
	}
	return t[i], true
}

// Metadata implements sieve.Mailboxes.
func (trialMailboxes) Metadata(string, string) (string, bool) { return "", false }
