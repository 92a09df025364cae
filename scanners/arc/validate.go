package arc

import (
	"context"
	"crypto/sha256"
	"fmt"
	"hash"
	"time"

	"sluice/pipeline/mime"
	"sluice/scanners/dkim/signature"
)

const (
	mostText = 300
	mostKey  = 500
)

// validate follows RFC 8617, 5.2. missing is why oldest_pass is unknown.
func (s *stage) validate(ctx context.Context, m *mime.Message, now time.Time) (Fact, map[string]error, error) {
	fields := m.Header().Fields()
	sets, err := collect(fields, s.config.Sets)
	fact := Fact{Result: none, OldestPass: -1, Instances: len(sets)}
	if len(sets) == 0 && err == nil {
		return fact, nil, nil
	}
	fact.Result = failed
	if err != nil { // step 3
		fact.Why = clip(err.Error(), mostText)
		return fact, nil, nil
	}
	for i := range sets {
		sets[i].parse(fields, now.Unix())
		fact.Sets = append(fact.Sets, Set{
			Instance: i + 1, Sealer: clip(sets[i].as.Domain, mostText), Selector: clip(sets[i].as.Selector, mostText),
			CV: clip(sets[i].cv, 20), Signer: clip(sets[i].ams.Domain, mostText),
		})
		fact.Sealers = append([]string{fact.Sets[i].Sealer}, fact.Sealers...)
	}
	last := len(sets) - 1
	fact.First, fact.Last = readResults(1, fields[sets[0].results]), readResults(last+1, fields[sets[last].results])
	if fact.Why = claims(sets); fact.Why != "" { // steps 2 and 3
		return fact, nil, nil
	}
	return s.prove(ctx, m, sets, fact)
}

// claims returns what is wrong with what the seals say about the chain, "" if nothing is.
func claims(sets []set) string {
	if sets[len(sets)-1].cv == failed {
		return fmt.Sprintf("%s found the chain broken (i=%d)", sets[len(sets)-1].as.Domain, len(sets))
	}
	for i, x := range sets {
		want := passed
		if i == 0 {
			want = none
		}
		if x.cv != want {
			return fmt.Sprintf("the seal i=%d says cv=%s and not cv=%s", i+1, clip(x.cv, 20), want)
		}
		if x.asErr != nil {
			return fmt.Sprintf("the seal i=%d: %v", i+1, x.asErr)
		}
	}
	return ""
}

// prove verifies all signatures. What is undecided matters only if nothing is refuted.
func (s *stage) prove(ctx context.Context, m *mime.Message, sets []set, fact Fact) (Fact, map[string]error, error) {
	fields := m.Header().Fields()
	var names []string
	var parts []signature.BodyPart
	for _, x := range sets {
		names = append(names, x.as.KeyName())
		if x.amsErr == nil {
			names, parts = append(names, x.ams.KeyName()), append(parts, x.ams.Body)
		}
	}
	ctx, cancel := context.WithTimeout(ctx, s.config.KeyTimeout)
	defer cancel()
	asked := make(chan map[string]signature.Answer, 1)
	go func() { asked <- signature.Keys(ctx, s.env.Resolver, names) }() // ends with ctx; the body is read meanwhile
	sums, err := signature.SumBody(m.RawBody(), parts)
	if err != nil {
		return fact, nil, err
	}
	seals, err := sealSums(fields, sets)
	if err != nil {
		return fact, nil, err
	}
	keys := <-asked
	header := signature.NewHeader(fields)
	for i := range sets {
		x, f := &sets[i], &fact.Sets[i]
		if x.amsErr == nil {
			x.amsErr = x.verifyMessage(header, sums[x.ams.Body], keys[x.ams.KeyName()])
		}
		k := keys[x.as.KeyName()]
		if x.asErr = k.Err; x.asErr == nil {
			x.asErr = x.as.VerifySum(seals[i], k.Key)
		}
		var why string
		f.Key = clip(k.Key.Record, mostKey)
		f.Message, f.Reason = signature.ResultOf(x.amsErr)
		if f.Seal, why = signature.ResultOf(x.asErr); why != "" {
			f.Reason = "seal: " + why
		}
		f.Reason = clip(f.Reason, mostText)
	}
	return conclude(sets, fact)
}

func (s *set) verifyMessage(h *signature.Header, sum signature.BodySum, k signature.Answer) error {
	if k.Err != nil {
		return k.Err
	}
	if l := s.ams.Body.Length; l >= 0 && l < sum.Size {
		return &signature.Error{Result: signature.Policy, Reason: fmt.Sprintf("%d of %d octets of the body are signed", l, sum.Size)}
	}
	return s.ams.Verify(h, s.message, sum, k.Key)
}

// sealSums hashes what each seal is about: all sets up to its own, its own seal last and unsigned (RFC 8617, 5.1.1). The
// sets before are hashed once.
func sealSums(fields []mime.Field, sets []set) ([][]byte, error) {
	var sums [][]byte
	var buf []byte
	before := sha256.New()
	for i := range sets {
		x := &sets[i]
		buf = signature.Relaxed.AppendField(buf[:0], fields[x.results].Raw)
		buf = signature.Relaxed.AppendField(buf, fields[x.message].Raw)
		before.Write(buf)
		h, err := before.(hash.Cloner).Clone()
		if err != nil {
			return nil, fmt.Errorf("hash the seal i=%d: %w", i+1, err)
		}
		h.Write(x.as.AppendUnsigned(nil, signature.Relaxed))
		sums = append(sums, h.Sum(nil))
		before.Write(signature.Relaxed.AppendField(buf[:0], fields[x.seal].Raw))
	}
	return sums, nil
}

// conclude says what the results of all signatures come to (RFC 8617, 5.2, steps 4 to 7).
func conclude(sets []set, fact Fact) (Fact, map[string]error, error) {
	last := len(sets) - 1
	refuted, open := "", ""
	note := func(what string, i int, err error) {
		why := fmt.Sprintf("%s i=%d: %v", what, i+1, err)
		if result, _ := signature.ResultOf(err); result == signature.TempError {
			open = why
		} else if err != nil && refuted == "" {
			refuted = why
		}
	}
	note("the message signature", last, sets[last].amsErr)
	for i := last; i >= 0; i-- {
		note("the seal", i, sets[i].asErr)
	}
	switch {
	case refuted != "":
		fact.Why = clip(refuted, mostText)
		return fact, nil, nil
	case open != "":
		return fact, nil, fmt.Errorf("the chain is undecided: %s", open)
	}
	fact.Result, fact.OldestPass = passed, 0
	for i := last; i >= 0; i-- {
		result, why := signature.ResultOf(sets[i].amsErr)
		if result == signature.TempError {
			return fact, map[string]error{"oldest_pass": fmt.Errorf("the message signature i=%d: %s", i+1, why)}, nil
		}
		if result != signature.Pass {
			fact.OldestPass = i + 2
			break
		}
	}
	return fact, nil, nil
}
