package pipeline

import (
	"cmp"
	"context"
	"log/slog"
	"net"
	"net/netip"
	"time"
)

// OnError is what the configuration says for a stage that could not answer.
type OnError uint8

const (
	Skip     OnError = iota // go on without: its fact is unknown
	Postpone                // ask the sender to try again later
	Refuse                  // refuse for good
)

var onErrorNames = [...]string{"skip", "postpone", "refuse"}

func (o OnError) String() string {
	if int(o) < len(onErrorNames) {
		return onErrorNames[o]
	}
	return "on_error?"
}

// MarshalText writes the word that configurations use.
func (o OnError) MarshalText() ([]byte, error) {
	return marshalName("on_error", onErrorNames[:], int(o))
}

// UnmarshalText reads the word that configurations use.
func (o *OnError) UnmarshalText(text []byte) error {
	i, err := unmarshalName("on_error", onErrorNames[:], text)
	*o = OnError(i)
	return err
}

// A Kind makes stages of one kind from its section of the configuration.
type Kind struct {
	Name string // what the configuration calls it: [a-z][a-z0-9_]*
	Doc  string // one sentence for the reference
	// Step is what rules call its steps where the configuration gives no name; "" is Name. It is set where the rule
	// language has another meaning for the kind's name.
	Step    string
	OnError OnError
	// Pure says that its stages are functions of what they read: asked again with the same View they say the same. What
	// other stages found is recalled from a record; a pure stage is asked again.
	Pure bool
	// AtDelivery says that its stages are asked where the mail is filed, not where it was scanned: after a hand-over they
	// are asked although the record has decided.
	AtDelivery bool
	// Unread is what an administrator should know about a step of this kind whose facts no later step reads; "" is nothing.
	Unread string
	// Config returns a pointer to a new configuration struct with the defaults filled in. Its fields have `yaml` tags for
	// their keys. The reference shows their comments, or for stages of a site's own what a tag `doc:"…"` says, and where
	// there is no default what a tag `example:"…"` says.
	Config func() any
	// Fact returns a value of the type that rules will see: plain strings, numbers, bools, slices, structs of them, with
	// `json` tags for names. Where names depend on the configuration it is a Named with those names. nil: no fact.
	Fact func(config any) any
	// New makes the stages, mostly one, from the struct that Config returned.
	New func(config any, env Env) ([]Stage, error)
}

// StepName is the name of a step of this kind that the configuration gives none.
func (k Kind) StepName() string { return cmp.Or(k.Step, k.Name) }

// A Step is one entry of the configured list of stages.
type Step struct {
	Name    string // "" is the kind's name
	Kind    Kind
	Config  any           // from Kind.Config
	OnError *OnError      // nil is the kind's default
	Timeout time.Duration // of one call; 0 is 10 s before content and 60 s at content
	At      *Phase        // not to be asked before; nil is as early as possible
	Shadow  bool          // recorded, never acted on
	Pos     string        // "sluice.yaml:12:5", for messages
	// Failed says that the step could not be read, which has been reported: it stands in its place so that the steps after
	// it can be checked, and what it would find is not known. Its Config is what could be read of it, nil for nothing; what
	// is wrong with that is found too. There is no plan of such steps.
	Failed bool
}

// An Env is the world as stages may see it. Everything that depends on the world comes through it.
type Env struct {
	Log   *slog.Logger
	Now   func() time.Time
	NewID func() string // ids of transactions: at most 40 of [0-9A-Za-z], sortable by time
	// Hostname is what we call ourselves, "mx.example.org"; never "".
	Hostname string
	// Version is that of the program; "" where nobody says.
	Version string
	// Resolver asks the DNS.
	Resolver Resolver
	Dial     func(ctx context.Context, network, address string) (net.Conn, error)
	State    State
	// Files returns the files a configuration names; a name may be a pattern as in path/filepath.Match and is relative to
	// the configuration. A name that leads to no file is an error.
	Files func(pattern string) ([]File, error)
	// Secret returns the text of one file that a configuration names, such as a password, without white space around it.
	// The name is relative to the configuration and no pattern. A file that is not there or empty is an error. Unlike what
	// Files returns it leaves no trace in the plan's text and version, which the journal keeps: not even a hash, from which
	// a short secret could be guessed.
	Secret func(name string) (string, error)
	// Before describes the steps before the one being made, and last that one itself.
	Before []Before
	// Warn hands on what an administrator should know about a configuration that is right; nil is for nobody.
	Warn func(error)
	// Name is the name of the step being made.
	Name string
	// Journal gets the record of every transaction.
	Journal Recorder
	// Trials asks shadow steps and shadow rules after the door has answered, and Journal gets a second record with what they
	// said. nil: they are asked before the record is made, and the door waits for them.
	Trials *Trials
	// Folder says why no folder here can have a name; nil: nothing is filed here, and any name will do.
	Folder func(name string) error
	// Owners knows what recipients keep here of their own; nil: they keep nothing.
	Owners Owners
	// Offline says that nothing outside is asked and no program run, as where a configuration is checked. Resolver, Dial
	// and State then fail by themselves.
	Offline bool
}

