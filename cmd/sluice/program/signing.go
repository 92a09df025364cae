package program

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"strings"
	"time"

	"sluice/cmd/sluice/program/config"
	"sluice/mailstore"
	"sluice/pipeline"
	"sluice/pipeline/mime"
	"sluice/pipeline/spool"
	"sluice/pipeline/srs"
	"sluice/scanners/arc"
	"sluice/scanners/dkim/signature"
)

// A signingOutbox is an outbox in which mail gets what shows others where it comes from: what is ours a DKIM signature,
// what is others' and only handed on a sender in our name and an ARC seal.
//
// All keys are in memory: nothing of this asks anybody but, for the seal of mail whose chain nobody has looked at, the
// DNS. Mail that cannot be signed leaves unsigned with a line in the log; where the site requires signatures, it is held.
type signingOutbox struct {
	next mailstore.Outbox
	// settings returns the configuration and the keys of now.
	settings func() (*config.Config, signingKeys)
	senders  *senders
	foreign  func(ctx context.Context, domain string) (bool, error)
	resolver func() pipeline.Resolver
	spool    string
	now      func() time.Time
	log      *slog.Logger
}

var _ mailstore.Outbox = (*signingOutbox)(nil)

// signs puts signatures and seals on what goes into an outbox. All that is to leave passes it, once.
func (s *service) signs(next mailstore.Outbox) (*signingOutbox, error) {
	senders, err := openSenders(s.started.Data, s.program.now(), s.started.Forwarding.Lifetime)
	if err != nil {
		return nil, err
	}
	return &signingOutbox{
		next: next, senders: senders, spool: s.spool, now: s.program.now, log: s.log,
		settings: func() (*config.Config, signingKeys) { x := s.now.Load(); return x.config, x.keys },
		foreign:  s.house.foreign,
		resolver: func() pipeline.Resolver { return s.now.Load().resolver },
	}, nil
}

// signReport signs a report of the queue. One from before a crash that is written before anybody has read our keys leaves
// without: it is for somebody here.
func (h *house) signReport(mail []byte) []byte {
	if o := h.signing.Load(); o != nil {
		return o.signOwn(mail)
	}
	return mail
}

// foreign reports whether a domain is none of ours.
func (h *house) foreign(ctx context.Context, domain string) (bool, error) {
	_, err := h.users.Resolve(ctx, "postmaster", domain)
	switch {
	case errors.Is(err, mailstore.ErrForeign):
		return true, nil
	case err == nil, errors.Is(err, mailstore.ErrNoAccount), errors.Is(err, mailstore.ErrName):
		return false, nil
	}
	return false, err
}

// Stage implements mailstore.Outbox.
func (o *signingOutbox) Stage(ctx context.Context, list []mailstore.Outgoing) (mailstore.Staged, error) {
	c, keys := o.settings()
	ready := make([]mailstore.Outgoing, len(list))
	for i, m := range list {
		if !m.Forwarded && len(keys) == 0 && !c.Signing.Require {
			ready[i] = m
			continue
		}
		text, err := spool.Receive(m.Content, spool.Options{Max: -1, Dir: o.spool})
		if err != nil {
			return nil, fmt.Errorf("read what is to leave: %w", err)
		}
		defer text.Close() // when all of them are in the queue
		p := &parcel{signingOutbox: o, config: c, keys: keys, text: text, Outgoing: m}
		if err := p.prepare(ctx); err != nil {
			return nil, err
		}
		ready[i] = p.Outgoing
	}
	return o.next.Stage(ctx, ready)
}

// A parcel is one message on its way through a signingOutbox.
type parcel struct {
	*signingOutbox
	mailstore.Outgoing
	config *config.Config
	keys   signingKeys
	text   *spool.Spool
}

func (p *parcel) prepare(ctx context.Context) error {
	m, err := mime.Parse(p.text, p.text.Size(), p.config.Limits.MIME())
	var limit *mime.LimitError
	if err != nil && !errors.As(err, &limit) {
		return fmt.Errorf("read what is to leave: %w", err)
	}
	top := ""
	if p.Forwarded {
		if e := p.rewrite(ctx); e != nil {
			return e
		}
		if err == nil {
			top, err = p.seal(ctx, m)
		}
	} else {
		if err == nil {
			top, err = p.sign(m)
		}
		if err != nil && p.config.Signing.Require && p.Account != "" {
			// Not refused: where it is a script's reply, the mail that it is a reply to would be refused with it.
			if p.Hold == "" {
				p.Hold = "it is not signed (signing.require): " + err.Error()
			}
			p.log.Warn("mail is held because it cannot be signed", "id", p.ID, "account", p.Account, "why", p.Why, "err", err)
			err = nil
		}
	}
	if err != nil && !errors.Is(err, errNoKey) && !errors.Is(err, arc.ErrNoSeal) {
		p.log.Warn("mail leaves without our signature", "id", p.ID, "account", p.Account, "why", p.Why, "err", err)
	}
	p.Content = io.MultiReader(strings.NewReader(top), p.text.Reader())
	return nil
}

