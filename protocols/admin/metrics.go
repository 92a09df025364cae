package admin

import (
	"context"
	"errors"
	"io"
	"net"
	"net/netip"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"

	"sluice/mailstore"
	"sluice/pipeline"
	"sluice/protocols/listen"
)

// mostNames bounds the names of rules, and of steps, that the metrics tell apart: rules of a scanner may be of its own
// making. What comes later is counted as "other".
const mostNames = 1000

// Metrics count what happens. Make it with [NewMetrics].
type Metrics struct {
	registry *prometheus.Registry

	transactions, recipients, verdicts            *prometheus.CounterVec
	transactionSeconds, messageBytes              *prometheus.HistogramVec
	asked, stageErrors, notAsked, hits, undecided *prometheus.CounterVec
	leftOpen                                      *prometheus.CounterVec
	stageSeconds                                  *prometheus.HistogramVec
	delivered, deliveredBytes                     prometheus.Counter
	deliverErrors                                 *prometheus.CounterVec
	deliverSeconds                                prometheus.Histogram
	lookupSeconds                                 *prometheus.HistogramVec
	lookups                                       *prometheus.CounterVec
	sent                                          *prometheus.CounterVec
	sentSeconds                                   *prometheus.HistogramVec

	rules, steps, fields names
}

// NewMetrics returns metrics with nothing counted yet. version is the program's.
func NewMetrics(version string) *Metrics {
	m := &Metrics{registry: prometheus.NewRegistry()}
	counters := func(name, help string, labels ...string) *prometheus.CounterVec {
		return register(m, prometheus.NewCounterVec(prometheus.CounterOpts{Name: "sluice_" + name, Help: help}, labels))
	}
	counter := func(name, help string) prometheus.Counter {
		return register(m, prometheus.NewCounter(prometheus.CounterOpts{Name: "sluice_" + name, Help: help}))
	}
	seconds := func(name, help string, labels ...string) *prometheus.HistogramVec {
		return register(m, prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name: "sluice_" + name, Help: help, Buckets: durations(),
		}, labels))
	}
	m.transactions = counters("transactions_total", "Mail transactions with a recipient, by how they ended.", "door", "end")
	m.recipients = counters("recipients_total", "Recipients, by what became of the mail for them.", "door", "disposition")
	m.verdicts = counters("verdicts_total", "What was decided for recipients, and the step that did; empty where none objected.",
		"door", "action", "step")
	m.transactionSeconds = seconds("transaction_seconds", "Time from MAIL (LMTP: from the end of the message) to the reply.", "door")
	m.messageBytes = register(m, prometheus.NewHistogramVec(prometheus.HistogramOpts{
		Name: "sluice_message_bytes", Help: "Sizes of messages.", Buckets: prometheus.ExponentialBuckets(1<<10, 4, 9),
	}, []string{"door"}))
	m.asked = counters("stage_asked_total", "Questions to stages that they answered or failed; what is found about a client counts for each of its mails.",
		"step", "phase")
	m.stageErrors = counters("stage_errors_total", "Questions that a stage could not answer, by the policy that this met (on_error).",
		"step", "phase", "policy")
	m.leftOpen = counters("stage_unknown_total", "Fields of facts that a stage left unknown, although it answered: one of several lists, say.",
		"step", "field")
	m.notAsked = counters("stage_not_asked_total", "Questions that were not asked, by whether the answer was not needed or could not be had.",
		"step", "phase", "state")
	m.stageSeconds = seconds("stage_seconds", "Time that stages took to answer.", "step", "phase")
	m.hits = counters("rule_hits_total", "Rules that held; shadow ones are recorded only.", "step", "rule", "shadow")
	m.undecided = counters("rule_undecided_total", "Rules that did not hold because something they need was unknown.", "step", "rule")
	m.delivered = counter("store_delivered_total", "Copies of messages filed in folders.")
	m.deliveredBytes = counter("store_delivered_bytes_total", "Octets filed in folders.")
	m.deliverErrors = counters("store_errors_total", "Deliveries that failed, by reason.", "reason")
	m.deliverSeconds = register(m, prometheus.NewHistogram(prometheus.HistogramOpts{
		Name: "sluice_store_deliver_seconds", Help: "Time to file a message for all its recipients, until it would survive a power cut.",
		Buckets: durations(),
	}))
	m.lookups = counters("dns_lookups_total", "Questions to the resolver, its cache included: found, not found, error.", "type", "result")
	m.lookupSeconds = seconds("dns_lookup_seconds", "Time of questions to the resolver, its cache included.", "type")
	m.sent = counters("relay_attempts_total", "Attempts to bring mail to a recipient elsewhere, by the way it goes, what came of it, and what vouched for the server: none, tls, certificate, mta-sts, dane.",
		"way", "outcome", "proof")
	m.sentSeconds = seconds("relay_seconds", "Time of attempts to bring mail elsewhere, until what came of them would survive a power cut.", "way")
	m.registry.MustRegister(
		collectors.NewGoCollector(),
		collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}),
		prometheus.NewGaugeFunc(prometheus.GaugeOpts{
			Name: "sluice_info", Help: "The version that runs.", ConstLabels: prometheus.Labels{"version": version},
		}, func() float64 { return 1 }),
	)
	return m
}