// A File is one file that a configuration names.
type File struct {
	Path string // as messages name it
	Text []byte
}

// Before is what a stage may know of a step of the plan when it is made.
type Before struct {
	Name   string
	Kind   string
	Shadow bool
	// Fact is a value of the type of the step's fact, as Kind.Fact gave it; nil where the kind has none.
	Fact any
	// Phase is when the last of its stages is asked, and PerRcpt whether any is asked for each recipient. Of a step that is
	// no shadow one those stages that are do not matter.
	Phase   Phase
	PerRcpt bool
	// Logins is whether any of its stages is about the mail of logins, too (see Reads).
	Logins bool
	// Rules names the step's rules, in order, and ShadowRules those of them that are tried only (see Ruler).
	Rules, ShadowRules []string
	// Failed: the step could not be made, which has been reported; nothing is known of its rules, and where Fact is nil
	// nothing of its facts either. Without a Name it may be any step. The step's own: parts of it could not be read.
	Failed bool
}

// A Ruler is a stage that has rules, whose names hit() may use.
type Ruler interface {
	Rules() []string       // of the whole step, by their place
	ShadowRules() []string // those of them that are recorded only
}

// A Chooser is a stage asked for each recipient that gives some of its final verdicts for some recipients only: it holds
// nothing back for others.
type Chooser interface {
	Concerns(r Recipient, f Final) bool // f is one of Reads.Can
	// Since is when it could be asked if it were about everybody. What follows from what it says is worked out as if it had
	// been asked then: for those for whom nothing is otherwise verdict and decider are the same as if nothing were for anybody.
	Since() Phase
}

// A Doer is a stage that says what it may want besides final verdicts, for those who ask whether a door can do it.
type Doer interface {
	Does() []Deed // those of shadow rules are left out
}

// A Deed is something that a stage may want done besides a final verdict, and its place in the stage's step.
type Deed struct {
	At   int
	Kind DeedKind
}

// A DeedKind names what a Deed is.
type DeedKind string

const (
	DoesFile DeedKind = "file" // an Effect that files into a folder
	DoesFlag DeedKind = "flag" // an Effect that sets flags
	DoesEdit DeedKind = "edit" // an Edit
	DoesJunk DeedKind = "junk" // an Effect that files into the junk folder, for its score
)

// A Resolver asks the DNS. Its errors are *net.DNSError: IsNotFound says that the name or the type does not exist;
// IsTimeout and IsTemporary say that the question stays open.
type Resolver interface {
	// LookupAddr asks for both A and AAAA; the answer of one is enough.
	LookupAddr(ctx context.Context, name string) ([]netip.Addr, error)
	LookupA(ctx context.Context, name string) ([]netip.Addr, error)
	LookupAAAA(ctx context.Context, name string) ([]netip.Addr, error)
	// LookupTXT gives each record as one string.
	LookupTXT(ctx context.Context, name string) ([]string, error)
	LookupPTR(ctx context.Context, addr netip.Addr) ([]string, error)
	LookupMX(ctx context.Context, name string) ([]*net.MX, error)
}

// State keeps counters and small values with an expiry, shared by everything that uses one data folder.
type State interface {
	// Load returns the value of a key; ok is false where there is none or it has expired.
	Load(ctx context.Context, key string) (value []byte, ok bool, err error)
	// Store sets the value of a key for a time.
	Store(ctx context.Context, key string, value []byte, keep time.Duration) error
	// Add adds n to a counter and returns its new value; a counter that is new starts at 0 and expires after keep.
	Add(ctx context.Context, key string, n int64, keep time.Duration) (int64, error)
}

// A Recorder keeps records of decisions.
type Recorder interface {
	// Record takes a record over. With durable it returns once the record would survive a power cut; without, the
	// record can be found at once and is written soon.
	Record(ctx context.Context, r *Record, durable bool) error
}
