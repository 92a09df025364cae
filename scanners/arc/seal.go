package arc

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"sluice/pipeline"
	"sluice/pipeline/mime"
	"sluice/scanners/dkim/signature"
)

// ErrNoSeal says that nobody gains by a seal: the one before us has found the chain broken, or it is as long as chains
// may be (RFC 8617, 4.2.1 and 5.1.2).
var ErrNoSeal = errors.New("the chain takes no more seals")

// A Sealing is what a seal says.
type Sealing struct {
	By       signature.Identity
	Authserv string // who has found Results: our name
	// Results is what was found out about the mail when it came: the body of an Authentication-Results field without the
	// name. "" is nothing.
	Results string
	// Chain is what the chain came to then: "none", "pass" or "fail".
	Chain string
	Now   time.Time
}

// Seal returns the three fields that hand a message on, to be put on top of it: ARC-Seal, ARC-Message-Signature and
// ARC-Authentication-Results, each with its line end. bodyHash is of [signature.HashBody]. RFC 8617, 5.1.
func Seal(fields []mime.Field, bodyHash []byte, s Sealing) (string, error) {
	sets, broken := collect(fields, mostSets)
	n := len(sets) + 1
	cv := s.Chain
	switch {
	case n == 1 && broken == nil:
		cv = none
	case broken != nil:
		cv = failed
	case cv != passed && cv != failed:
		return "", fmt.Errorf("a chain of %d sets whose result is %q cannot be sealed", n-1, s.Chain)
	}
	if n > mostSets {
		return "", ErrNoSeal
	}
	if n > 1 && sets[n-2].seal >= 0 {
		last, _ := signature.ParseSeal(fields[sets[n-2].seal])
		if v, _ := last.Tags.Value("cv"); v == failed {
			return "", ErrNoSeal
		}
	}
	instance := "i=" + strconv.Itoa(n)
	results := resultsField + ": " + instance + "; " + s.Authserv + ";" + foldResults(s.Results)
	header := signature.NewHeader(fields)
	// RFC 8617, 4.1.2: the seals and the results of others are not signed, DKIM-Signature is.
	message, err := s.By.SignMessage(messageField, instance, []string{"t=" + strconv.FormatInt(s.Now.Unix(), 10)}, header,
		signature.Names(header, "dkim-signature"), bodyHash)
	if err != nil {
		return "", fmt.Errorf("seal: %w", err)
	}
	var before []byte
	if cv != failed { // RFC 8617, 5.1.2: a broken chain is not vouched for
		for _, x := range sets {
			for _, at := range []int{x.results, x.message, x.seal} {
				before = signature.Relaxed.AppendField(before, fields[at].Raw)
			}
		}
	}
	before = signature.Relaxed.AppendField(before, []byte(results))
	before = signature.Relaxed.AppendField(before, []byte(message))
	seal, err := s.By.SignSeal(sealField, []string{instance, "cv=" + cv, "t=" + strconv.FormatInt(s.Now.Unix(), 10)}, before)
	if err != nil {
		return "", fmt.Errorf("seal: %w", err)
	}
	return seal + "\r\n" + message + "\r\n" + results + "\r\n", nil
}

// foldResults gives each result a line of its own.
func foldResults(results string) string {
	if results = strings.TrimSpace(results); results == "" {
		return " none"
	}
	var b strings.Builder
	inQuotes := false
	b.WriteString("\r\n\t")
	for i := 0; i < len(results); i++ {
		switch c := results[i]; {
		case c == '\r' || c == '\n':
			continue // nobody ends our field
		case c == '"':
			inQuotes = !inQuotes
		case c == '\\' && inQuotes && i+1 < len(results):
			b.WriteByte(c)
			i++
		case c == ';' && !inQuotes:
			b.WriteString(";\r\n\t")
			for i+1 < len(results) && results[i+1] == ' ' {
				i++
			}
			continue
		}
		if c := results[i]; c != '\r' && c != '\n' {
			b.WriteByte(c)
		}
	}
	return b.String()
}

// ChainOf returns what results say of the chain: "none", "pass" or "fail", "" where they do not say. Results are the
// body of an Authentication-Results field without its name.
func ChainOf(results string) string {
	r := readResults(0, mime.Field{Raw: []byte("X: i=0; x; " + results)})
	if slices.Contains([]string{none, passed, failed}, r.ARC) {
		return r.ARC
	}
	return ""
}

// Validate finds out what the chain of a message comes to, for whoever has not asked the stage. Its error is that a key
// could not be asked for.
func Validate(ctx context.Context, r pipeline.Resolver, m *mime.Message, now time.Time) (Fact, error) {
	s := &stage{config: Config{Sets: mostSets, KeyTimeout: 10 * time.Second}, env: pipeline.Env{Resolver: r}}
	fact, _, err := s.validate(ctx, m, now)
	return fact, err
}