func register[C prometheus.Collector](m *Metrics, c C) C {
	m.registry.MustRegister(c)
	return c
}

// durations are the bounds of times: from what only computes to what waits for others.
func durations() []float64 {
	return []float64{.0001, .0005, .001, .005, .01, .05, .1, .5, 1, 5, 10, 30, 60}
}

// observe counts a record.
func (m *Metrics) observe(r *pipeline.Record, took time.Duration) {
	at := string(door(r))
	m.transactions.WithLabelValues(at, r.End).Inc()
	if !r.Began.IsZero() {
		m.transactionSeconds.WithLabelValues(at).Observe(took.Seconds())
	}
	if r.Size > 0 {
		m.messageBytes.WithLabelValues(at).Observe(float64(r.Size))
	}
	m.said(r.Steps)
	for _, x := range r.Recipients {
		m.recipients.WithLabelValues(at, name(x.Disposition)).Inc()
		m.verdicts.WithLabelValues(at, x.Verdict.Action.String(), m.step(x.Step)).Inc()
		m.said(x.Steps)
	}
	for _, t := range r.Timings {
		m.stageSeconds.WithLabelValues(m.step(t.Step), t.Phase.String()).Observe(t.Took.Seconds())
	}
}

// complete counts what shadow stages have said.
func (m *Metrics) complete(r *pipeline.Record) {
	m.said(r.Steps)
	for _, x := range r.Recipients {
		m.said(x.Steps)
	}
	for _, t := range r.Timings {
		m.stageSeconds.WithLabelValues(m.step(t.Step), t.Phase.String()).Observe(t.Took.Seconds())
	}
}

// said counts what steps said about everybody or about one recipient.
func (m *Metrics) said(steps []pipeline.StepRecord) {
	for _, s := range steps {
		step := m.step(s.Name)
		for _, x := range s.Stages {
			phase := x.Phase.String()
			switch x.State {
			case "answered":
				m.asked.WithLabelValues(step, phase).Inc()
			case "error":
				m.asked.WithLabelValues(step, phase).Inc()
				policy := "skip"
				if x.OnError != nil {
					policy = x.OnError.String()
				}
				m.stageErrors.WithLabelValues(step, phase, policy).Inc()
			case "", "not finished":
				// What it says is counted when it has been said.
			default:
				m.notAsked.WithLabelValues(step, phase, x.State).Inc()
			}
		}
		for field := range s.Missing {
			m.leftOpen.WithLabelValues(step, m.fields.bounded(s.Name+"\x00"+field, field)).Inc()
		}
		for _, h := range s.Hits {
			shadow := "false"
			if h.Shadow {
				shadow = "true"
			}
			m.hits.WithLabelValues(step, m.rule(s.Name, h.Name), shadow).Inc()
		}
		for _, u := range s.Undecided {
			m.undecided.WithLabelValues(step, m.rule(s.Name, u.Name)).Inc()
		}
	}
}

