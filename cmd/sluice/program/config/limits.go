package config

import (
	"cmp"
	"fmt"
	"reflect"
	"strconv"
	"strings"
	"time"

	"sluice/mailstore/maildir"
	"sluice/mailstore/scripts"
	"sluice/pipeline"
	"sluice/pipeline/mime"
	"sluice/protocols/imap"
	"sluice/protocols/listen"
	"sluice/protocols/managesieve"
	"sluice/protocols/milter"
	"sluice/protocols/pop3"
	"sluice/protocols/smtp"
)

// A Size is a number of octets, written as a number or with KB, MB, GB, KiB, MiB or GiB.
type Size int64

// UnmarshalText reads a size.
func (s *Size) UnmarshalText(text []byte) error {
	number, unit := string(text), int64(1)
	for _, u := range []struct {
		name string
		size int64
	}{{"KiB", 1 << 10}, {"MiB", 1 << 20}, {"GiB", 1 << 30}, {"KB", 1e3}, {"MB", 1e6}, {"GB", 1e9}} {
		if rest, ok := strings.CutSuffix(number, u.name); ok {
			number, unit = strings.TrimSpace(rest), u.size
			break
		}
	}
	x, err := strconv.ParseInt(number, 10, 64)
	if err != nil || x < 0 || x > (1<<62)/unit {
		return &remedied{fmt.Sprintf("%q is no size", text), "write for example 50MiB, 10MB or a number of octets"}
	}
	*s = Size(x * unit)
	return nil
}

// Limits bound what a client, a message and the program may use. Reaching one is a clear answer, never a lost mail.
type Limits struct {
	// Sockets bounds the connections of each protocol.
	Sockets listen.Limits `yaml:",inline"`
	// MessageSize is the size of a message at every door that has no other of its own.
	MessageSize Size `yaml:"message_size"`
	// HeaderSize is the size of the header section of a message.
	HeaderSize Size `yaml:"header_size"`
	// HeaderFields is how many fields a header section may have.
	HeaderFields int `yaml:"header_fields"`
	// Recipients is how many recipients a message may have at smtp, lmtp and milter.
	Recipients int `yaml:"recipients"`
	// MIMEDepth is how deep multiparts and messages may nest: what is deeper is not looked into.
	MIMEDepth int `yaml:"mime_depth"`
	// MIMEParts is how many parts of a message are looked at.
	MIMEParts int `yaml:"mime_parts"`
	// MIMEParameters is how many parameters of one header field are looked at.
	MIMEParameters int `yaml:"mime_parameters"`
	// Text is how much decoded text of a message rules see, of plain text and HTML each.
	Text Size `yaml:"text"`
	// Quota is how much mail an account may keep; 0 is as much as there is room for.
	Quota Size `yaml:"quota"`
	// SMTP bounds what one client of the smtp door may do.
	SMTP smtp.Limits `yaml:"smtp"`
	// Submission bounds what one client of the submission doors may do.
	Submission smtp.Limits `yaml:"submission"`
	// LMTP bounds what one client of the lmtp door may do.
	LMTP smtp.Limits `yaml:"lmtp"`
	// Milter bounds what an MTA may make us hold.
	Milter milter.Limits `yaml:"milter"`
	// IMAP bounds what a reader may ask for.
	IMAP imap.Limits `yaml:"imap"`
	// POP3 bounds what a reader may ask for.
	POP3 pop3.Limits `yaml:"pop3"`
	// ManageSieve bounds what a client that manages scripts may ask for.
	ManageSieve managesieve.Limits `yaml:"managesieve"`
	// Scripts bounds the Sieve scripts that an account may keep.
	Scripts scripts.Limits `yaml:"scripts"`
	// ScriptLog bounds what is kept of what went wrong when an account's scripts ran: `sluice user log` shows it.
	ScriptLog scripts.LogLimits `yaml:"script_log"`
	// Accounts bounds what an account can hold besides its quota.
	Accounts maildir.Limits `yaml:"accounts"`
	// PhaseTimeout bounds the answer of all steps at one moment before the content of a mail is here.
	PhaseTimeout time.Duration `yaml:"phase_timeout"`
	// ContentTimeout bounds the answer of all steps about the content.
	ContentTimeout time.Duration `yaml:"content_timeout"`
	// Workers is how many questions about single recipients one mail may have under way.
	Workers int `yaml:"workers"`
	// Abandoned is how many calls of one stage may hang beyond their deadline before it fails at once.
	Abandoned int `yaml:"abandoned"`
	// Shadow bounds what shadow steps and shadow rules are asked after a mail has been answered.
	Shadow pipeline.TrialLimits `yaml:"shadow"`
	// DiskFree is how much room is kept free on the disk: with less, mail is put off (452) until there is more again.
	DiskFree Size `yaml:"disk_free"`
	// DiskInodes is the same for the number of files. Both: 0 is no such limit.
	DiskInodes int `yaml:"disk_inodes"`
	// Shutdown is what mail on its way in gets to arrive when the program is told to stop.
	Shutdown time.Duration `yaml:"shutdown"`
}

