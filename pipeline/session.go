package pipeline

import (
	"cmp"
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base32"
	"encoding/binary"
	"encoding/hex"
	"io"
	"slices"
	"strings"
	"time"

	"sluice/pipeline/mime"
)

// A Session is one client's connection: what a door drives, in the order Connect, Helo, Mail, Rcpt …, Data, Content,
// Done, and again from Mail for the next message. Close ends it. A Session is driven by one goroutine.
//
// What was found about the client and its greeting lives as long as the connection and is in each of its records.
type Session struct {
	plan     *Plan
	door     Door
	client   Client
	greeting string
	began    time.Time
	shared   []*answer // what was said about everybody, by stage
	tx       *transaction
	resumed  bool
	again    *replaying // a replay

	// What is under way. It may outlive the phase in which it was asked, where nobody has to be refused at once.
	running map[call]*errand
	single  int // of running: calls for single recipients
	desk    *desk
}

type transaction struct {
	id        string
	received  time.Time
	sender    Address
	queueID   string
	sha256    string
	asked     Asked
	message   *mime.Message
	seen      []*rcpt // all the sender named
	live      []*rcpt // those not refused
	phase     Phase   // how far it came
	decisions []Decision
	taken     []bool // by live recipient, once the door has said what became of the mail
	handled   []*Handling
	later     later    // what the record says of shadow stages
	tried     *Session // asked them, where that is done before the record is made
	base      *Record  // a resumed transaction's record
	once      bool     // recipients cannot be refused one by one
}

// A rcpt is one recipient of a transaction.
type rcpt struct {
	Recipient
	own      []*answer  // what was said about this one, by stage
	early    *judgement // once it is certain that nothing more is to be asked
	at       Phase      // when that was
	next     Phase      // to judge: all that was said before it has been looked at
	refused  bool       // at RCPT: by a verdict or by the door
	byDoor   bool
	repeated bool // not refused: served before
	reply    Reply
	note     string
	recalled *RecipientRecord
}

// settled reports whether nothing more is asked for r.
func (r *rcpt) settled() bool { return r.early != nil }

// NewSession begins the conversation of a door with a client. The zero Client is unknown.
func (p *Plan) NewSession(d Door, c Client) *Session {
	return &Session{plan: p, door: d, client: c, began: p.env.Now(), shared: make([]*answer, len(p.stages)), desk: newDesk()}
}

// newID returns an id that sorts by time: 9 characters of it, then 11 of chance.
func newID() string {
	var b [12]byte
	ms := uint64(time.Now().UnixMilli())
	binary.BigEndian.PutUint64(b[:8], ms<<16)
	rand.Read(b[6:]) // never fails
	return strings.ToLower(idEncoding.EncodeToString(b[1:]))
}

var idEncoding = base32.NewEncoding("0123456789ABCDEFGHJKMNPQRSTVWXYZ").WithPadding(base32.NoPadding)

// Connect asks the stages that need the client only. A reply that is not nil refuses the client (SpeakEarliest).
func (s *Session) Connect(ctx context.Context) *Reply { return s.everybody(ctx, Connect) }

// Helo takes the client's greeting. A second one drops what was found from the first. A reply that is not nil refuses
// it (SpeakEarliest).
func (s *Session) Helo(ctx context.Context, greeting string) *Reply {
	s.drop(func(st *planStage) bool { return st.phase >= Helo })
	s.greeting = greeting
	return s.everybody(ctx, Helo)
}

// SetClient says that something else is known of the client: it has logged in, or TLS has begun. What was found about
// the client before is dropped and asked again at the next phase.
func (s *Session) SetClient(c Client) {
	if c == s.client {
		return
	}
	s.drop(func(*planStage) bool { return true })
	s.client = c
}

// drop forgets what stages have said about the connection and tells them.
func (s *Session) drop(which func(*planStage) bool) {
	s.abandon(func(c call) bool { return c.rcpt == nil && which(&s.plan.stages[c.stage]) })
	for i, a := range s.shared {
		if a != nil && which(&s.plan.stages[i]) {
			s.settle(a.result, Outcome{})
			s.shared[i] = nil
		}
	}
}

// never is for those who want to hear everything.
func never() bool { return false }

