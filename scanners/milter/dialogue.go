package milter

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"slices"

	gomilter "github.com/emersion/go-milter"

	"sluice/pipeline"
)

// A dialogue is the conversation with a milter about one mail, on a connection of its own.
type dialogue struct {
	wire     *wire
	limits   Config
	hostname string
	view     pipeline.View

	// agreed
	version  uint32
	protocol gomilter.OptProtocol
	wanted   map[uint32]map[string]bool // macros asked for, by stage; absent: the usual ones

	begun bool // the milter has heard of the mail
	edits int  // so far
	fact  Fact
	edit  []pipeline.Edit
}

// run tells the milter all that is known, event by event, until it has decided.
func (d *dialogue) run() error {
	d.fact = Fact{Scanned: true}
	if err := d.negotiate(); err != nil {
		return fmt.Errorf("negotiate: %w", err)
	}
	for _, part := range []func() (done bool, err error){d.client, d.envelope, d.header, d.body, d.end} {
		done, err := part()
		if err != nil {
			return err
		}
		if done {
			break
		}
	}
	d.leave()
	return nil
}

// leave ends the conversation in good order. Nothing depends on it: the answer is known.
func (d *dialogue) leave() {
	if d.begun && d.fact.Event != eomEvent().name {
		_ = d.wire.send(gomilter.CodeAbort, nil)
	}
	_ = d.wire.send(gomilter.CodeQuit, nil)
	_ = d.wire.w.Flush()
}

// tell sends an event, with its macros, and returns the answer: continue, where none comes.
func (d *dialogue) tell(e event, data []byte, rcpt pipeline.Address) (answer, error) {
	if d.protocol&e.never != 0 || d.version < e.since {
		return answer{verdict: wentOn}, nil
	}
	if list := d.macrosOf(e, rcpt); len(list) > 0 {
		if err := d.wire.send(gomilter.CodeMacro, packMacros(e, list)); err != nil {
			return answer{}, fmt.Errorf("%s: %w", e.name, err)
		}
	}
	if err := d.wire.send(e.code, data); err != nil {
		return answer{}, fmt.Errorf("%s: %w", e.name, err)
	}
	if d.protocol&e.silent != 0 {
		return answer{verdict: wentOn}, nil
	}
	code, reply, err := d.wire.receive(d.limits.CommandTimeout)
	if err != nil {
		return answer{}, fmt.Errorf("%s: %w", e.name, err)
	}
	a, err := parseAnswer(code, reply)
	if err != nil {
		return answer{}, fmt.Errorf("%s: %w", e.name, err)
	}
	return a, nil
}

// ask tells an event and reports whether the milter has decided with it.
func (d *dialogue) ask(e event, data []byte) (done bool, err error) {
	a, err := d.tell(e, data, pipeline.Address{})
	if err != nil || a.verdict == wentOn {
		return false, err
	}
	if a.skip {
		return false, fmt.Errorf("%s: it wants to skip what comes once", e.name)
	}
	d.decide(e, a)
	return true, nil
}

func (d *dialogue) decide(e event, a answer) {
	d.fact.Verdict, d.fact.Event = a.verdict, e.name
	d.fact.Code, d.fact.Enhanced, d.fact.Text = a.code, a.enhanced, a.text
}

// client tells who is connected.
func (d *dialogue) client() (done bool, err error) {
	b := appendString(nil, d.clientName())
	switch addr := d.view.Client.Addr.Unmap().WithZone(""); {
	case !addr.IsValid():
		b = append(b, byte(gomilter.FamilyUnknown))
	case addr.Is4():
		b = appendString(append(b, byte(gomilter.FamilyInet), 0, 0), addr.String())
	default:
		b = appendString(append(b, byte(gomilter.FamilyInet6), 0, 0), addr.String())
	}
	if done, err := d.ask(connectEvent(), b); done || err != nil {
		return done, err
	}
	if d.view.Greeting == "" {
		return false, nil
	}
	return d.ask(heloEvent(), appendString(nil, d.view.Greeting))
}

// clientName is the client's name as MTAs give it: an address in brackets where it has none.
func (d *dialogue) clientName() string {
	c := d.view.Client
	switch {
	case c.Name != "":
		return c.Name
	case c.Known():
		return "[" + c.Addr.Unmap().WithZone("").String() + "]"
	}
	return "unknown"
}

// envelope tells sender and recipients. A recipient that is refused is; the others go on.
func (d *dialogue) envelope() (done bool, err error) {
	d.begun = true
	if done, err := d.ask(mailEvent(), appendString(nil, "<"+d.view.Sender.Raw+">")); done || err != nil {
		return done, err
	}
	e := rcptEvent()
	for _, r := range d.view.Recipients {
		b := appendString(nil, "<"+r.Address.Raw+">")
		if r.ORCPT != "" {
			b = appendString(b, "ORCPT="+r.ORCPT)
		}
		if r.Notify != "" {
			b = appendString(b, "NOTIFY="+r.Notify)
		}
		a, err := d.tell(e, b, r.Address)
		switch {
		case err != nil:
			return false, err
		case a.skip:
			return false, errors.New("rcpt: it wants to skip what decides")
		case a.verdict == refused, a.verdict == postponed:
			d.fact.RcptsRefused = append(d.fact.RcptsRefused, Refusal{
				Address: r.Address.Raw, Verdict: a.verdict, Code: a.code, Enhanced: a.enhanced, Text: a.text,
			})
		case a.verdict != wentOn:
			d.decide(e, a)
			return true, nil
		}
	}
	if n := len(d.fact.RcptsRefused); n > 0 && n == len(d.view.Recipients) {
		d.decide(e, d.fact.refusal())
		return true, nil
	}
	return d.ask(dataEvent(), nil)
}

