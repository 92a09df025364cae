package program

import (
	"context"
	"errors"
	"slices"
	"strings"

	"sluice/cmd/sluice/program/config"
	"sluice/mailstore"
	"sluice/pipeline"
	"sluice/protocols/imap"
	"sluice/rules/sieve"
)

// A scriptEvent is a script that runs when a mail client does something.
type scriptEvent struct {
	config.SieveEvent
	script    *sieve.Script
	annotated bool // the account has asked for it
}

// fits reports whether the script runs for an event.
func (e scriptEvent) fits(cause imap.Cause, folder, from string) bool {
	return slices.Contains(e.Causes, string(cause)) && likeFolder(e.Folder, folder) &&
		(cause != imap.CauseCopy || likeFolder(e.From, from))
}

// likeFolder reports whether a folder is what a pattern says: * is any number of characters.
func likeFolder(pattern, name string) bool {
	if strings.EqualFold(name, mailstore.Inbox) {
		name = mailstore.Inbox
	}
	if strings.EqualFold(pattern, mailstore.Inbox) {
		return name == mailstore.Inbox
	}
	pieces := strings.Split(pattern, "*")
	if len(pieces) == 1 {
		return pattern == name
	}
	last := len(pieces) - 1
	rest, ok := strings.CutPrefix(name, pieces[0])
	if !ok || !strings.HasSuffix(rest, pieces[last]) {
		return false
	}
	rest = strings.TrimSuffix(rest, pieces[last])
	for _, p := range pieces[1:last] {
		if _, rest, ok = strings.Cut(rest, p); !ok {
			return false
		}
	}
	return true
}

// scripts are those that run for the event: what the site's settings say, then what the account's annotations do.
func (r *eventRun) scripts(ctx context.Context) (all []scriptEvent, err error) {
	for _, s := range r.setup.scripting.events {
		if s.fits(r.event.Cause, r.event.Folder, r.event.From) {
			all = append(all, s)
		}
	}
	name, err := annotatedScript(ctx, r.owners(), r.event.Account, r.event.Folder)
	if name != "" && !slices.ContainsFunc(all, func(s scriptEvent) bool { return s.Own == name }) {
		all = append(all, scriptEvent{SieveEvent: config.SieveEvent{Own: name}, annotated: true})
	}
	return all, err
}

// scriptAnnotation names a script of the account's that runs when a client changes something in a folder.
const scriptAnnotation = "/shared/imapsieve/script"

// annotatedScript is the script that an annotation of a folder names or, where the folder has none, one of the server (RFC
// 6785, 2.3); "" is none, also where the folder's is empty.
func annotatedScript(ctx context.Context, o pipeline.Owners, account, folder string) (name string, err error) {
	for _, of := range []string{folder, ""} {
		name, ok, err := o.Annotation(ctx, account, of, scriptAnnotation)
		if ok || err != nil {
			return name, err
		}
	}
	return "", nil
}

// own is a script of the account's, nil where it has none of this name, or one that is wrong: it is told so.
func (r *eventRun) own(ctx context.Context, s scriptEvent) (*sieve.Script, error) {
	name := s.Own
	text, err := r.s.house.scripts.Script(ctx, r.event.Account, name)
	if errors.Is(err, mailstore.ErrNoScript) || s.annotated && errors.Is(err, mailstore.ErrScriptName) {
		if s.annotated {
			r.s.log.Warn("the script that an annotation names is not there", "account", r.event.Account, "folder", r.event.Folder,
				"annotation", scriptAnnotation, "script", name)
		}
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	script, problems := sieve.Compile(name, text, newScriptChecker(r.setup.config, r.s.house.scripts).options(ctx, r.event.Account))
	if script == nil && len(problems) > 0 {
		r.tell(name, problems[0].Line, problems[0].Text, "")
	}
	return script, nil
}