// MIME returns the limits for reading a message.
func (l Limits) MIME() mime.Limits {
	return mime.Limits{
		HeaderSize: int(l.HeaderSize), HeaderFields: l.HeaderFields,
		Depth: l.MIMEDepth, Parts: l.MIMEParts, Parameters: l.MIMEParameters, Text: int(l.Text),
	}
}

// shared gives the doors the limits that stand for all of them, where they have none of their own.
func (l *Limits) shared() {
	sizes, numbers := l.followers()
	for to, from := range sizes {
		*to = cmp.Or(*to, int64(from))
	}
	for to, from := range numbers {
		*to = cmp.Or(*to, from)
	}
}

// followers are the limits of single doors that have no defaults of their own: they follow what is said for all doors
// under the same key.
func (l *Limits) followers() (sizes map[*int64]Size, numbers map[*int]int) {
	return map[*int64]Size{
			&l.SMTP.MessageSize:       l.MessageSize,
			&l.Submission.MessageSize: l.MessageSize,
			&l.LMTP.MessageSize:       l.MessageSize,
			&l.Milter.MessageSize:     l.MessageSize,
			&l.IMAP.MessageSize:       l.MessageSize,
			&l.Milter.HeaderSize:      l.HeaderSize,
		}, map[*int]int{
			&l.SMTP.Recipients:       l.Recipients,
			&l.Submission.Recipients: l.Recipients,
			&l.LMTP.Recipients:       l.Recipients,
			&l.Milter.Recipients:     l.Recipients,
			&l.Milter.HeaderFields:   l.HeaderFields,
			&l.IMAP.Depth:            l.MIMEDepth,
			&l.IMAP.Parts:            l.MIMEParts,
		}
}

func (c *Config) checkLimits() {
	for _, x := range []struct {
		key   string
		value int64
		least int64
	}{
		{"message_size", int64(c.Limits.MessageSize), 1024},
		{"header_size", int64(c.Limits.HeaderSize), 1024},
		{"header_fields", int64(c.Limits.HeaderFields), 1},
		{"recipients", int64(c.Limits.Recipients), 1},
		{"mime_depth", int64(c.Limits.MIMEDepth), 1},
		{"mime_parts", int64(c.Limits.MIMEParts), 1},
		{"mime_parameters", int64(c.Limits.MIMEParameters), 1},
		{"text", int64(c.Limits.Text), 1024},
		{"phase_timeout", int64(c.Limits.PhaseTimeout), int64(time.Millisecond)},
		{"content_timeout", int64(c.Limits.ContentTimeout), int64(time.Millisecond)},
		{"workers", int64(c.Limits.Workers), 1},
		{"abandoned", int64(c.Limits.Abandoned), 1},
	} {
		if x.value < x.least {
			least := strconv.FormatInt(x.least, 10)
			if x.least == int64(time.Millisecond) {
				least = "1ms"
			}
			c.d.wrong("limits."+x.key, fmt.Sprintf("limits.%s is too small to work with", x.key), "the least is "+least)
		}
	}
	c.checkNegative()
	if most := 9 * time.Second; c.Limits.Shutdown > most {
		c.d.wrong("limits.shutdown", "limits.shutdown is longer than the program has to end, which is 10s", "the most is 9s")
	}
}

// checkNegative finds numbers below zero in the sections of others: they have their defaults for zero.
func (c *Config) checkNegative() {
	var walk func(path string, v reflect.Value)
	walk = func(path string, v reflect.Value) {
		collect(v, func(name, options string, f reflect.Value) {
			switch {
			case f.Kind() == reflect.Struct:
				walk(join(path, name), f)
			case f.CanInt() && f.Int() < 0 && options != negative && name != "cache_size": // below zero: no cache
				c.d.wrong(join(path, name), fmt.Sprintf("%s is below zero", join(path, name)), "leave the key out for its default")
			}
		})
	}
	walk("limits", reflectOf(&c.Limits))
	walk("resolver", reflectOf(&c.Resolver))
	walk("state", reflectOf(&c.State))
	walk("relay.timeouts", reflectOf(&c.Relay.Timeouts))
	walk("journal", reflectOf(&c.Journal))
	walk("queue", reflectOf(&c.Queue))
}
