package program

import (
	"fmt"
	"strings"

	"sluice/cmd/sluice/program/config"
	"sluice/rules/sieve"
)

// A sieveAction is an action of a script as --json prints it. One of the first fields says what it is.
type sieveAction struct {
	Keep     bool   `json:"keep,omitempty"`
	FileInto string `json:"fileinto,omitempty"` // the folder
	Discard  bool   `json:"discard,omitempty"`
	Redirect string `json:"redirect,omitempty"` // the address
	Reject   string `json:"reject,omitempty"`   // the reason
	EReject  string `json:"ereject,omitempty"`  // the reason
	Vacation string `json:"vacation,omitempty"` // to whom
	Notify   string `json:"notify,omitempty"`   // to whom
	Pipe     string `json:"pipe,omitempty"`     // the program

	Script     string   `json:"script,omitempty"`
	Line       int      `json:"line,omitempty"`
	Implicit   bool     `json:"implicit,omitempty"` // no line of the script asks for it
	Copy       bool     `json:"copy,omitempty"`
	Create     bool     `json:"create,omitempty"`
	Flags      []string `json:"flags,omitempty"`
	SpecialUse string   `json:"specialuse,omitempty"`
	MailboxID  string   `json:"mailboxid,omitempty"`
	Edited     bool     `json:"edited,omitempty"` // the script has changed the mail
	Arguments  []string `json:"arguments,omitempty"`
	Message    string   `json:"message,omitempty"` // what vacation and notify send, and what is filed of it
}

func newSieveAction(a sieve.Action) sieveAction {
	x := sieveAction{
		Script: a.Script, Line: a.Line, Implicit: a.Implicit, Copy: a.Copy, Create: a.Create, Flags: a.Flags,
		SpecialUse: a.SpecialUse, MailboxID: a.MailboxID, Edited: a.Message != nil && a.Reply == nil && a.Content == nil, Arguments: a.Arguments,
	}
	to := ""
	if a.Reply != nil {
		to, x.Message = strings.Join(a.Reply.To, ", "), string(a.Reply.Content)
	}
	if a.Content != nil {
		x.Message = string(a.Content)
	}
	switch a.Kind {
	case sieve.Keep:
		x.Keep = true
	case sieve.FileInto:
		x.FileInto = a.Folder
	case sieve.Discard:
		x.Discard = true
	case sieve.Redirect:
		x.Redirect = a.Address
	case sieve.Reject:
		x.Reject = a.Text
	case sieve.EReject:
		x.EReject = a.Text
	case sieve.Vacation:
		x.Vacation = to
	case sieve.Notify:
		x.Notify = to
	case sieve.Pipe:
		x.Pipe = a.Program
	}
	return x
}

// String says what would happen: "filed into Lists/go, with \Seen (line 4 of work.sieve)".
func (a sieveAction) String() string {
	var what string
	switch {
	case a.Keep:
		what = "kept in the inbox"
	case a.FileInto != "" && a.SpecialUse != "":
		what = fmt.Sprintf("filed into the folder for %s, else into %s", a.SpecialUse, a.FileInto)
	case a.FileInto != "" && a.MailboxID != "":
		what = fmt.Sprintf("filed into the folder with the identity %s, else into %s", a.MailboxID, a.FileInto)
	case a.FileInto != "":
		what = "filed into " + a.FileInto
	case a.Discard:
		what = "discarded"
	case a.Redirect != "":
		what = "redirected to " + a.Redirect
	case a.Reject != "":
		what = "rejected: " + a.Reject
	case a.EReject != "":
		what = "refused: " + a.EReject
	case a.Vacation != "":
		what = "answered with a mail to " + a.Vacation
	case a.Notify != "":
		what = "announced with a mail to " + a.Notify
	case a.Pipe != "":
		what = "given to the program " + strings.Join(append([]string{a.Pipe}, a.Arguments...), " ")
	default:
		what = "nothing"
	}
	for _, x := range []struct {
		said bool
		text string
	}{
		{len(a.Flags) > 0, ", with " + strings.Join(a.Flags, " ")},
		{a.Create && a.SpecialUse != "", ", which is made for it if it is not there"},
		{a.Create && a.SpecialUse == "", ", which is made if it is not there"},
		{a.Copy, ", as a copy"},
		{a.Edited, ", as the script has changed it"},
		{a.Implicit, " (as no line says otherwise)"},
		{a.Line > 0, fmt.Sprintf(" (line %d of %s)", a.Line, a.Script)},
	} {
		if x.said {
			what += x.text
		}
	}
	return what
}

// print says line by line what the script does, and then what would become of the mail.
func (r *sieveTestResult) print(p *program) error {
	if err := r.sieveResult.print(p.stderr); err != nil {
		return err
	}
	if len(r.Errors) > 0 {
		return nil
	}
	script := ""
	for _, l := range r.Trace {
		if l.Script != script {
			script = l.Script
			fmt.Fprintf(p.stdout, "%s\n", config.Printable(script))
		}
		fmt.Fprintf(p.stdout, "%6d  %s%s\n", l.Line, strings.Repeat("  ", l.Depth), config.Printable(l.Text))
	}
	fmt.Fprintln(p.stdout)
	if r.Failure != nil {
		fmt.Fprintf(p.stdout, "failed: %s\n", config.Printable(r.Failure.Error()))
	}
	for _, a := range r.Actions {
		if _, err := fmt.Fprintf(p.stdout, "would be %s\n", config.Printable(a.String())); err != nil {
			return err
		}
	}
	return nil
}
