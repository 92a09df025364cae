// Package content finds out what is in a mail: what its files really are, what its HTML does, who its names pretend to
// be, which scripts it is written in. It looks nothing up, unpacks nothing beyond its limits, and runs nothing.
package content

import (
	"context"
	"errors"
	"fmt"

	"sluice/pipeline"
)

// Kind is the kind of stage the configuration calls content. It only computes, so it fails only where something is
// wrong with Sluice itself; then rules see that nothing is known, and mail goes on: on_error is skip.
func Kind() pipeline.Kind {
	return pipeline.Kind{
		Name: "content",
		Doc: "Finds out what attachments really are, what the HTML does and who the sender's names pretend to be. It only computes; " +
			"should it fail it is skipped, for that is no fault of the mail.",
		OnError: pipeline.Skip,
		Config:  func() any { return &Config{Extensions: dangerous(), Limits: defaults()} },
		Fact:    func(any) any { return Fact{} },
		New: func(config any, _ pipeline.Env) ([]pipeline.Stage, error) {
			s, err := newStage(*config.(*Config))
			if err != nil {
				return nil, err
			}
			return []pipeline.Stage{s}, nil
		},
	}
}

// Config is the section of one content step.
type Config struct {
	// Protect are names that others like to borrow. A domain: content.sender.lookalike says who looks like it. A name with
	// an address or a domain, "Jane Doe <jane@example.org>", "A Bank <bank.example>": content.sender.name_protected says
	// who uses the name with another address. The domains of the recipients are protected in any case.
	Protect []string `yaml:"protect" example:"[bank.example, Jane Doe <jane@example.org>]"`
	// Extensions are those of names of files that are dangerous to open.
	Extensions []string `yaml:"extensions"`
	// Limits bound what is looked at. What lies beyond is named in content.limits, and for a file in its .incomplete.
	Limits Limits `yaml:"limits"`
}

// Limits bound what is looked at in one mail.
type Limits struct {
	// Attachments is how many files are looked into and listed.
	Attachments int `yaml:"attachments"`
	// FileSize is how many octets of a file, or of one inside an archive, are held at a time. Of a larger one the beginning
	// and the end are looked at.
	FileSize int `yaml:"file_size"`
	// ArchiveFiles is how many files inside archives are looked at in one mail.
	ArchiveFiles int `yaml:"archive_files"`
	// Members is how many files inside archives are listed, for all archives of a mail together.
	Members int `yaml:"members"`
	// Depth is how many archives in each other are looked into.
	Depth int `yaml:"depth"`
	// Unpacked is how many octets are unpacked in all.
	Unpacked int `yaml:"unpacked"`
	// Ratio is how many times its packed size a file may have before we stop unpacking it.
	Ratio int `yaml:"ratio"`
	// HTML is how many octets of HTML are looked at, in the text and in each attached page.
	HTML int `yaml:"html"`
	// Text is how many octets of text are looked at for its scripts and its language.
	Text int `yaml:"text"`
}

func defaults() Limits {
	return Limits{
		Attachments: 100, FileSize: 8 << 20, ArchiveFiles: 2000, Members: 200, Depth: 3, Unpacked: 16 << 20, Ratio: 200,
		HTML: 1 << 20, Text: 64 << 10,
	}
}

// check returns what is wrong with the limits.
func (l Limits) check() (wrong []error) {
	for _, x := range []struct {
		name  string
		value int
		least int
		most  int
	}{
		{"attachments", l.Attachments, 1, 1000},
		{"file_size", l.FileSize, 64 << 10, 256 << 20},
		{"archive_files", l.ArchiveFiles, 1, 1_000_000},
		{"members", l.Members, 1, 2000},
		{"depth", l.Depth, 1, 16},
		{"unpacked", l.Unpacked, 0, 1 << 30},
		{"ratio", l.Ratio, 2, 100_000},
		{"html", l.HTML, 1 << 10, 64 << 20},
		{"text", l.Text, 1 << 10, 64 << 20},
	} {
		if x.value < x.least || x.value > x.most {
			wrong = append(wrong, fmt.Errorf("limits: %s: %d is not between %d and %d", x.name, x.value, x.least, x.most))
		}
	}
	return wrong
}

type stage struct {
	limits  Limits
	danger  map[string]bool
	protect protected
	buffers buffers
}

func newStage(c Config) (*stage, error) {
	s := &stage{limits: c.Limits, danger: map[string]bool{}}
	wrong := c.Limits.check()
	for _, e := range c.Extensions {
		ext, ok := cleanExtension(e)
		if !ok {
			wrong = append(wrong, fmt.Errorf("extensions: %q is none: write for example exe", e))
			continue
		}
		s.danger[ext] = true
	}
	var err error
	if s.protect, err = parseProtected(c.Protect); err != nil {
		wrong = append(wrong, err)
	}
	return s, errors.Join(wrong...)
}

// Reads implements pipeline.Stage.
func (s *stage) Reads() pipeline.Reads {
	return pipeline.Reads{Input: pipeline.InputSender | pipeline.InputRecipients | pipeline.InputHeader | pipeline.InputBody}
}

// Check looks at the message. Nothing about a mail makes it fail.
func (s *stage) Check(_ context.Context, v pipeline.View) (pipeline.Result, error) {
	if v.Message == nil {
		return pipeline.Result{}, errors.New("there is no message")
	}
	m, missing := v.Message, map[string]error{}
	reached := reached{}
	f := Fact{Sender: s.sender(v)}
	f.Attachments, f.AttachmentCount = s.attachments(m, reached)
	f.HTML = readHTML(m.HTML(), s.limits.HTML, senderOrg(m), reached)
	s.language(&f, m, reached)
	if skew, ok := dateSkew(m, v.Received); ok {
		f.DateSkew = skew
	} else {
		missing["date_skew"] = errNoDate
	}
	f.Odd = odd(m, reached)
	f.Limits = reached.names()
	return pipeline.Result{Fact: f, Missing: missing}, nil
}
