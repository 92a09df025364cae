package managesieve

import (
	"context"
	"errors"
	"strconv"
	"strings"
	"unicode/utf8"

	"sluice/mailstore"
)

// known carries out a command of a client that has logged in.
func (c *session) known(cmd *command) error {
	switch cmd.name {
	case "AUTHENTICATE", "STARTTLS":
		return errKnown
	case "UNAUTHENTICATE":
		if !cmd.takes("") {
			return reply{"", "UNAUTHENTICATE takes nothing"}
		}
		c.logout()
		c.ok("you are nobody")
		return nil
	case "LISTSCRIPTS":
		if !cmd.takes("") {
			return reply{"", "LISTSCRIPTS takes nothing"}
		}
		return c.list()
	case "HAVESPACE":
		if !cmd.takes("sn") {
			return reply{"", "HAVESPACE takes a name and a size"}
		}
		return c.haveSpace(cmd.args[0].text, cmd.args[1].text)
	case "PUTSCRIPT":
		if !cmd.takes("st") {
			return reply{"", "PUTSCRIPT takes a name and a script"}
		}
		return c.put(cmd.args[0].text, cmd.args[1])
	case "CHECKSCRIPT":
		if !cmd.takes("t") {
			return reply{"", "CHECKSCRIPT takes a script"}
		}
		return c.checkScript(cmd.args[0])
	case "SETACTIVE":
		if !cmd.takes("s") {
			return reply{"", "SETACTIVE takes a name"}
		}
		return c.setActive(cmd.args[0].text)
	case "GETSCRIPT":
		if !cmd.takes("s") {
			return reply{"", "GETSCRIPT takes a name"}
		}
		text, err := c.cfg.Scripts.Script(c.ctx, c.account, cmd.args[0].text)
		if err != nil {
			return c.failed(err)
		}
		c.say(literal(string(text)) + "\r\n")
		c.ok("this is the script")
		return nil
	case "DELETESCRIPT":
		if !cmd.takes("s") {
			return reply{"", "DELETESCRIPT takes a name"}
		}
		return c.done("the script is deleted", c.cfg.Scripts.Delete(c.ctx, c.account, cmd.args[0].text))
	case "RENAMESCRIPT":
		if !cmd.takes("ss") {
			return reply{"", "RENAMESCRIPT takes two names"}
		}
		return c.done("the script has another name",
			c.cfg.Scripts.Rename(c.ctx, c.account, cmd.args[0].text, cmd.args[1].text))
	}
	return errUnknown
}

// done answers a command by what became of it.
func (c *session) done(text string, err error) error {
	if err != nil {
		return c.failed(err)
	}
	c.ok(text)
	return nil
}

// failed says what an error of the scripts means to the client.
func (c *session) failed(err error) error {
	if c.ctx.Err() != nil {
		return context.Cause(c.ctx)
	}
	for _, x := range []struct {
		err  error
		code string
		text string // "": what the error says is for the client
	}{
		{mailstore.ErrNoScript, "NONEXISTENT", "there is no script of this name"},
		{mailstore.ErrExists, "ALREADYEXISTS", "there is a script of this name"},
		{mailstore.ErrActive, "ACTIVE", "the script is active"},
		{mailstore.ErrTooManyScripts, "QUOTA/MAXSCRIPTS", ""},
		{mailstore.ErrScriptSize, "QUOTA/MAXSIZE", ""},
		{mailstore.ErrQuota, "QUOTA", ""},
		{mailstore.ErrScriptName, "", ""},
	} {
		if !errors.Is(err, x.err) {
			continue
		}
		if x.text == "" {
			x.text = report(strings.Split(err.Error(), "\n"))
		}
		return reply{x.code, x.text}
	}
	if errors.Is(err, mailstore.ErrNoAccount) {
		return farewell{"", "this account has been deleted"}
	}
	c.log.Error("managesieve", "account", c.account, "error", err)
	if errors.Is(err, mailstore.ErrFull) {
		return errFull
	}
	return errTemp
}

func (c *session) list() error {
	list, err := c.cfg.Scripts.List(c.ctx, c.account)
	if err != nil {
		return c.failed(err)
	}
	for _, x := range list {
		line := str(x.Name)
		if x.Active {
			line += " ACTIVE"
		}
		c.say(line + "\r\n")
	}
	c.ok("these are your scripts")
	return nil
}

func (c *session) haveSpace(name, size string) error {
	n, err := strconv.ParseInt(size, 10, 64)
	if err != nil {
		return reply{"", "the size is no number"}
	}
	return c.done("there is room", c.cfg.Scripts.Room(c.ctx, c.account, name, n))
}

// tooLarge is the answer to a script that was not even kept to be checked.
func tooLarge(x argument) error {
	return reply{"QUOTA/MAXSIZE", "the script has " + x.text + " octets, which is too many"}
}

// check looks at a script.
func (c *session) check(name, text string) (warnings []string, err error) {
	if !utf8.ValidString(text) {
		return nil, reply{"", "the script is not UTF-8"}
	}
	warnings, problems := c.cfg.Check(c.ctx, c.account, name, []byte(text))
	if len(problems) > 0 {
		return nil, reply{"", report(problems)}
	}
	return warnings, nil
}

// good answers a command about a script that is one.
func (c *session) good(text string, warnings []string) {
	if len(warnings) > 0 {
		c.say(answer("OK", "WARNINGS", report(warnings)))
		return
	}
	c.ok(text)
}

func (c *session) put(name string, script argument) error {
	if script.large {
		return tooLarge(script)
	}
	// Nobody wants to mend a script only to hear that there is no room for it.
	if err := c.cfg.Scripts.Room(c.ctx, c.account, name, int64(len(script.text))); err != nil {
		return c.failed(err)
	}
	warnings, err := c.check(name, script.text)
	if err != nil {
		return err
	}
	if err := c.cfg.Scripts.Put(c.ctx, c.account, name, []byte(script.text)); err != nil {
		return c.failed(err)
	}
	c.good("the script is kept", warnings)
	return nil
}

func (c *session) checkScript(script argument) error {
	if script.large {
		return tooLarge(script)
	}
	warnings, err := c.check("", script.text)
	if err != nil {
		return err
	}
	c.good("the script has no errors", warnings)
	return nil
}

// setActive activates a script that has no errors: it may have come from elsewhere, or be older than the rules it is
// checked by.
func (c *session) setActive(name string) error {
	if name == "" {
		return c.done("no script is active", c.cfg.Scripts.Activate(c.ctx, c.account, ""))
	}
	text, err := c.cfg.Scripts.Script(c.ctx, c.account, name)
	if err != nil {
		return c.failed(err)
	}
	warnings, err := c.check(name, string(text))
	if err != nil {
		return err
	}
	if err := c.cfg.Scripts.Activate(c.ctx, c.account, name); err != nil {
		return c.failed(err)
	}
	c.good("the script is active", warnings)
	return nil
}

func number(n int) string { return strconv.Itoa(n) }