// refusal is what a client would be told of which every recipient is refused: later, if that may help one of them.
func (f *Fact) refusal() answer {
	first := f.RcptsRefused[0]
	if i := slices.IndexFunc(f.RcptsRefused, func(r Refusal) bool { return r.Verdict == postponed }); i >= 0 {
		first = f.RcptsRefused[i]
	}
	return answer{verdict: first.Verdict, code: first.Code, enhanced: first.Enhanced, text: first.Text}
}

// header tells the header fields. Lines that are no fields cannot be told.
func (d *dialogue) header() (done bool, err error) {
	e := headerEvent()
	for _, f := range d.view.Message.Header().Fields() {
		_, value, _ := bytes.Cut(f.Raw, []byte{':'})
		// MTAs end the lines of a folded field with LF, and leave a leading space out unless it was asked for.
		value = bytes.ReplaceAll(value, []byte("\r\n"), []byte("\n"))
		if d.protocol&gomilter.OptHeaderLeadingSpace == 0 {
			value = bytes.TrimPrefix(value, []byte{' '})
		}
		a, err := d.tell(e, appendString(appendString(nil, f.Name), string(value)), pipeline.Address{})
		if err != nil {
			return false, err
		}
		if a.skip {
			break
		}
		if a.verdict != wentOn {
			d.decide(e, a)
			return true, nil
		}
	}
	return d.ask(eohEvent(), nil)
}

// body tells the body, until the milter has seen enough.
func (d *dialogue) body() (done bool, err error) {
	e := bodyEvent()
	if d.protocol&e.never != 0 {
		return false, nil
	}
	body := d.view.Message.RawBody()
	chunk := make([]byte, min(gomilter.MaxBodyChunk, body.Size()))
	for rest := body.Size(); rest > 0; rest -= int64(len(chunk)) {
		chunk = chunk[:min(int64(len(chunk)), rest)]
		if _, err := io.ReadFull(body, chunk); err != nil {
			return false, fmt.Errorf("read the mail: %w", err)
		}
		a, err := d.tell(e, chunk, pipeline.Address{})
		if err != nil {
			return false, err
		}
		if a.skip {
			break
		}
		if a.verdict != wentOn {
			d.decide(e, a)
			return true, nil
		}
	}
	return false, nil
}

// end tells the end of the message, and takes what the milter wants changed and what it has decided.
func (d *dialogue) end() (done bool, err error) {
	e := eomEvent()
	if list := d.macrosOf(e, pipeline.Address{}); len(list) > 0 {
		if err := d.wire.send(gomilter.CodeMacro, packMacros(e, list)); err != nil {
			return false, fmt.Errorf("%s: %w", e.name, err)
		}
	}
	if err := d.wire.send(e.code, nil); err != nil {
		return false, fmt.Errorf("%s: %w", e.name, err)
	}
	for {
		code, data, err := d.wire.receive(d.limits.ContentTimeout)
		if err != nil {
			return false, fmt.Errorf("%s: %w", e.name, err)
		}
		changes, err := d.change(code, data)
		if err != nil {
			return false, fmt.Errorf("%s: %w", e.name, err)
		}
		if changes {
			continue
		}
		a, err := parseAnswer(code, data)
		if err != nil {
			return false, fmt.Errorf("%s: %w", e.name, err)
		}
		if a.skip {
			return false, fmt.Errorf("%s: it wants to skip the end", e.name)
		}
		d.decide(e, d.conclude(a))
		return true, nil
	}
}

// conclude works out what the last answer and the changes before it come to.
func (d *dialogue) conclude(a answer) answer {
	if a.verdict != wentOn && a.verdict != accepted {
		return a
	}
	if d.fact.Quarantined {
		return answer{verdict: quarantined}
	}
	gone := 0
	for _, r := range d.view.Recipients {
		if slices.Contains(d.fact.RcptsDeleted, r.Address.Raw) {
			gone++
		}
	}
	if gone > 0 && gone == len(d.view.Recipients) && len(d.fact.RcptsAdded) == 0 {
		return answer{verdict: discarded} // it goes to nobody
	}
	return a
}

// position reads the place of a field, from 1; some write 0 for the first.
func position(data []byte) (int, []byte, error) {
	if len(data) < 4 {
		return 0, nil, errors.New("a change of a header field is cut off")
	}
	return int(max(1, min(binary.BigEndian.Uint32(data), 1<<20))), data[4:], nil
}