// everybody asks what can be asked without a recipient, and where nothing can be said before there is one does not wait.
func (s *Session) everybody(ctx context.Context, now Phase) *Reply {
	speaks := s.plan.options.SpeakEarliest && s.door != LMTP && s.door != Deliver
	s.collect()
	if !s.decided(now) {
		s.ask(ctx, now, nil, never, speaks)
	}
	if !speaks {
		return nil
	}
	if j := s.plan.judge(ledger{shared: s.shared}, now, s.exempt(nil)); j.certain && j.verdict.Action.Refuses() {
		return &j.verdict.Reply
	}
	return nil
}

// decided reports whether every recipient that is not exempt is settled by what was said so far, so that asking more can
// wait until an exempt one turns up.
func (s *Session) decided(now Phase) bool {
	for before := range now {
		if s.plan.judge(ledger{shared: s.shared}, before, s.exempt(nil)).settled() {
			return true
		}
	}
	return false
}

// loggedIn is why a login is exempt.
const loggedIn = "logged in"

// exempt returns why refusals that look neither at header nor at body do not count for a recipient (nil: an ordinary
// one): whoever has trouble with us must reach the postmaster, and our own users are not strangers.
func (s *Session) exempt(r *rcpt) string {
	switch {
	case s.again != nil && s.again.Strict:
		return ""
	case s.door == Submission: // what an outgoing step says is meant for those who have logged in
		return ""
	case s.client.Login != "":
		return loggedIn
	case r != nil && r.Address.Local == "postmaster":
		return "postmaster"
	}
	return ""
}

// Mail begins a transaction and returns its id; one that is under way is reset first. A reply that is not nil refuses it
// (SpeakEarliest).
func (s *Session) Mail(ctx context.Context, from Address) (id string, refuse *Reply) {
	s.Reset("another MAIL")
	s.tx = &transaction{id: s.plan.env.NewID(), received: s.plan.env.Now(), sender: from, phase: Mail}
	return s.tx.id, s.everybody(ctx, Mail)
}

// ID returns the id of the transaction, "" without one.
func (s *Session) ID() string {
	if s.tx == nil {
		return ""
	}
	return s.tx.id
}

// SetQueueID names the transaction as the MTA in front of us does.
func (s *Session) SetQueueID(id string) {
	if s.tx != nil {
		s.tx.queueID = id
	}
}

// SetSHA256 gives the hash of the message, in hex, where the door has it already.
func (s *Session) SetSHA256(sum string) {
	if s.tx != nil {
		s.tx.sha256 = sum
	}
}

// SoFar is the record as it would be if nothing more were said; nil without a transaction. Of one that goes on where a
// record ends it is that record.
func (s *Session) SoFar() *Record {
	switch {
	case s.tx == nil:
		return nil
	case s.tx.base != nil:
		return s.tx.base
	}
	return s.toRecord("", Reply{}, "", nil)
}

// SetAsked notes what the sender asked for with MAIL, for the record.
func (s *Session) SetAsked(a Asked) {
	if s.tx != nil {
		s.tx.asked = a
	}
}

// AnswerOnce says that recipients of this transaction cannot be refused one by one.
func (s *Session) AnswerOnce() {
	if s.tx != nil {
		s.tx.once = true
	}
}

// Rcpt takes a recipient. A reply that is not nil refuses this recipient, who then is no longer part of the transaction
// but of its record. At LMTP and deliver, and after AnswerOnce, nobody is refused here: what was decided is among
// Content's decisions.
func (s *Session) Rcpt(ctx context.Context, r Recipient) *Reply {
	t := s.tx
	if t == nil {
		return &Reply{Code: 503, Enhanced: "5.5.1", Text: "MAIL first"}
	}
	t.phase = Rcpt
	x := &rcpt{Recipient: r, own: make([]*answer, len(s.plan.stages))}
	t.seen = append(t.seen, x)
	t.live = append(t.live, x)
	if t.base != nil {
		x.recalled = t.base.recipient(r)
	}
	if x.recalled != nil {
		return nil // it is asked about when the message is there
	}
	if !s.plan.early || s.door == LMTP || s.door == Deliver || t.once {
		// Nothing can be said before the content, so nothing has to be known before.
		s.ask(ctx, Rcpt, []*rcpt{x}, never, false)
		return nil
	}
	// What was said before this recipient came may settle it.
	if !s.decided(Mail) {
		s.ask(ctx, Mail, nil, never, true)
	}
	for before := range Rcpt {
		s.note(x, before)
	}
	if !x.settled() {
		s.ask(ctx, Rcpt, []*rcpt{x}, never, true)
		for now := range Rcpt + 1 { // something may be known now that would have been before
			s.note(x, now)
		}
	}
	if !x.settled() || !x.early.verdict.Action.Refuses() {
		return nil
	}
	x.refused, x.reply = true, x.early.verdict.Reply
	t.live = t.live[:len(t.live)-1]
	return &x.reply
}

