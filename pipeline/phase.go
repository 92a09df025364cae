package pipeline

import "strings"

// A Phase is a moment of a mail transaction at which stages are asked. Phases come in the order of the constants.
type Phase uint8

const (
	Connect Phase = iota // a client has connected
	Helo                 // it has greeted
	Mail                 // it has named a sender; the transaction and its id begin here
	Rcpt                 // it has named one more recipient
	Data                 // all recipients are known
	Content              // the whole message is here
)

var phaseNames = [...]string{"connect", "helo", "mail", "rcpt", "data", "content"}

func (p Phase) String() string {
	if int(p) < len(phaseNames) {
		return phaseNames[p]
	}
	return "phase?"
}

// MarshalText writes the name of the phase.
func (p Phase) MarshalText() ([]byte, error) { return marshalName("phase", phaseNames[:], int(p)) }

// UnmarshalText reads the name of a phase, as [Phase.String] writes it.
func (p *Phase) UnmarshalText(text []byte) error {
	i, err := unmarshalName("phase", phaseNames[:], text)
	*p = Phase(i)
	return err
}

// An Input is a set of the things of a transaction that a stage looks at.
type Input uint8

const (
	InputClient     Input = 1 << iota // who is connected: Envelope.Client
	InputGreeting                     // Envelope.Greeting
	InputSender                       // Envelope.Sender
	InputRecipient                    // View.Rcpt: the stage is asked for each recipient by itself
	InputRecipients                   // Envelope.Recipients, all of them
	InputHeader                       // the header of View.Message
	InputBody                         // the whole of View.Message
)

var inputNames = [...]string{"client", "greeting", "sender", "recipient", "recipients", "header", "body"}

func (i Input) String() string {
	var names []string
	for n, name := range inputNames {
		if i&(1<<n) != 0 {
			names = append(names, name)
		}
	}
	return strings.Join(names, "|")
}

// Phase returns the first phase at which everything in i is known.
func (i Input) Phase() Phase {
	switch {
	case i&(InputHeader|InputBody) != 0:
		return Content
	case i&InputRecipients != 0:
		return Data
	case i&InputRecipient != 0:
		return Rcpt
	case i&InputSender != 0:
		return Mail
	case i&InputGreeting != 0:
		return Helo
	default:
		return Connect
	}
}
