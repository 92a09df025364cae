package sieve

import (
	"strings"

	"sluice/pipeline/mime"
)

// A message is the mail as the script sees it at one moment. What was read of it is kept: every rule asks for the same
// few fields.
type message struct {
	src     *mime.Message
	header  *header
	headers [1]*header // the same, for the tests
	parts   map[*mime.Part]*header
	// draft is what the script has made of it; nil: nothing, and src is the mail as it came.
	draft  *draft
	bodies map[string][]subject // what body tests looked for, decoded
}

func newMail(m *mime.Message) *message {
	if m == nil {
		var err error
		if m, err = mime.Parse(strings.NewReader("\r\n"), 2, mime.Limits{}); err != nil {
			m = &mime.Message{} // it cannot be: two octets have no header
		}
	}
	x := &message{src: m}
	x.setHeader(newHeader(m.Header().Fields()))
	return x
}

func (m *message) setHeader(h *header) { m.header, m.headers[0] = h, h }

// A header is the fields of a message or of a part.
type header struct {
	fields []mime.Field
	texts  map[string][]subject
	lists  map[string][][]address
}

func newHeader(fields []mime.Field) *header {
	return &header{fields: fields, texts: map[string][]subject{}}
}

// of returns the header of a part.
func (m *message) of(p *mime.Part) *header {
	if p == m.src.Root() {
		return m.header
	}
	h := m.parts[p]
	if h == nil {
		if m.parts == nil {
			m.parts = map[*mime.Part]*header{}
		}
		h = newHeader(p.Header.Fields())
		m.parts[p] = h
	}
	return h
}

// values returns the decoded values of the fields of a name, which is in lower case.
func (h *header) values(name string) []subject {
	if all, ok := h.texts[name]; ok {
		return all
	}
	var all []subject
	for _, f := range h.fields {
		if len(f.Name) == len(name) && strings.EqualFold(f.Name, name) {
			all = append(all, subject{text: strings.Trim(f.Text(), " \t")})
		}
	}
	const most = 256 // names that are kept: a script may ask for any number
	if len(h.texts) < most {
		h.texts[name] = all
	}
	return all
}

// An address is one address of a field.
type address struct {
	local, domain string
	ok            bool // it can be read as an address
}

// addresses returns the addresses of the fields of a name, field by field.
func (h *header) addresses(name string) [][]address {
	if all, ok := h.lists[name]; ok {
		return all
	}
	var all [][]address
	for _, f := range h.fields {
		if len(f.Name) != len(name) || !strings.EqualFold(f.Name, name) {
			continue
		}
		var list []address
		for _, a := range f.Addresses() {
			if x := splitAddress(a.Raw); x.ok {
				list = append(list, x)
			}
		}
		// RFC 5228, 5.1: what is no address is still something to compare as a whole.
		if v := f.Value(); list == nil && v != "" && !strings.HasSuffix(v, ";") {
			list = []address{{local: v}}
		}
		all = append(all, list)
	}
	if h.lists == nil || len(h.lists) == 256 {
		h.lists = map[string][][]address{}
	}
	h.lists[name] = all
	return all
}

// splitAddress splits an address as it was written; case stays.
func splitAddress(s string) address {
	at := strings.LastIndexByte(s, '@')
	if at <= 0 || at == len(s)-1 {
		return address{local: s}
	}
	local := s[:at]
	if len(local) > 1 && local[0] == '"' && local[len(local)-1] == '"' {
		var b strings.Builder
		for i := 1; i < len(local)-1; i++ {
			if local[i] == '\\' && i+1 < len(local)-1 {
				i++
			}
			b.WriteByte(local[i])
		}
		local = b.String()
	}
	return address{local: local, domain: s[at+1:], ok: true}
}