// note keeps a recipient's judgement once nothing more is to be asked for it.
func (s *Session) note(r *rcpt, now Phase) {
	if r.early != nil || r.recalled != nil {
		return
	}
	if j := s.judge(r, now); j.settled() {
		r.early, r.at = &j, now
	}
}

// noteTo judges phase by phase up to now, as if the answers of each had been waited for before the next one began. What
// is said at a later phase is looked at when all that was asked before it has answered.
func (s *Session) noteTo(r *rcpt, now Phase) {
	for ; r.next < now; r.next++ {
		s.note(r, r.next)
		if s.open(r, r.next) {
			return
		}
	}
	s.note(r, now)
}

// open reports whether a stage asked by a phase has not answered.
func (s *Session) open(r *rcpt, now Phase) bool {
	for i := range s.plan.stages {
		if st := &s.plan.stages[i]; st.since <= now && !st.shadow && s.heard(i, r) == nil {
			return true
		}
	}
	return false
}

func (s *Session) judge(r *rcpt, now Phase) judgement {
	who := &r.Recipient
	if s.again != nil && s.again.Usual {
		who = &Recipient{} // of whom nothing is otherwise
	}
	return s.plan.judge(ledger{s.shared, r.own, who}, now, s.exempt(r))
}

// Refuse notes a recipient that the door itself refuses (an unknown user, a full mailbox), for the record.
func (s *Session) Refuse(r Recipient, reply Reply, why string) {
	if s.tx == nil {
		return
	}
	s.tx.seen = append(s.tx.seen, &rcpt{Recipient: r, refused: true, byDoor: true, reply: reply, note: why})
}

// Repeat notes a recipient that an earlier attempt at the same delivery has served, for the record: nothing is asked
// about it.
func (s *Session) Repeat(r Recipient, reply Reply, why string) {
	if s.tx != nil {
		s.tx.seen = append(s.tx.seen, &rcpt{Recipient: r, refused: true, byDoor: true, repeated: true, reply: reply, note: why})
	}
}

// Data says that all recipients are known. A reply that is not nil refuses the message for all (SpeakEarliest).
func (s *Session) Data(ctx context.Context) *Reply {
	if s.tx == nil {
		return &Reply{Code: 503, Enhanced: "5.5.1", Text: "MAIL first"}
	}
	s.tx.phase = Data
	if !s.plan.options.SpeakEarliest || s.door == LMTP || s.door == Deliver || len(s.tx.live) == 0 {
		if !s.resumed {
			s.ask(ctx, Data, s.unsettled(), never, false)
		}
		return nil
	}
	s.all(ctx, Data)
	for _, r := range s.tx.live {
		if !r.settled() || !r.early.verdict.Action.Refuses() {
			return nil
		}
	}
	return &s.tx.live[0].early.verdict.Reply
}

// all asks what a phase with all recipients asks.
func (s *Session) all(ctx context.Context, now Phase) {
	enough := func() bool {
		settled := true
		for _, r := range s.tx.live {
			s.noteTo(r, now)
			settled = settled && (r.settled() || r.recalled != nil && r.recalled.Verdict.Action > Keep)
		}
		return settled
	}
	if len(s.tx.live) == 0 || enough() || s.resumed && !s.anythingAtDelivery() {
		return
	}
	s.ask(ctx, now, s.tx.live, enough, true)
	enough()
}

// unsettled are the recipients for whom something is still to be asked.
func (s *Session) unsettled() []*rcpt {
	return slices.DeleteFunc(slices.Clone(s.tx.live), func(r *rcpt) bool { return r.settled() })
}

// anythingAtDelivery reports whether a resumed transaction has anything left to ask.
func (s *Session) anythingAtDelivery() bool {
	for _, r := range s.tx.live {
		if r.recalled == nil {
			return true
		}
	}
	for i := range s.plan.steps {
		if s.plan.steps[i].Kind.AtDelivery && !s.plan.steps[i].Shadow {
			return true
		}
	}
	return false
}

// Content gives the message and returns a decision for each recipient that was taken, in their order.
func (s *Session) Content(ctx context.Context, m *mime.Message) []Decision {
	t := s.tx
	if t == nil {
		return nil
	}
	t.phase, t.message = Content, m
	s.all(ctx, Content)
	t.decisions = make([]Decision, len(t.live))
	for i, r := range t.live {
		t.decisions[i] = s.decide(r)
	}
	return t.decisions
}

