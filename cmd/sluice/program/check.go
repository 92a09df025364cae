package program

import (
	"bytes"
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/mail"
	"net/netip"
	"os"
	"slices"
	"strings"
	"time"

	"sluice/cmd/sluice/program/config"
	"sluice/pipeline"
	"sluice/pipeline/mime"
)

type checkCommand struct {
	JSON     bool     `help:"Print JSON."`
	Mail     string   `arg:"" optional:"" help:"A mail to decide about; - reads it from standard input."`
	From     *string  `placeholder:"ADDRESS" help:"The sender. Default: the mail's own From."`
	To       []string `placeholder:"ADDRESS" sep:"none" help:"A recipient; may be repeated. Default: the mail's own To and Cc."`
	Client   string   `placeholder:"IP" help:"The client's address. Default: unknown."`
	Helo     string   `placeholder:"NAME" help:"What the client greets with."`
	Outgoing string   `placeholder:"ACCOUNT" help:"Decide as about mail that this account sends: by the steps of outgoing:."`
	// Effective is asked for a recipient who need not exist: overrides may be written first.
	Effective string `placeholder:"ADDRESS" help:"Print what the rules are for a recipient, with all overrides, how much an account may send, and where each line comes from."`

	Mutate    bool          `help:"Change the rules, one place at a time, and list the changes that no test in the rule files notices."`
	MutateFor time.Duration `placeholder:"TIME" default:"1m" help:"How long --mutate may take."`
}

// checkVersion is the version of what check --json prints.
const checkVersion = 2

type checkResult struct {
	Version  int             `json:"version"`
	File     string          `json:"file,omitempty"`
	OK       bool            `json:"ok"`
	Errors   config.Problems `json:"errors"`
	Warnings config.Problems `json:"warnings"`
	Plan     string          `json:"plan,omitempty"`
	// OutgoingPlan is the version of the plan for mail of our own users, where there are steps for it.
	OutgoingPlan string           `json:"outgoing_plan,omitempty"`
	Record       *pipeline.Record `json:"record,omitempty"`
	// Effective are the steps with rules, as they are for one recipient.
	Effective []effectiveStep `json:"effective,omitempty"`
	// Sending are the limits of what that one may send, where some have others than all.
	Sending []effectiveLimit `json:"sending,omitempty"`
	Mutants *mutantsResult   `json:"mutants,omitempty"`
}

func (c *checkCommand) Run(p *program) error {
	result := checkResult{Version: checkVersion, File: p.configFile, Errors: config.Problems{}, Warnings: config.Problems{}}
	settings, err := p.settings()
	if err == nil {
		found := p.examine(settings)
		err, result.Warnings = found.error(), slices.Concat(result.Warnings, found.warnings, found.missing)
		if found.in != nil {
			result.Plan = found.in.Version()
			if len(settings.Outgoing) > 0 {
				result.OutgoingPlan = found.out.Version()
			}
		}
		if err == nil && c.Effective != "" {
			var err error
			if result.Effective, err = effectiveSteps(settings, found.in, c.Effective); err != nil {
				return err
			}
			result.Sending = effectiveLimits(settings, c.Effective)
		}
	}
	if err != nil {
		result.Errors = config.AsProblems(cmp.Or(p.configFile, "sluice"), err)
	} else if c.Mutate {
		if result.Mutants, err = c.mutate(p, settings); err != nil {
			return err
		}
	} else if c.Mail != "" {
		if result.Record, err = c.decide(p, settings); err != nil {
			return err
		}
	}
	result.OK = len(result.Errors) == 0
	if err := c.print(p, settings, result); err != nil {
		return err
	}
	if !result.OK {
		return errSilent
	}
	return nil
}

