package milter

import (
	"encoding/binary"
	"errors"
	"fmt"

	gomilter "github.com/emersion/go-milter"
)

// An event is one kind of step of the conversation about a mail.
type event struct {
	name   string
	code   gomilter.Code
	never  gomilter.OptProtocol // the milter does not want to hear of it
	silent gomilter.OptProtocol // it does not answer
	macros uint32               // which list of macros is for it (SMFIM_*)
	since  uint32               // version of the protocol
}

const noMacros = 99 // of header fields and body chunks

func connectEvent() event {
	return event{"connect", gomilter.CodeConn, gomilter.OptNoConnect, gomilter.OptNoConnReply, 0, 2}
}

func heloEvent() event {
	return event{"helo", gomilter.CodeHelo, gomilter.OptNoHelo, gomilter.OptNoHeloReply, 1, 2}
}

func mailEvent() event {
	return event{"mail", gomilter.CodeMail, gomilter.OptNoMailFrom, gomilter.OptNoMailReply, 2, 2}
}

func rcptEvent() event {
	return event{"rcpt", gomilter.CodeRcpt, gomilter.OptNoRcptTo, gomilter.OptNoRcptReply, 3, 2}
}

func dataEvent() event {
	return event{"data", gomilter.CodeData, gomilter.OptNoData, gomilter.OptNoDataReply, 4, 4}
}

func headerEvent() event {
	return event{"header", gomilter.CodeHeader, gomilter.OptNoHeaders, gomilter.OptNoHeaderReply, noMacros, 2}
}

func eohEvent() event {
	return event{"eoh", gomilter.CodeEOH, gomilter.OptNoEOH, gomilter.OptNoEOHReply, 6, 2}
}

func bodyEvent() event {
	return event{"body", gomilter.CodeBody, gomilter.OptNoBody, gomilter.OptNoBodyReply, noMacros, 2}
}

// The end of the message is always told and always answered.
func eomEvent() event { return event{name: "eom", code: gomilter.CodeEOB, macros: 5, since: 2} }

const (
	version = 6
	// All that version 6 has: libmilter hangs up where it may not do what a filter has announced. What is not carried out
	// is stated in the fact.
	allActions  = 0x1ff
	allProtocol = 0x1fffff
)

// negotiate agrees with the milter on what is said.
func (d *dialogue) negotiate() error {
	offer := binary.BigEndian.AppendUint32(nil, version)
	offer = binary.BigEndian.AppendUint32(offer, allActions)
	offer = binary.BigEndian.AppendUint32(offer, allProtocol)
	if err := d.wire.send(gomilter.CodeOptNeg, offer); err != nil {
		return err
	}
	code, data, err := d.wire.receive(d.limits.CommandTimeout)
	if err != nil {
		return err
	}
	if gomilter.Code(code) != gomilter.CodeOptNeg || len(data) < 12 {
		return fmt.Errorf("%q with %d octets is no answer to a negotiation: this is no milter", code, len(data))
	}
	d.version = binary.BigEndian.Uint32(data)
	actions := binary.BigEndian.Uint32(data[4:])
	protocol := binary.BigEndian.Uint32(data[8:])
	switch {
	case d.version < 2 || d.version > version:
		return fmt.Errorf("it speaks version %d of the protocol; 2 to %d are understood", d.version, version)
	case actions&^allActions != 0:
		return fmt.Errorf("it wants to do what was not offered (actions %#x)", actions)
	case protocol&^allProtocol != 0:
		return fmt.Errorf("it wants a conversation that was not offered (protocol %#x)", protocol)
	}
	d.protocol = gomilter.OptProtocol(protocol)
	d.wanted, err = parseWanted(data[12:])
	return err
}

// parseWanted reads the macros that a milter asks for (SMFIF_SETSYMLIST): for each stage its number and a string of
// names.
func parseWanted(data []byte) (map[uint32]map[string]bool, error) {
	wanted := map[uint32]map[string]bool{}
	for len(data) > 0 {
		if len(data) < 5 {
			return nil, errors.New("the list of macros that it wants is cut off")
		}
		stage := binary.BigEndian.Uint32(data)
		names, rest, ok := cutString(data[4:])
		if !ok {
			return nil, errors.New("the list of macros that it wants is cut off")
		}
		wanted[stage] = macroNames(names)
		data = rest
	}
	return wanted, nil
}
