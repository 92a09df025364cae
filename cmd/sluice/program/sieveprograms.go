package program

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"io"
	"maps"
	"os"
	"slices"
	"strings"

	"sluice/cmd/sluice/program/config"
	"sluice/pipeline"
	"sluice/rules/sieve"
	"sluice/scanners/exec"
)

// A scripting is what scripts may use besides mail, and when they run besides at delivery, of one setup.
type scripting struct {
	config   config.Sieve
	hostname string
	slots    chan struct{}
	lists    map[string]scriptList
	events   []scriptEvent
	// annotations are those of the server, of all accounts, by name in lower case.
	annotations map[string]string
	// warnings are what an administrator should know of settings that are right.
	warnings config.Problems
}

// A scriptList is a list that scripts may ask.
type scriptList struct {
	values []string
	has    map[string]bool // values in lower case
}

// Bounds of a list.
const (
	mostListed = 100000 // values
	listedLine = 1000   // octets of one
)

// readScripting reads lists and compiles the scripts of IMAP events. Its error is config.Problems.
func readScripting(c *config.Config) (*scripting, error) {
	x := &scripting{config: c.Sieve, hostname: c.Hostname, slots: make(chan struct{}, max(c.Sieve.AtOnce, 1)), lists: map[string]scriptList{},
		annotations: c.Annotations}
	var wrong config.Problems
	for _, name := range slices.Sorted(maps.Keys(c.Sieve.Lists)) {
		list, err := readScriptList(c.Path(c.Sieve.Lists[name]))
		if err != nil {
			wrong = append(wrong, c.Where("sieve.lists."+name, err.Error()))
		}
		x.lists[name] = list
	}
	for _, name := range slices.Sorted(maps.Keys(c.Sieve.Programs)) {
		if p := c.Sieve.Programs[name]; len(p.Command) > 0 {
			if info, err := os.Stat(p.Command[0]); err != nil || info.IsDir() || info.Mode()&0o111 == 0 {
				// Whoever checks a configuration may do so where the program is not.
				x.warnings = append(x.warnings, c.Where("sieve.programs."+name+".command", fmt.Sprintf("there is no program %s", p.Command[0])))
			}
		}
	}
	for i, e := range c.Sieve.IMAP {
		if e.Own != "" {
			x.events = append(x.events, scriptEvent{SieveEvent: e})
			continue
		}
		if e.Script == "" {
			continue // that is said already
		}
		setting, path := fmt.Sprintf("sieve.imap[%d].script", i), c.Path(e.Script)
		text, err := readWhole(path)
		if err != nil {
			wrong = append(wrong, c.Where(setting, fmt.Sprintf("read %s: %v", path, err)))
			continue
		}
		script, problems := sieve.Compile(path, text, sieve.Options{Programs: x.Programs()})
		for _, p := range problems {
			if p.Warning {
				x.warnings = append(x.warnings, sieveProblem(p))
			} else {
				wrong = append(wrong, sieveProblem(p))
			}
		}
		x.events = append(x.events, scriptEvent{SieveEvent: e, script: script})
	}
	if len(wrong) > 0 {
		return nil, wrong
	}
	return x, nil
}

func readScriptList(path string) (list scriptList, err error) {
	text, err := readWhole(path)
	if err != nil {
		return list, fmt.Errorf("read %s: %w", path, err)
	}
	list.has = map[string]bool{}
	lines := bufio.NewScanner(bytes.NewReader(text))
	lines.Buffer(nil, listedLine)
	for lines.Scan() {
		value, _, _ := strings.Cut(lines.Text(), "#")
		if value = strings.TrimSpace(value); value == "" || list.has[strings.ToLower(value)] {
			continue
		}
		if len(list.values) == mostListed {
			return list, fmt.Errorf("%s has more than %d values", path, mostListed)
		}
		list.values = append(list.values, value)
		list.has[strings.ToLower(value)] = true
	}
	if err := lines.Err(); err != nil {
		return list, fmt.Errorf("read %s: a line has more than %d octets", path, listedLine)
	}
	return list, nil
}

// Known implements sieve.Lists.
func (x *scripting) Known(list string) bool {
	_, ok := x.lists[list]
	return ok
}

