// Package program is the whole of Sluice: the command line, the configuration, and everything wired together. It is the
// only place that knows everything. A site with stages of its own builds its own program:
//
//	func main() {
//		program.Main(append(program.Stages(), mine.Kind())...)
//	}
package program

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"time"

	"github.com/alecthomas/kong"

	"sluice/cmd/sluice/program/config"
	"sluice/pipeline"
)

// commands is the command line.
type commands struct {
	Config string `short:"c" placeholder:"FILE" help:"Read this configuration. Without it none is read."`
	Data   string `placeholder:"DIR" help:"Keep everything in this folder, whatever the configuration says."`

	Serve      serveCommand      `cmd:"" help:"Receive, decide, file and serve mail."`
	Reload     reloadCommand     `cmd:"" help:"Have the running serve read its configuration again; nothing is dropped."`
	Check      checkCommand      `cmd:"" help:"Check the configuration; with a mail, say what would be decided about it."`
	Deliver    deliverCommand    `cmd:"" help:"Hand a mail on standard input to the running server."`
	Explain    explainCommand    `cmd:"" help:"Say what was decided about a mail, and why."`
	Replay     replayCommand     `cmd:"" help:"Decide about recorded mail again, without network, and say what would be otherwise."`
	Journal    journalCommands   `cmd:"" help:"Look after the records of decisions."`
	Refile     refileCommands    `cmd:"" help:"Sort the mail that is there already by rules, and take that back."`
	Undo       undoCommand       `cmd:"" help:"Put back what a run of refile has moved."`
	Shadow     shadowCommands    `cmd:"" help:"Say what shadow steps and shadow rules would have done."`
	Backtest   backtestCommand   `cmd:"" help:"Say what other rules would have done with mail that came, and what users made of that mail."`
	User       userCommands      `cmd:"" help:"Manage accounts."`
	Alias      aliasCommands     `cmd:"" help:"Say where aliases lead."`
	Sieve      sieveCommands     `cmd:"" help:"Check Sieve scripts, and see what they would do with a mail."`
	Quarantine quarantineCommand `cmd:"" help:"Look at held mail, release or delete it."`
	DKIM       dkimCommands      `cmd:"" name:"dkim" help:"Make and look after the keys that sign what leaves."`
	Queue      queueCommands     `cmd:"" help:"Look at mail that is to leave: try it again, hold, release or delete it."`
	DMARC      dmarcCommands     `cmd:"" name:"dmarc" help:"Report to domains what became of mail in their name."`
	Reference  referenceCommand  `cmd:"" help:"Print every setting with its default, a JSON Schema, or what rules can name."`
	Version    versionCommand    `cmd:"" help:"Print the version."`
}

// A program is one run of one command.
type program struct {
	ctx    context.Context
	stdin  io.Reader
	stdout io.Writer
	stderr io.Writer
	kinds  []pipeline.Kind
	now    func() time.Time

	configFile string // -c
	dataFolder string // --data
}

// Main runs the command line and ends the process: 0 for success, 1 for an error, 2 for a command line that is none;
// deliver has codes of its own.
// kinds are the kinds of stages that a configuration may use.
func Main(kinds ...pipeline.Kind) { mainAt(time.Now, kinds) }

// mainAt is Main with a clock.
func mainAt(now func() time.Time, kinds []pipeline.Kind) {
	// A thread that waits for the disk keeps its processor for a while, and most of a mail's time goes there. With three to
	// two processors others go on meanwhile: a tenth more mail by LMTP at the same cost. Twice as many gain little more,
	// and an MTA on the same machine that waits for our milter would have to wait for its turn.
	if n := runtime.GOMAXPROCS(0); os.Getenv("GOMAXPROCS") == "" {
		runtime.GOMAXPROCS(n + n/2)
	}
	// What lives in memory is small, and the garbage of a few hundred mails as large as it: it would be collected many
	// times a second, at a fifth of a mail's cost. This is never touched, so that it takes no memory, but counted.
	ballast := make([]byte, 16<<20)
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	// A second signal is not ours to catch: it ends the process at once.
	context.AfterFunc(ctx, stop)
	p := &program{ctx: ctx, stdin: os.Stdin, stdout: os.Stdout, stderr: os.Stderr, kinds: kinds, now: now}
	code := p.run(os.Args[1:])
	runtime.KeepAlive(ballast)
	os.Exit(code)
}

func (p *program) run(args []string) int {
	var c commands
	parser, err := kong.New(&c,
		kong.Name("sluice"),
		kong.Description("A filtering mail delivery agent: SMTP, LMTP and milter in, IMAP and POP3 out, "+
			"and a record of every decision."),
		kong.Writers(p.stdout, p.stderr),
		kong.ConfigureHelp(kong.HelpOptions{Compact: true, WrapUpperBound: 100}),
	)
	if err != nil {
		return p.fail(err)
	}
	chosen, err := parser.Parse(args)
	if err != nil {
		fmt.Fprintf(p.stderr, "sluice: %v; sluice --help says what there is\n", err)
		return usageExit(err)
	}
	p.configFile, p.dataFolder = c.Config, c.Data
	if err := chosen.Run(p); err != nil {
		return p.fail(err)
	}
	return 0
}

// errSilent ends the program with 1 after everything was said.
var errSilent = errors.New("failed")

func (p *program) fail(err error) int {
	var problems config.Problems
	switch {
	case errors.Is(err, errSilent):
	case errors.As(err, &problems):
		// Each says where it is, and there may be many.
		fmt.Fprintln(p.stderr, problems)
	default:
		for line := range strings.Lines(err.Error()) {
			fmt.Fprintf(p.stderr, "sluice: %s\n", config.Printable(strings.TrimSuffix(line, "\n")))
		}
	}
	var e *exit
	if errors.As(err, &e) {
		return e.code
	}
	return 1
}

// settings reads the configuration, if one was named, and lets the flags win.
func (p *program) settings() (*config.Config, error) {
	c, wrong, err := p.read()
	switch {
	case err != nil:
		return nil, err
	case len(wrong) == 0:
		return c, nil
	case c != nil: // so that nobody has to mend one mistake to be told of the next
		wrong = append(wrong, p.examine(c).wrong...)
	}
	return nil, wrong.Sorted()
}

// read reads the configuration as far as it can be read, and says what is wrong with it; it is nil where nothing can be.
func (p *program) read() (c *config.Config, wrong config.Problems, err error) {
	if p.configFile == "" {
		c, err = config.Parse("", "", p.kinds)
	} else {
		c, err = config.Load(p.configFile, p.kinds)
	}
	wrong = config.AsProblems(p.configFile, err)
	if c == nil {
		return nil, wrong, nil
	}
	if !c.HasPipeline() {
		d, err := config.Parse(defaultName, defaultText(), p.kinds)
		if err != nil {
			return nil, nil, fmt.Errorf("the default pipeline does not suit this program: %w", err)
		}
		c.TakePipeline(d)
	}
	if p.dataFolder != "" {
		c.Data = p.dataFolder
	} else {
		c.Data = c.Path(c.Data)
	}
	if c.Data, err = filepath.Abs(c.Data); err != nil {
		return nil, nil, fmt.Errorf("find the data folder: %w", err)
	}
	if c.Hostname == "" {
		c.Hostname = machine()
	}
	return c, append(wrong, config.AsProblems(p.configFile, c.ReadAliases())...), nil
}

// machine returns the name of this machine, "localhost" where it has none that a greeting could use.
func machine() string {
	name, err := os.Hostname()
	if err != nil || !config.IsHostname(name) {
		return "localhost"
	}
	return name
}