func (m *Metrics) step(name string) string       { return m.steps.bounded(name, name) }
func (m *Metrics) rule(step, name string) string { return m.rules.bounded(step+"\x00"+name, name) }

// names are a bounded set.
type names struct {
	mu   sync.Mutex
	seen map[string]bool
}

// bounded returns name if key is among the first that were seen, else "other".
func (n *names) bounded(key, name string) string {
	name = strings.ToValidUTF8(name, "\ufffd") // a label that is none would panic
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.seen[key] {
		return name
	}
	if len(n.seen) >= mostNames {
		return "other"
	}
	if n.seen == nil {
		n.seen = map[string]bool{}
	}
	n.seen[key] = true
	return name
}

// Store returns s with its deliveries counted.
func (m *Metrics) Store(s mailstore.Store) mailstore.Store { return countedStore{s, m} }

type countedStore struct {
	mailstore.Store
	m *Metrics
}

func (s countedStore) Deliver(ctx context.Context, items []mailstore.Item) ([]mailstore.Placed, error) {
	var octets atomic.Int64
	counted := make([]mailstore.Item, len(items))
	for i, x := range items {
		x.Content = &countedReader{x.Content, &octets}
		counted[i] = x
	}
	began := time.Now()
	placed, err := s.Store.Deliver(ctx, counted)
	switch {
	case errors.Is(err, mailstore.ErrQuota):
		s.m.deliverErrors.WithLabelValues("quota").Inc()
	case err != nil:
		s.m.deliverErrors.WithLabelValues("failed").Inc()
	default:
		s.m.deliverSeconds.Observe(time.Since(began).Seconds())
		s.m.delivered.Add(float64(len(items)))
		s.m.deliveredBytes.Add(float64(octets.Load()))
	}
	return placed, err
}

// A countedReader adds what is read to n. A store may read several items at once.
type countedReader struct {
	io.Reader
	n *atomic.Int64
}

func (r *countedReader) Read(p []byte) (int, error) {
	n, err := r.Reader.Read(p)
	r.n.Add(int64(n))
	return n, err
}

// WriteTo lets what is below write in its own way.
func (r *countedReader) WriteTo(w io.Writer) (int64, error) {
	n, err := io.Copy(w, r.Reader)
	r.n.Add(n)
	return n, err
}

// A Resolver is a resolver that counts what it is asked. It has LookupA if that below has.
type Resolver interface {
	pipeline.Resolver
	LookupA(ctx context.Context, name string) ([]netip.Addr, error)
}

// Resolver returns r with its questions counted.
func (m *Metrics) Resolver(r Resolver) Resolver { return countedResolver{r, m} }

type countedResolver struct {
	below Resolver
	m     *Metrics
}

func looked[T any](m *Metrics, kind string, look func() (T, error)) (T, error) {
	began := time.Now()
	x, err := look()
	result := "found"
	var e *net.DNSError
	switch {
	case errors.As(err, &e) && e.IsNotFound:
		result = "not found"
	case errors.As(err, &e) && e.IsTimeout:
		result = "timeout"
	case err != nil:
		result = "error"
	}
	m.lookups.WithLabelValues(kind, result).Inc()
	m.lookupSeconds.WithLabelValues(kind).Observe(time.Since(began).Seconds())
	return x, err
}

func (r countedResolver) LookupAddr(ctx context.Context, name string) ([]netip.Addr, error) {
	return looked(r.m, "address", func() ([]netip.Addr, error) { return r.below.LookupAddr(ctx, name) })
}