// signOwn signs a mail of the system's own that is put into the queue by the queue itself.
func (o *signingOutbox) signOwn(mail []byte) []byte {
	c, keys := o.settings()
	m, err := mime.Parse(bytes.NewReader(mail), int64(len(mail)), c.Limits.MIME())
	top := ""
	if err == nil {
		top, err = (&parcel{signingOutbox: o, config: c, keys: keys}).sign(m)
	}
	if err != nil && !errors.Is(err, errNoKey) {
		o.log.Warn("a report leaves without our signature", "err", err)
	}
	return append([]byte(top), mail...)
}

// errNoKey says that there is nothing to sign with.
var errNoKey = errors.New("there is no key")

// sign returns the fields that sign a mail of ours.
func (p *parcel) sign(m *mime.Message) (string, error) {
	domain, err := signedDomain(m)
	if err != nil {
		return "", err
	}
	by := p.keys.of(domain)
	if len(by) == 0 {
		return "", fmt.Errorf("%w for %s", errNoKey, domain)
	}
	hash, err := signature.HashBody(m.RawBody())
	if err != nil {
		return "", err
	}
	fields, err := signature.Sign(signature.NewHeader(m.Header().Fields()), hash, by, p.now(), p.config.Signing.Lifetime)
	if err != nil {
		return "", err
	}
	return strings.Join(fields, "\r\n") + "\r\n", nil
}

// signedDomain is the one that a reader takes a mail to be from: that of all its authors.
func signedDomain(m *mime.Message) (string, error) {
	domain := ""
	for _, a := range m.From() {
		switch {
		case a.Domain == "" || domain != "" && a.Domain != domain:
			return "", errors.New("its From names no domain, or several")
		}
		domain = a.Domain
	}
	if domain == "" {
		return "", errors.New("it has no From")
	}
	return domain, nil
}

// via is the domain in whose name mail is handed on.
func (p *parcel) via() string {
	_, domain, _ := strings.Cut(p.Account, "@")
	return cmp.Or(p.config.Forwarding.Domain, domain, p.config.Hostname)
}

// rewrite puts a sender of ours on mail that is handed on, so that reports about it come back by way of us and SPF fits.
func (p *parcel) rewrite(ctx context.Context) error {
	if p.Sender == "" || p.config.Forwarding.KeepSender {
		return nil
	}
	_, domain, ok := cutLast(p.Sender, "@")
	if ok {
		foreign, err := p.foreign(ctx, domain)
		if err != nil {
			return fmt.Errorf("find out whose domain %s is: %w", domain, err)
		}
		if !foreign {
			return nil // reports find their way
		}
	}
	local, err := p.senders.rewriter(p.config).Forward(p.Sender, p.now())
	if err != nil {
		// Some senders have no room for ours beside them. Whoever hands the mail on hears of it then: that ends there, for
		// a report has no sender itself.
		p.log.Info("a sender cannot be rewritten; reports go to who hands the mail on", "id", p.ID, "account", p.Account, "err", err)
		p.Sender = p.Account
		return nil
	}
	p.Sender = local + "@" + p.via()
	return nil
}

// seal returns the fields that say what the mail was worth when it came (RFC 8617).
func (p *parcel) seal(ctx context.Context, m *mime.Message) (string, error) {
	by := p.keys.of(p.via())
	if len(by) == 0 || p.config.Forwarding.NoSeal {
		return "", errNoKey
	}
	s := arc.Sealing{By: sealer(by), Authserv: p.config.Hostname, Results: p.Results, Chain: arc.ChainOf(p.Results), Now: p.now()}
	if m.Header().Has("ARC-Seal") && (s.Chain == "" || s.Chain == "none") {
		fact, err := arc.Validate(ctx, p.resolver(), m, s.Now)
		if err != nil {
			return "", err
		}
		s.Chain = fact.Result
	}
	hash, err := signature.HashBody(m.RawBody())
	if err != nil {
		return "", err
	}
	return arc.Seal(m.Header().Fields(), hash, s)
}

// sealer chooses who seals: a set has one signature, and RSA is what everybody verifies.
func sealer(by []signature.Identity) signature.Identity {
	for _, i := range by {
		if i.Key.Algorithm() == signature.RSA {
			return i
		}
	}
	return by[0]
}

func cutLast(s, sep string) (before, after string, found bool) {
	if i := strings.LastIndex(s, sep); i >= 0 {
		return s[:i], s[i+len(sep):], true
	}
	return s, "", false
}

// returns implements [smtp.Back]: of addresses in domains of ours, those that look like ones which we put on mail that is
// handed on.
func (o *signingOutbox) returns(ctx context.Context, to pipeline.Address) (sender string, ours bool, err error) {
	if !srs.Is(to.Mailbox()) {
		return "", false, nil
	}
	c, _ := o.settings()
	if to.Domain != c.Forwarding.Domain || to.Domain == "" {
		if foreign, err := o.foreign(ctx, to.Domain); foreign || err != nil {
			return "", false, nil //nolint:nilerr // whoever asks for the account next hears of it
		}
	}
	local, _, _ := cutLast(to.Raw, "@") // as it was written: some hosts know their names by case
	sender, err = o.senders.rewriter(c).Reverse(local, o.now())
	return sender, true, err
}

// renewSenders makes a new secret for senders when it is time.
func (o *signingOutbox) renewSenders() error {
	c, _ := o.settings()
	return o.senders.renew(o.now(), c.Forwarding.Lifetime)
}
