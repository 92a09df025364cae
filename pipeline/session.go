package pipeline

import (
	"context"
	"errors"
	"time"

	"sluice/pipeline/mime"
)

var errNotAsked = errors.New("not asked")
var errNotRecorded = errors.New("not in the record")

// A Plan is a checked, immutable list of steps.
type Plan struct{}

// NewPlan makes the stages of all steps and works out when each is asked. Its error joins everything that is wrong.
func NewPlan(steps []Step, env Env, o Options) (*Plan, error) { return &Plan{}, nil }

// Text is the plan as text, for the journal.
func (p *Plan) Text() string { return "" }

// Options are settings of a whole plan; the zero value is the default.
type Options struct {
	// SpeakEarliest speaks a refusal as soon as it is decided, and not at RCPT.
	SpeakEarliest bool
	// PhaseTimeout bounds each phase before content; 0 is 20 s.
	PhaseTimeout time.Duration
	// ContentTimeout bounds the content phase; 0 is 4 minutes.
	ContentTimeout time.Duration
	// Workers bounds the calls for single recipients that one transaction has under way; 0 is 8.
	Workers int
	// Abandoned bounds the calls of one stage that have outlived their deadline and still hang; 0 is 64. Beyond it the
	// stage fails at once.
	Abandoned int
}

// Resume returns a session that goes on where a record ends: its transaction, client and facts are recalled. Drive it
// with Rcpt …, Data, Content, Done. Recipients that the record names get the recorded decision, for them only steps
// that are asked at delivery are asked; others are decided from the recorded facts.
func (p *Plan) Resume(d Door, r *Record) *Session { return &Session{} }

// Version names the plan in records: a hash of its steps.
func (p *Plan) Version() string { return "" }

// Warnings are things about the plan that an administrator should know, one sentence each.
func (p *Plan) Warnings() []string { return nil }

// NewSession begins the conversation of a door with one client. A Session is driven by one goroutine.
func (p *Plan) NewSession(d Door, c Client) *Session { return &Session{} }

// A Session is one client's connection: what a door drives, in the order Connect, Helo, Mail, Rcpt …, Data, Content,
// Done, and again from Mail for the next message. Close ends it.
type Session struct{}

// Connect asks the stages that need the client only.
func (s *Session) Connect(ctx context.Context) *Reply { return nil }

// Helo takes the client's greeting. A second one drops what was found from the first. It may be called without
// Connect, which it then does. A reply that is not nil refuses (only with speak: earliest).
func (s *Session) Helo(ctx context.Context, greeting string) *Reply { return nil }

// SetClient says that more is known of the client, or something else: it has logged in, or TLS has begun. What was found
// about the client before is dropped and asked again at the next phase.
func (s *Session) SetClient(c Client) {}

// Mail begins a transaction and returns its id. A transaction under way is reset first.
func (s *Session) Mail(ctx context.Context, from Address) (id string, refuse *Reply) { return "", nil }

// SetQueueID names the transaction as the MTA in front of us does.
func (s *Session) SetQueueID(id string) {}

// Rcpt takes a recipient. A reply that is not nil refuses this recipient, who then is no longer part of the
// transaction but of its record.
func (s *Session) Rcpt(ctx context.Context, r Recipient) *Reply { return nil }

// Refuse notes a recipient that the door itself refuses (an unknown user, a full mailbox), for the record.
func (s *Session) Refuse(r Recipient, reply Reply, why string) {}

// Data says that all recipients are known. A reply that is not nil refuses the message for all.
func (s *Session) Data(ctx context.Context) *Reply { return nil }

// Content gives the message and returns a decision for each recipient that was taken, in their order.
func (s *Session) Content(ctx context.Context, m *mime.Message) []Decision { return nil }

// A Decision is what was decided for one recipient.
type Decision struct {
	Recipient Recipient
	Verdict   Verdict  // with its reply filled in
	Step      string   // whose verdict it is
	Folder    string   // of the implicit keep; "" is the inbox
	Flags     []string //
	Edits     []Edit   // header fields to add and delete in this recipient's copy, in order
	Hits      []Hit    // that counted, in configured order, without shadow ones
	Score     float64  // the sum of Hits
	Junk      bool     // Folder is the folder for junk, by a threshold
	Recalled  bool     // it was decided before, at another door, which added Fields and Edits
}

// A Delivery is what the door did for one recipient.
type Delivery struct {
	Disposition Disposition
	Reply       Reply
	Folder      string // where it was filed, if elsewhere than decided
	File        string
	Held        string
	Note        string
}

// Done ends the transaction with what the door did for each recipient of Content's decisions, and hands its record
// over; the reply is what the door is about to say. With durable (a discard, or anything else of which the record is
// the only trace) it returns once the record would survive a power cut. It is called before the reply is written;
// after an error the door answers 451.
func (s *Session) Done(ctx context.Context, reply Reply, deliveries []Delivery) error { return nil }

// Reset ends the transaction without a message being accepted; why is for the record. Without a transaction, and after
// Done, it does nothing.
func (s *Session) Reset(why string) {}

// Close ends the session, and a transaction that is under way.
func (s *Session) Close() {}