func (c *checkCommand) print(p *program, settings *config.Config, r checkResult) error {
	if c.JSON {
		e := json.NewEncoder(p.stdout)
		e.SetIndent("", "  ")
		return e.Encode(r)
	}
	for _, x := range r.Errors {
		fmt.Fprintln(p.stderr, x)
	}
	for _, w := range r.Warnings {
		fmt.Fprintf(p.stderr, "warning: %s\n", w)
	}
	if !r.OK {
		n := len(r.Errors)
		fmt.Fprintf(p.stderr, "%d %s\n", n, plural(n, "error", "errors"))
		return nil
	}
	t := text{w: p.stdout, hypothetical: true}
	if c.Effective != "" {
		t.effective(c.Effective, r.Effective)
		t.effectiveLimits(r.Sending)
		if r.Record == nil {
			return t.err
		}
	}
	if r.Mutants != nil {
		r.Mutants.print(&t)
		return t.err
	}
	if r.Record == nil {
		steps := fmt.Sprintf("%d %s", len(settings.Pipeline), plural(len(settings.Pipeline), "step", "steps"))
		if n := len(settings.Outgoing); n > 0 {
			steps += fmt.Sprintf(", %d for outgoing mail", n)
		}
		t.line(0, "%s is right: %s", cmp.Or(p.configFile, "the built-in configuration"), steps)
		return t.err
	}
	t.line(0, "what would be decided")
	t.record(r.Record, nil)
	return t.err
}

func plural(n int, one, more string) string {
	if n == 1 {
		return one
	}
	return more
}

// decide takes the mail through the plan without asking or changing anything outside. A question that would have to be
// put to the network has no answer here, and what on_error says about that is about bad days, not about this mail: so
// all steps skip.
func (c *checkCommand) decide(p *program, settings *config.Config) (*pipeline.Record, error) {
	steps, door, making := slices.Clone(settings.Pipeline), pipeline.SMTP, plan
	if c.Outgoing != "" {
		steps, door, making = slices.Clone(settings.Outgoing), pipeline.Submission, listPlan
	}
	skip := pipeline.Skip
	for i := range steps {
		steps[i].OnError = &skip
	}
	var last lastRecord
	plan, _, err := making(settings, steps, offlineEnv(settings.Hostname, p.now, &last))
	if err != nil {
		return nil, err
	}
	mail, err := c.read(p, settings)
	if err != nil {
		return nil, err
	}
	client, err := c.client(settings)
	if err != nil {
		return nil, err
	}
	from, to, err := c.envelope(mail)
	if err != nil {
		return nil, err
	}
	client.Login = normalAddress(c.Outgoing)
	session := plan.NewSession(door, client)
	defer session.Close()
	refuse := func(r *pipeline.Reply) bool {
		if r != nil {
			session.Reset("refused before the message")
		}
		return r != nil
	}
	if refuse(session.Connect(p.ctx)) || refuse(session.Helo(p.ctx, c.Helo)) {
		return last.record, nil
	}
	if _, r := session.Mail(p.ctx, from); refuse(r) {
		return last.record, nil
	}
	taken := 0
	for _, a := range to {
		to := pipeline.Recipient{Address: a}
		if c.Outgoing == "" {
			to.Account = a.Local + "@" + a.Domain
		}
		if session.Rcpt(p.ctx, to) == nil {
			taken++
		}
	}
	if taken == 0 {
		session.Reset("no recipient was taken")
		return last.record, nil
	}
	if refuse(session.Data(p.ctx)) {
		return last.record, nil
	}
	settled := door.Settle(session.Content(p.ctx, mail), false)
	deliveries := make([]pipeline.Delivery, len(settled.Dispositions))
	for i, d := range settled.Dispositions {
		deliveries[i] = pipeline.Delivery{Disposition: d, Reply: settled.Replies[i]}
	}
	if err := session.Done(p.ctx, settled.Reply, deliveries); err != nil {
		return nil, err
	}
	return last.record, nil
}