func (s *Session) decide(r *rcpt) Decision {
	if r.recalled != nil {
		return s.recall(r)
	}
	j := r.early
	if j == nil {
		now := s.judge(r, Content)
		j = &now
	}
	d := s.plan.decision(r.Recipient, ledger{s.shared, r.own, &r.Recipient}, *j)
	d.resolve(s.plan)
	return d
}

// resolve works out what the recipient's own wishes come to under the decision.
func (d *Decision) resolve(p *Plan) {
	d.Own = slices.ContainsFunc(p.steps, func(s planStep) bool { return s.Name == d.Step && s.Kind.AtDelivery })
	if d.Verdict.Action > Keep {
		d.Handling = nil
	}
	if d.Handling != nil {
		d.Handling = d.Handling.resolved(d)
	}
}

// recall is the recorded decision, with what steps that are asked at delivery have added.
func (s *Session) recall(r *rcpt) Decision {
	d := Decision{
		Recipient: r.Recipient, Verdict: r.recalled.Verdict, Step: r.recalled.Step,
		Folder: r.recalled.Folder, folderBy: r.recalled.FolderBy, Flags: r.recalled.Flags, Recalled: true,
	}
	if d.Verdict.Action > Keep {
		return d
	}
	own := make([]*answer, len(r.own))
	for i := range s.plan.stages {
		if s.plan.steps[s.plan.stages[i].step].Kind.AtDelivery {
			own[i] = r.own[i]
		}
	}
	l := ledger{make([]*answer, len(s.shared)), own, &r.Recipient}
	now := s.plan.decision(r.Recipient, l, s.plan.judge(l, Content, ""))
	if now.Verdict.Action != Pass && d.Verdict.Action != Keep {
		d.Verdict, d.Step = now.Verdict, now.Step
	}
	if now.Folder != "" {
		d.Folder, d.folderBy = now.Folder, now.folderBy
	}
	d.Flags = append(d.Flags, now.Flags...)
	d.Edits = append(r.recalled.edits(), now.Edits...)
	d.Handling, d.wisher = now.Handling, now.wisher
	d.resolve(s.plan)
	return d
}

// A Decision is what was decided for one recipient.
type Decision struct {
	Recipient Recipient
	Verdict   Verdict  // with its reply filled in
	Step      string   // whose verdict it is; "" where nobody objected
	Folder    string   // of the implicit keep; "" is the inbox
	Flags     []string //
	Edits     []Edit   // header fields to add and delete in this recipient's copy, in order
	Hits      []Hit    // that counted, in configured order, without shadow ones
	Score     float64  // of Hits, see [Score]
	Junk      bool     // Folder is the folder for junk, by a threshold
	Recalled  bool     // it was decided before, at another door, which added Fields and Edits
	Own       bool     // the verdict is that of the recipient's own wishes, not of an administrator
	// Handling is what the recipient's own wishes make of the mail, with every folder and all flags filled in; nil: one copy
	// is filed in Folder.
	Handling *Handling

	folderBy string
	wisher   string // the step whose Handling it is
}

// firstCopy returns where the first copy goes, and who says so.
func (d *Decision) firstCopy() (folder, by string) {
	if len(d.Handling.Copies) == 0 {
		return "", ""
	}
	c := d.Handling.Copies[0]
	if c.Kept {
		return c.Folder, d.folderBy
	}
	return c.Folder, d.wisher + "/" + c.By
}

// A Delivery is what the door did for one recipient.
type Delivery struct {
	Disposition Disposition
	Reply       Reply  // told for this recipient, where each is answered
	Folder      string // where it was filed, if elsewhere than decided
	File        string // the unique name in its Maildir
	Held        string // the id in quarantine
	Note        string // for the operator
	Removed     []Removed
	// Handling is that of the decision with what became of it: the names of files and of mails in the queue.
	Handling *Handling
}

