package config

import (
	"fmt"
	"maps"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"sluice/mailstore/maildir"
)

// Sieve says what scripts may do besides sorting mail, and when they run besides at delivery.
type Sieve struct {
	// Programs are what scripts may run with pipe, filter and execute (vnd.dovecot.pipe, vnd.dovecot.filter,
	// vnd.dovecot.execute), by the names that scripts call them. Whoever may write a script may run them. Default: none, and
	// scripts cannot require these extensions.
	Programs map[string]SieveProgram `yaml:"programs" example:"{learn-spam: {command: [/usr/bin/rspamc, learn_spam], use: [pipe]}}"`
	// AtOnce is how many programs of scripts run at the same time; others wait for them.
	AtOnce int `yaml:"programs_at_once"`
	// IMAP are scripts that run, the site's or accounts' own, when a mail client files, copies or moves a mail, or changes its flags (RFC 6785): of each
	// event all that fit, in this order.
	IMAP []SieveEvent `yaml:"imap" example:"[{folder: Junk, script: sieve/learn-spam.sieve}]"`
	// IMAPWaiting is how many mails may wait for these scripts; a client that does more to mails then waits for them.
	IMAPWaiting int `yaml:"imap_waiting"`
	// Lists are lists that scripts may ask and redirect to (RFC 6134), by name: files with an address or another value on
	// each line; what follows # is a comment.
	Lists map[string]string `yaml:"lists" example:"{family: lists/family.txt}"`
}

// A SieveProgram is a program that scripts may run. It gets the mail, or what execute gives it, on its standard input, and
// SENDER, RECIPIENT, ORIG_RECIPIENT, USER and HOST in its environment.
type SieveProgram struct {
	// Command is the program, by its whole path, and its first arguments; those of the script follow.
	Command []string `yaml:"command" example:"[/usr/bin/rspamc, learn_spam]"`
	// Use says what scripts may do with it: any of pipe, filter, execute. Default: pipe.
	Use []string `yaml:"use" example:"[filter]"`
	// Timeout is how long it may take. Default: 30s.
	Timeout time.Duration `yaml:"timeout" example:"10s"`
	// Output is how much it may write. Default: 10 MiB.
	Output Size `yaml:"output" example:"1MiB"`
	// Dir is the folder that it runs in. Default: /.
	Dir string `yaml:"dir" example:"/var/lib/learn"`
}

// A SieveEvent is a script that runs when a mail client does something.
type SieveEvent struct {
	// Folder is where the mail is then: a name, or a pattern such as "Lists/*" or "*".
	Folder string `yaml:"folder" example:"Junk"`
	// From is the folder that the mail was in before, where it was copied or moved. Default: any.
	From string `yaml:"from" example:"\"*\""`
	// Causes are what the client has done: any of append, copy (or moved) and flag. Default: append and copy.
	Causes []string `yaml:"causes" example:"[copy]"`
	// Script is the file of the script, with `require "imapsieve"` where it asks for the event.
	Script string `yaml:"script" example:"sieve/learn-spam.sieve"`
	// Own is the name of a script of the account's own that runs in place of one of the site's, where the account has it.
	Own string `yaml:"own" example:"imap"`
}

func defaultSieve() Sieve { return Sieve{AtOnce: 4, IMAPWaiting: 1000} }

// checkSieve finds what is wrong with the settings about scripts, but for the scripts themselves, and completes them.
func (c *Config) checkSieve() {
	d := c.d
	for _, name := range slices.Sorted(maps.Keys(c.Sieve.Programs)) {
		p, at := c.Sieve.Programs[name], "sieve.programs."+name
		if strings.ContainsAny(name, "/\x00\r\n") || len(name) > 128 {
			d.wrong(at, fmt.Sprintf("%q cannot be the name of a program", name), "write a name without /")
		}
		switch {
		case len(p.Command) == 0:
			d.wrong(at, "the program has no command", "write command: [/usr/local/bin/learn]")
		case !filepath.IsAbs(p.Command[0]):
			d.wrong(at+".command", fmt.Sprintf("%q is no whole path: it is looked for nowhere", p.Command[0]), "write for example /usr/local/bin/learn")
		}
		for i, use := range p.Use {
			if use != "pipe" && use != "filter" && use != "execute" {
				d.wrong(fmt.Sprintf("%s.use[%d]", at, i), fmt.Sprintf("scripts cannot %q a program", use), "there is pipe, filter, execute")
			}
		}
		if p.Dir != "" && !filepath.IsAbs(p.Dir) {
			d.wrong(at+".dir", fmt.Sprintf("%q is no whole path", p.Dir), "")
		}
		if len(p.Use) == 0 {
			p.Use = []string{"pipe"}
		}
		if p.Timeout <= 0 {
			p.Timeout = 30 * time.Second
		}
		if p.Output <= 0 {
			p.Output = 10 << 20
		}
		if p.Dir == "" {
			p.Dir = "/"
		}
		c.Sieve.Programs[name] = p
	}
	for i := range c.Sieve.IMAP {
		e, at := &c.Sieve.IMAP[i], fmt.Sprintf("sieve.imap[%d]", i)
		if e.Folder == "" {
			d.wrong(at, "the event has no folder", `write folder: Junk, or folder: "*" for all`)
		} else if !strings.ContainsAny(e.Folder, "*") && !strings.EqualFold(e.Folder, "INBOX") && maildir.CheckFolder(e.Folder) != nil {
			d.wrong(at+".folder", fmt.Sprintf("%q is no name for a folder", e.Folder), "write for example Junk or Lists/*")
		}
		switch {
		case e.Script == "" && e.Own == "":
			d.wrong(at, "the event has no script", "write script: sieve/learn-spam.sieve")
		case e.Script != "" && e.Own != "":
			d.wrong(at+".own", "the event has two scripts", "make another entry of it")
		}
		for k, cause := range e.Causes {
			if cause != "append" && cause != "copy" && cause != "flag" {
				d.wrong(fmt.Sprintf("%s.causes[%d]", at, k), fmt.Sprintf("there is no cause %q", cause), "there is append, copy, flag")
			}
		}
		if len(e.Causes) == 0 {
			e.Causes = []string{"append", "copy"}
		}
		if e.From == "" {
			e.From = "*"
		}
	}
	if c.Sieve.AtOnce <= 0 {
		c.Sieve.AtOnce = defaultSieve().AtOnce
	}
	if c.Sieve.IMAPWaiting <= 0 {
		c.Sieve.IMAPWaiting = defaultSieve().IMAPWaiting
	}
}