func (r countedResolver) LookupA(ctx context.Context, name string) ([]netip.Addr, error) {
	return looked(r.m, "a", func() ([]netip.Addr, error) { return r.below.LookupA(ctx, name) })
}

func (r countedResolver) LookupAAAA(ctx context.Context, name string) ([]netip.Addr, error) {
	return looked(r.m, "aaaa", func() ([]netip.Addr, error) { return r.below.LookupAAAA(ctx, name) })
}

func (r countedResolver) LookupTXT(ctx context.Context, name string) ([]string, error) {
	return looked(r.m, "txt", func() ([]string, error) { return r.below.LookupTXT(ctx, name) })
}

func (r countedResolver) LookupPTR(ctx context.Context, a netip.Addr) ([]string, error) {
	return looked(r.m, "ptr", func() ([]string, error) { return r.below.LookupPTR(ctx, a) })
}

func (r countedResolver) LookupMX(ctx context.Context, name string) ([]*net.MX, error) {
	return looked(r.m, "mx", func() ([]*net.MX, error) { return r.below.LookupMX(ctx, name) })
}

// Sources are what is asked whenever somebody reads the metrics. What is nil is left out.
type Sources struct {
	Connections map[string]*listen.Counter // by protocol
	Logins      *listen.Logins
	Journal     func() Journal
	Held        func(ctx context.Context) (int, error) // rows in quarantine that wait for somebody
	Space       func() (octets, inodes int64, low, known bool)
	Resolver    func() Answers
	Trials      func() pipeline.TrialStats
	Queue       func() Queue
}

// Queue is how mail that is to leave does.
type Queue struct {
	Messages, Held int
	Octets         int64
	Age            time.Duration     // of the oldest
	Queued         uint64            // messages
	Results        map[string]uint64 // recipients, by what became of them
	Reports        uint64            // about mail of ours, filed
}

// Answers is how the resolver does: since it was made, which a reload may have done.
type Answers struct {
	Cached, Stale, Asked, Failed uint64 // answers from memory, those past their time, questions to servers, those left open
	Entries, Octets              int    // in memory now
}

// Journal is how the journal does.
type Journal struct {
	Pending, PendingBytes    int    // records in memory
	Written, Dropped, Failed uint64 // records on disk; records lost; attempts to write that failed
}

// Sent counts an attempt to bring mail elsewhere. proof is what vouched for the server.
func (m *Metrics) Sent(way, proof string, outcomes []string, took time.Duration) {
	for _, o := range outcomes {
		m.sent.WithLabelValues(way, o, proof).Inc()
	}
	m.sentSeconds.WithLabelValues(way).Observe(took.Seconds())
}

// Watch adds sources. It is called once.
func (m *Metrics) Watch(s Sources) { m.registry.MustRegister(&watch{s: s}) }

// scrapeTime bounds what one reading of the metrics may wait for a store.
const scrapeTime = 2 * time.Second

type watch struct{ s Sources }

// Describe describes nothing, so that what is not known now can be left out.
func (w *watch) Describe(chan<- *prometheus.Desc) {}