func (c *checkCommand) read(p *program, settings *config.Config) (*mime.Message, error) {
	in := p.stdin
	if c.Mail != "-" {
		f, err := os.Open(c.Mail)
		if err != nil {
			return nil, fmt.Errorf("read %s: %w", c.Mail, cause(err))
		}
		defer f.Close()
		in = f
	}
	most := int64(settings.Limits.MessageSize)
	content, err := io.ReadAll(io.LimitReader(in, most+1))
	if err != nil {
		return nil, fmt.Errorf("read %s: %w", c.Mail, cause(err))
	}
	if int64(len(content)) > most {
		return nil, fmt.Errorf("%s is larger than limits.message_size, %d octets", c.Mail, most)
	}
	if len(bytes.TrimSpace(content)) == 0 {
		return nil, fmt.Errorf("%s is empty", c.Mail)
	}
	content = crlf(content)
	m, err := mime.Parse(bytes.NewReader(content), int64(len(content)), settings.Limits.MIME())
	if err != nil {
		return nil, fmt.Errorf("read %s: %w", c.Mail, err)
	}
	return m, nil
}

// crlf gives every line the end that it has on the wire.
func crlf(content []byte) []byte {
	content = bytes.ReplaceAll(content, []byte("\r\n"), []byte("\n"))
	return bytes.ReplaceAll(content, []byte("\n"), []byte("\r\n"))
}

func (c *checkCommand) client(settings *config.Config) (pipeline.Client, error) {
	if c.Client == "" {
		return pipeline.Client{}, nil
	}
	a, err := netip.ParseAddr(c.Client)
	if err != nil {
		return pipeline.Client{}, fmt.Errorf("--client %s: this is no IP address", c.Client)
	}
	a = a.Unmap()
	return pipeline.Client{Addr: a, Trusted: settings.Trusts(a), NameUnknown: errOffline.Error()}, nil
}

// envelope returns sender and recipients: those of the command line, else those that the mail names.
func (c *checkCommand) envelope(m *mime.Message) (from mime.Address, to []mime.Address, err error) {
	if c.From != nil {
		if from, err = mime.ParseAddress(strings.Trim(*c.From, "<>")); err != nil && *c.From != "" && *c.From != "<>" {
			return from, nil, fmt.Errorf("--from %s: %w", *c.From, err)
		}
	} else if authors := m.From(); len(authors) > 0 {
		from = authors[0]
	}
	for _, s := range c.To {
		a, err := mime.ParseAddress(strings.Trim(s, "<>"))
		if err != nil {
			return from, nil, fmt.Errorf("--to %s: %w", s, err)
		}
		to = append(to, a)
	}
	if len(c.To) > 0 {
		return from, to, nil
	}
	for _, name := range []string{"To", "Cc"} {
		for f := range m.Header().All(name) {
			list, err := mail.ParseAddressList(f.Value())
			if err != nil {
				continue // the sender's mistake; --to names recipients without it
			}
			for _, x := range list {
				if a, err := mime.ParseAddress(x.Address); err == nil {
					to = append(to, a)
				}
			}
		}
	}
	if len(to) == 0 {
		return from, nil, errors.New("the mail names no recipient; name one with --to ADDRESS")
	}
	return from, to, nil
}

// beyond says for each door of the configuration what it cannot do of what the plan asks for. The doors that open without
// `listen:` are for trying things out, all of them at once.
func beyond(c *config.Config, plan *pipeline.Plan) (all []pipeline.Warning) {
	if !c.HasListen() {
		return nil
	}
	both := len(c.Listen.LMTP) > 0 && len(c.Listen.Milter) > 0
	for _, door := range []pipeline.Door{pipeline.SMTP, pipeline.LMTP, pipeline.Milter} {
		said := map[string]bool{} // what every socket of the door says it says once
		for _, s := range *c.Listen.Door(string(door)) {
			for _, w := range plan.Beyond(door, s.Refuse, both) {
				if !said[w.String()] {
					said[w.String()] = true
					all = append(all, w)
				}
			}
		}
	}
	return all
}