// Has implements sieve.Lists.
func (x *scripting) Has(list, value string) bool { return x.lists[list].has[strings.ToLower(value)] }

// Members implements sieve.Lists.
func (x *scripting) Members(list string) ([]string, bool) {
	l, ok := x.lists[list]
	return l.values, ok
}

// Programs names the programs that scripts may run, nil for none.
func (x *scripting) Programs() *sieve.Programs {
	if x == nil || len(x.config.Programs) == 0 {
		return nil
	}
	p := &sieve.Programs{}
	for _, name := range slices.Sorted(maps.Keys(x.config.Programs)) {
		for _, use := range x.config.Programs[name].Use {
			switch use {
			case "pipe":
				p.Pipe = append(p.Pipe, name)
			case "filter":
				p.Filter = append(p.Filter, name)
			case "execute":
				p.Execute = append(p.Execute, name)
			}
		}
	}
	return p
}

// Run implements sieve.Runner. The program gets nothing of our environment, and of the mail what Pigeonhole tells it: an
// address that there is none of, the null sender say, has no variable.
func (x *scripting) Run(ctx context.Context, p sieve.Program) ([]byte, error) {
	set, ok := x.config.Programs[p.Name]
	if !ok || !slices.Contains(set.Use, p.Use) {
		return nil, fmt.Errorf("there is no such program for %s", p.Use)
	}
	select {
	case x.slots <- struct{}{}:
		defer func() { <-x.slots }()
	case <-ctx.Done():
		return nil, fmt.Errorf("%d programs of scripts are running: %w", cap(x.slots), ctx.Err())
	}
	ctx, cancel := context.WithTimeoutCause(ctx, set.Timeout, fmt.Errorf("it took longer than %v", set.Timeout))
	defer cancel()
	if p.Input == nil {
		p.Input = strings.NewReader("")
	}
	c := exec.Command{
		Args: slices.Concat(set.Command, p.Arguments), Dir: set.Dir, MaxOutput: int(set.Output),
		Env: []string{"PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "LANG=C.UTF-8", "HOME=" + set.Dir},
	}
	for _, v := range [][2]string{
		{"HOST", x.hostname}, {"USER", p.Account}, {"SENDER", p.Envelope.From}, {"RECIPIENT", p.Envelope.To},
		{"ORIG_RECIPIENT", p.Envelope.OriginalTo},
	} {
		if value := strings.ReplaceAll(v[1], "\x00", ""); value != "" {
			c.Env = append(c.Env, v[0]+"="+value)
		}
	}
	return c.Run(ctx, p.Input)
}

// pipe gives a mail to a program at delivery. What the program writes is nobody's.
func (x *scripting) pipe(ctx context.Context, account string, r pipeline.Run, mail io.Reader) error {
	_, err := x.Run(ctx, sieve.Program{
		Use: "pipe", Name: r.Program, Arguments: r.Args, Input: mail, Account: account,
		Envelope: sieve.Envelope{From: r.Sender, To: r.Recipient, OriginalTo: r.Original},
	})
	return err
}

// nobody is the owners where nothing that accounts keep is looked at: where a configuration is checked.
type nobody struct{ *scripting }

var _ pipeline.Owners = nobody{}

// Script implements pipeline.Owners.
func (nobody) Script(context.Context, string, string) (pipeline.OwnScript, error) {
	return pipeline.OwnScript{}, nil
}

// Include implements pipeline.Owners.
func (nobody) Include(context.Context, string, string) (text []byte, ok bool, err error) {
	return nil, false, nil
}

// Folders implements pipeline.Owners.
func (nobody) Folders(context.Context, string) ([]pipeline.OwnFolder, error) { return nil, nil }

// FolderByID implements pipeline.Owners.
func (nobody) FolderByID(context.Context, string, string) (name string, ok bool, err error) {
	return "", false, nil
}

// Annotation implements pipeline.Owners.
func (nobody) Annotation(context.Context, string, string, string) (value string, ok bool, err error) {
	return "", false, nil
}

// Addresses implements pipeline.Owners.
func (nobody) Addresses(context.Context, string) ([]string, error) { return nil, nil }

// Failed implements pipeline.Owners.
func (nobody) Failed(context.Context, pipeline.ScriptFailure) {}
