package exec

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os/exec"
	"strings"
	"syscall"
	"time"

	"sluice/pipeline"
)

// escaped is how long is waited for the output of a program that has ended, if something outside its group holds it open.
const escaped = time.Second

// run runs the program and returns what it has answered.
func (s *stage) run(ctx context.Context, stdin io.Reader) ([]byte, error) {
	return Command{Args: s.command, Dir: s.dir, Env: s.env, MaxOutput: int(s.asker.MaxAnswer())}.Run(ctx, stdin)
}

// A Command is a program and how it is run.
type Command struct {
	Args      []string // the program, by its whole path, and its arguments
	Dir       string
	Env       []string // all of its environment
	MaxOutput int      // octets that it may write
}

// Run runs the program over what stdin says and returns what it has written. When Run returns, nothing of the program's
// group is left: it is ended with ctx, and when it has written too much.
func (c Command) Run(ctx context.Context, stdin io.Reader) ([]byte, error) {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	out := &limited{most: c.MaxOutput, full: func() { cancel(fmt.Errorf("the answer is longer than %d octets", c.MaxOutput)) }}
	said := &limited{most: 1 << 10}
	in := &faults{r: stdin}
	cmd := exec.CommandContext(ctx, c.Args[0], c.Args[1:]...) //nolint:gosec // the administrator names it
	cmd.Dir, cmd.Env = c.Dir, c.Env
	cmd.Stdin, cmd.Stdout, cmd.Stderr = in, out, said
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) }
	cmd.WaitDelay = escaped
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	err := reap(cmd)
	switch {
	case ctx.Err() != nil:
		return nil, context.Cause(ctx)
	case in.err != nil:
		return nil, fmt.Errorf("read the mail: %w", in.err)
	case errors.Is(err, exec.ErrWaitDelay):
		return nil, errors.New("it has ended, and left a program behind that holds its output")
	case err != nil && said.text() != "":
		return nil, fmt.Errorf("%w: %s", err, said.text())
	case err != nil:
		return nil, err
	}
	return out.b.Bytes(), nil
}

// A limited buffer keeps what comes first.
type limited struct {
	b    bytes.Buffer
	most int
	full func() // called when more comes
}

func (l *limited) Write(p []byte) (int, error) {
	room := l.most - l.b.Len()
	l.b.Write(p[:min(len(p), room)])
	if len(p) > room && l.full != nil {
		l.full()
	}
	return len(p), nil
}

// text is the first line, fit for a record.
func (l *limited) text() string {
	line, _, _ := strings.Cut(strings.TrimSpace(l.b.String()), "\n")
	return pipeline.CleanText(line)
}

// faults remembers what went wrong with reading: the program sees an end.
type faults struct {
	r   io.Reader
	err error
}

func (f *faults) Read(p []byte) (int, error) {
	n, err := f.r.Read(p)
	if err != nil && !errors.Is(err, io.EOF) {
		f.err = err
	}
	return n, err
}