// Collect asks the sources.
func (w *watch) Collect(out chan<- prometheus.Metric) {
	emit := func(kind prometheus.ValueType, name, help string, value float64, labels ...string) {
		l := prometheus.Labels{}
		for i := 0; i+1 < len(labels); i += 2 {
			l[labels[i]] = labels[i+1]
		}
		out <- prometheus.MustNewConstMetric(prometheus.NewDesc("sluice_"+name, help, nil, l), kind, value)
	}
	const gauge, counter = prometheus.GaugeValue, prometheus.CounterValue
	for protocol, c := range w.s.Connections {
		n := c.Counts()
		emit(gauge, "connections_open", "Connections that are open.", float64(n.Open), "protocol", protocol)
		emit(counter, "connections_total", "Connections that were taken.", float64(n.Taken), "protocol", protocol)
		emit(counter, "connections_refused_total", "Connections that were one too many.", float64(n.Refused), "protocol", protocol)
	}
	if w.s.Logins != nil {
		n := w.s.Logins.Counts()
		emit(counter, "logins_total", "Logins, by what came of them.", float64(n.Succeeded), "result", "succeeded")
		emit(counter, "logins_total", "Logins, by what came of them.", float64(n.Failed), "result", "failed")
		emit(counter, "logins_total", "Logins, by what came of them.", float64(n.Refused), "result", "refused")
	}
	if w.s.Journal != nil {
		j := w.s.Journal()
		emit(gauge, "journal_pending", "Records of decisions that wait in memory to be written.", float64(j.Pending))
		emit(gauge, "journal_pending_bytes", "Memory that they take.", float64(j.PendingBytes))
		emit(counter, "journal_written_total", "Records that were written.", float64(j.Written))
		emit(counter, "journal_dropped_total", "Records that were lost because the disk did not take them.", float64(j.Dropped))
		emit(counter, "journal_errors_total", "Attempts to write that failed.", float64(j.Failed))
	}
	if w.s.Resolver != nil {
		a := w.s.Resolver()
		emit(counter, "dns_cached_total", "Questions to the DNS that were answered from memory.", float64(a.Cached))
		emit(counter, "dns_stale_total", "Answers past their time that served because nobody gave a fresh one.", float64(a.Stale))
		emit(counter, "dns_asked_total", "Questions that were put to name servers.", float64(a.Asked))
		emit(counter, "dns_failed_total", "Questions that name servers left open.", float64(a.Failed))
		emit(gauge, "dns_cache_entries", "Answers in memory.", float64(a.Entries))
		emit(gauge, "dns_cache_bytes", "Memory that they take.", float64(a.Octets))
	}
	if w.s.Trials != nil {
		t := w.s.Trials()
		emit(gauge, "shadow_running", "Mails whose shadow steps and rules are being asked, after the answer.", float64(t.Running))
		emit(gauge, "shadow_waiting", "Mails that wait for that.", float64(t.Waiting))
		emit(gauge, "shadow_bytes", "Octets of the mails that are kept for it.", float64(t.Octets))
		const total, help = "shadow_mails_total", "Mails with shadow steps or rules, by what came of those."
		emit(counter, total, help, float64(t.Finished), "became", "finished")
		emit(counter, total, help, float64(t.Unfinished), "became", "unfinished")
		emit(counter, total, help, float64(t.NotRun), "became", "not run")
	}
	if w.s.Queue != nil {
		q := w.s.Queue()
		emit(gauge, "queue_messages", "Mails that are to leave.", float64(q.Messages))
		emit(gauge, "queue_held", "Those of them that are held.", float64(q.Held))
		emit(gauge, "queue_bytes", "Octets that they take.", float64(q.Octets))
		emit(gauge, "queue_oldest_seconds", "How long the oldest of them has waited.", q.Age.Seconds())
		emit(counter, "queue_queued_total", "Mails that were queued.", float64(q.Queued))
		for result, n := range q.Results {
			emit(counter, "queue_results_total", "Recipients, by what became of the mail; postponed are attempts.", float64(n), "result", result)
		}
		emit(counter, "queue_reports_total", "Reports to senders of ours that were filed.", float64(q.Reports))
	}
	if w.s.Held != nil {
		ctx, cancel := context.WithTimeout(context.Background(), scrapeTime)
		defer cancel()
		if n, err := w.s.Held(ctx); err == nil {
			emit(gauge, "quarantine_rows", "Mail held for an administrator, by recipient.", float64(n))
		}
	}
	if w.s.Space != nil {
		if octets, inodes, low, known := w.s.Space(); known {
			n := 0.0
			if low {
				n = 1
			}
			emit(gauge, "disk_free_bytes", "Room that the disk has left.", float64(octets))
			emit(gauge, "disk_free_inodes", "Files that the disk has room for.", float64(inodes))
			emit(gauge, "disk_low", "1 while mail is put off because the disk is nearly full.", n)
		}
	}
}