// Done ends the transaction with what the door did for each of Content's decisions, in their order, and hands its record
// over; reply is what the door is about to say. A record of a discard is the only trace of the mail: then Done returns
// once it would survive a power cut. It is called before the reply is written; after an error the door answers 451.
func (s *Session) Done(ctx context.Context, reply Reply, deliveries []Delivery) error {
	t := s.tx
	if t == nil {
		return nil
	}
	end, durable := "done", false
	for _, d := range deliveries {
		durable = durable || d.Disposition == Dropped || d.Disposition == Held
		if s.door == Milter && d.Disposition == Delivered {
			end = "handed over"
		}
	}
	if reply.Code >= 400 {
		end = "refused"
	}
	trial := s.try()
	err := s.record(ctx, end, reply, "", deliveries, durable && reply.Code < 400)
	if err != nil && durable {
		s.dismissTrial(trial)
		// The sender is going to be asked to come again: the record says what became of this attempt, if it can be kept.
		for i := range deliveries {
			deliveries[i].Disposition = Postponed
		}
		_ = s.record(ctx, "refused", Reply{Code: 451, Enhanced: "4.3.0"}, err.Error(), deliveries, false)
	} else {
		err = nil
		for _, d := range deliveries {
			t.taken = append(t.taken, d.Disposition.taken())
			t.handled = append(t.handled, d.Handling)
		}
		s.begin(trial)
	}
	s.end()
	return err
}

// RefuseMessage ends the transaction with a message that the door itself refuses for everybody who was not refused before:
// one that goes in circles, or whose author is another. The record has the reply, and why for the operator.
func (s *Session) RefuseMessage(m *mime.Message, reply Reply, why string) {
	t := s.tx
	if t == nil {
		return
	}
	trial := s.try() // of what was known before: nobody is asked about the message any more
	t.message = m
	for _, r := range t.live {
		r.refused, r.byDoor, r.reply = true, true, reply
	}
	s.conclude("refused", reply, why)
	t.message = nil
	s.begin(trial)
	s.end()
}

// Reset ends the transaction without a message being accepted; why is for the record. Without a transaction, and after
// Done, it does nothing.
func (s *Session) Reset(why string) {
	t := s.tx
	if t == nil {
		return
	}
	if len(t.seen) > 0 {
		end := "aborted"
		if len(t.live) == 0 {
			end = "refused"
		}
		trial := s.try()
		s.conclude(end, Reply{}, why)
		s.begin(trial)
	}
	s.end()
}

// conclude records a transaction from which nothing was taken, also where whoever waits has gone.
func (s *Session) conclude(end string, reply Reply, why string) {
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	if err := s.record(ctx, end, reply, why, nil, false); err != nil && s.plan.env.Log != nil {
		s.plan.env.Log.Error("record not kept", "id", s.tx.id, "error", err)
	}
}

// Forget ends the transaction without a record: another session goes on with it, and has one.
func (s *Session) Forget() {
	if s.tx != nil {
		s.end()
	}
}

// end tells the transaction's results what became of them and forgets them. What was found about the connection stays.
func (s *Session) end() {
	t := s.tx
	s.abandon(func(c call) bool { return c.rcpt != nil || s.plan.stages[c.stage].phase >= Mail })
	first := Outcome{Counted: true, Taken: slices.Contains(t.taken, true)}
	if len(t.decisions) > 0 {
		first.Verdict = t.decisions[0].Verdict
	}
	for i, a := range s.shared {
		if a == nil || s.plan.stages[i].phase < Mail {
			continue
		}
		o := first
		o.Counted = s.neededShared(i)
		s.settle(a.result, o)
		s.shared[i] = nil
	}
	for n, r := range t.seen {
		for i, a := range r.own {
			if a == nil {
				continue
			}
			o := Outcome{Counted: s.needed(i, r)}
			if r.early != nil {
				o.Verdict = r.early.verdict
			}
			if k := indexOf(t.live, t.seen[n]); k >= 0 && k < len(t.decisions) {
				o.Verdict, o.Taken = t.decisions[k].Verdict, k < len(t.taken) && t.taken[k]
				if o.Taken {
					o.Handling = cmp.Or(t.handled[k], t.decisions[k].Handling)
				}
			}
			s.settle(a.result, o)
		}
	}
	if t.tried != nil {
		t.tried.tx.taken = t.taken
		t.tried.settleShadows()
	}
	s.tx = nil
}

func indexOf(rs []*rcpt, r *rcpt) int {
	for i, x := range rs {
		if x == r {
			return i
		}
	}
	return -1
}

// Close ends the session, and a transaction that is under way.
func (s *Session) Close() {
	s.Reset("connection closed")
	s.drop(func(*planStage) bool { return true })
}

// digest is the hash of the message.
func (t *transaction) digest() string {
	if t.sha256 != "" || t.message == nil || t.message.Raw() == nil {
		return t.sha256
	}
	h := sha256.New()
	if _, err := io.Copy(h, t.message.Raw()); err != nil {
		return ""
	}
	t.sha256 = hex.EncodeToString(h.Sum(nil))
	return t.sha256
}
