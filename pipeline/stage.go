package pipeline

import (
	"context"

	"sluice/pipeline/mime"
)

// A Stage answers one question about a mail transaction: is the client listed, does SPF pass, does the body carry a
// virus, which rules hold, what does this user's script want.
//
// Check is called once per transaction, or once per recipient for a stage that reads [InputRecipient]. Calls for other
// stages and other transactions go on at the same time. Check changes nothing in v and acts on nothing outside:
// whatever it wants done it returns, and only results that count are carried out.
//
// The zero Result with a nil error means "nothing to say". An error means that the question could not be answered; it
// is handled as the configuration says for this stage ([OnError]), and so are a deadline that passes and a panic.
type Stage interface {
	Reads() Reads
	Check(ctx context.Context, v View) (Result, error)
}

// A Prompter is a stage that waits for something outside, but for some mail only.
type Prompter interface {
	Stage
	// Prompt is Check where nothing has to be waited for. It is called first, and is bound as what only computes is. ok is
	// false where there is something to wait for, or to fail: nothing was done then, and Check is called, which may wait.
	Prompt(ctx context.Context, v View) (r Result, ok bool)
}

// Reads says what a stage looks at, and so when it can be asked and what it waits for. It never changes.
type Reads struct {
	Input Input
	// Facts names steps before this one whose facts and hits the stage reads, or its own step: what that step's earlier
	// stages found.
	Facts []string
	// Can lists the final verdicts it can give, by place in its step; those of shadow rules are left out.
	Can []Final
	// Waits says that it waits for something outside the program. A stage that only computes runs inline, in order, and
	// must bound its own work.
	Waits bool
	// Strangers: it reads the client, and is only asked about clients who are neither trusted nor logged in.
	Strangers bool
	// Logins: what it finds is about the mail of logins, too. Refusals of those who read it count for them, although they
	// may look neither at header nor at body.
	Logins bool
	// AnyClient: it reads the client, and is asked also where the client is unknown; View.Client is zero then.
	AnyClient bool
	// Shadow: what it says is a trial, like all that a shadow step says. It is asked after the door has answered, and no
	// stage that is not one reads what it finds.
	Shadow bool
}

// A Final is a final verdict that a stage can give, and its place in the stage's step.
type Final struct {
	At     int
	Action Action
}

// A View is the transaction as one call of a stage sees it: only what the stage declared, everything else is zero.
type View struct {
	Envelope
	Phase     Phase
	Rcpt      Recipient     // the one asked about, for a stage that reads InputRecipient
	Message   *mime.Message // nil before Content; immutable, safe for concurrent use
	Facts     Facts         // of the steps in Reads.Facts
	Hits      []Hit         // of the steps in Reads.Facts: rules that held, in configured order; shadow ones too
	Undecided []Undecided   // of the steps in Reads.Facts: rules that could not be decided
	Again     *Again        // set where a recorded transaction is decided again
}

// Facts are what earlier steps found, by the name of the step. A step of which nothing is known is absent or has a
// Finding with Unknown set.
type Facts map[string]Finding

// A Finding is what one step found out.
type Finding struct {
	Fact    any              // of the type that the step's kind declares; nil where Unknown is set
	Unknown error            // why there is no fact; it is ErrNotAsked where the step did not fail
	Missing map[string]error // top-level fields of Fact that are unknown, each with its reason
}

// Of returns what is known of a step. For a step of which nothing was heard Unknown is set.
func (f Facts) Of(step string) Finding {
	if x, ok := f[step]; ok {
		return x
	}
	return Finding{Unknown: ErrNotAsked}
}

// A Result is what a stage has to say. The zero Result says nothing.
type Result struct {
	// Fact is what a scanner found, of the type that its kind declares. It is kept in the record as JSON and shown to
	// rules under the step's name.
	Fact any
	// Missing names top-level fields of Fact that are left unknown ("zen"), each with its reason.
	Missing map[string]error

	Hits      []Hit
	Undecided []Undecided
	// Terms holds what each term of the stage's conditions came to, two bits a term in the order of the plan, lowest
	// bits first: 0 not evaluated, 1 false, 2 true, 3 unknown.
	Terms []byte

	Verdict Verdict  // the stage's first final one; the zero Verdict is none
	Effects []Effect //
	Edits   []Edit   // header fields to add or delete; of a stage that reads InputRecipient: in that recipient's copy

	// Handling, if set, is what the recipient's own wishes make of the mail, of a stage that reads InputRecipient.
	Handling *Handling

	// Note is for the operator: what is otherwise for the recipient and mattered. It is kept in the record.
	Note string

	// After, if set, is called exactly once for every result, also when the transaction is abandoned, with what became
	// of it. A stage that counts may reserve in Check and settle in After.
	After func(ctx context.Context, o Outcome)
}

// An Outcome says what became of a Result.
type Outcome struct {
	Counted bool // it took part in the decision
	// Taken: the mail is ours, for the recipient whose result it was, or for anybody. It is not where a recipient was
	// refused or postponed, where the transaction ended without a message, and where the door could not keep its word.
	Taken bool
	// Handling is how the recipient's own wishes were carried out, if they were: with the names of files, and what could not
	// be done as it was wanted.
	Handling *Handling
	Verdict  Verdict // of the transaction: the recipient's whose result it was, or of the first recipient
}
