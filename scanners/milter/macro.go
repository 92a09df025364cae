package milter

import (
	"bytes"
	"maps"
	"slices"
	"strings"

	gomilter "github.com/emersion/go-milter"

	"sluice/pipeline"
)

// A macro is a value that goes with an event, its name without braces.
type macro struct{ name, value string }

// macrosOf returns what goes with an event: what the milter has asked for of what is known, or else what Postfix and
// Sendmail send by default. Those of the configuration go with connect, where nothing else was asked for.
func (d *dialogue) macrosOf(e event, rcpt pipeline.Address) []macro {
	if e.macros == noMacros {
		return nil
	}
	var usual []macro
	switch e.code {
	case gomilter.CodeConn:
		usual = d.ofClient()
	case gomilter.CodeHelo:
		usual = []macro{{"tls_version", d.view.Client.TLS}}
	case gomilter.CodeMail:
		usual = append(d.ofLogin(), ofAddress("mail", d.view.Sender)...)
		usual = append(usual, macro{"i", d.view.ID})
	case gomilter.CodeRcpt:
		usual = append(ofAddress("rcpt", rcpt), macro{"i", d.view.ID})
	case gomilter.CodeData, gomilter.CodeEOH, gomilter.CodeEOB:
		usual = []macro{{"i", d.view.ID}}
	}
	if wanted, ok := d.wanted[e.macros]; ok {
		// It may want at one event what others get at another.
		known := slices.Concat(d.configured(), usual, d.ofClient(), d.ofLogin(), ofAddress("mail", d.view.Sender),
			[]macro{{"i", d.view.ID}, {"tls_version", d.view.Client.TLS}})
		usual = usual[:0:0]
		for _, m := range known {
			if wanted[m.name] && !slices.ContainsFunc(usual, func(o macro) bool { return o.name == m.name }) {
				usual = append(usual, m)
			}
		}
	} else if e.code == gomilter.CodeConn {
		usual = slices.DeleteFunc(usual, func(m macro) bool { _, ours := d.limits.Macros[m.name]; return ours })
		usual = append(d.configured(), usual...)
	}
	return slices.DeleteFunc(usual, func(m macro) bool { return m.value == "" })
}

// configured are the macros that the configuration sets.
func (d *dialogue) configured() (out []macro) {
	for _, name := range slices.Sorted(maps.Keys(d.limits.Macros)) {
		out = append(out, macro{name, d.limits.Macros[name]})
	}
	return out
}

func (d *dialogue) ofClient() []macro {
	out := []macro{{"j", d.hostname}, {"daemon_name", "sluice"}, {"v", "Sluice"}}
	c := d.view.Client
	if !c.Known() {
		return out
	}
	addr := c.Addr.Unmap().WithZone("").String()
	resolve := "OK"
	if c.Name == "" {
		resolve = "FAIL"
	}
	return append(out, macro{"_", d.clientName() + " [" + addr + "]"}, macro{"client_addr", addr},
		macro{"client_name", d.clientName()}, macro{"client_port", "0"}, macro{"client_resolve", resolve})
}

func (d *dialogue) ofLogin() []macro {
	if d.view.Client.Login == "" {
		return nil
	}
	return []macro{{"auth_type", "PLAIN"}, {"auth_authen", d.view.Client.Login}}
}

// ofAddress is where a mail server would take an address: {mail_addr}, {mail_host}, {mail_mailer}.
func ofAddress(what string, a pipeline.Address) []macro {
	if a.IsZero() {
		return nil
	}
	mailer := "esmtp"
	if what == "rcpt" {
		mailer = "local"
	}
	return []macro{{what + "_mailer", mailer}, {what + "_host", a.Domain}, {what + "_addr", a.Raw}}
}

// packMacros is a macro packet's content. Names of more than one letter have braces.
func packMacros(e event, list []macro) []byte {
	b := []byte{byte(e.code)}
	for _, m := range list {
		name := m.name
		if len(name) > 1 {
			name = "{" + name + "}"
		}
		b = appendString(appendString(b, name), m.value)
	}
	return b
}

// macroNames reads "i {auth_authen} j".
func macroNames(s string) map[string]bool {
	names := map[string]bool{}
	for name := range strings.FieldsFuncSeq(s, func(r rune) bool { return r == ' ' || r == ',' }) {
		names[strings.Trim(name, "{}")] = true
	}
	return names
}

// appendString adds a string as C has them. One with a NUL would be another: a space stands in for it.
func appendString(b []byte, s string) []byte {
	return append(append(b, strings.ReplaceAll(s, "\x00", " ")...), 0)
}

// cutString takes a string off the beginning of data.
func cutString(data []byte) (s string, rest []byte, ok bool) {
	before, rest, ok := bytes.Cut(data, []byte{0})
	return string(before), rest, ok
}
