package milter

import (
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"

	gomilter "github.com/emersion/go-milter"

	"sluice/pipeline"
)

// An answer is what a milter says to an event.
type answer struct {
	verdict        string
	skip           bool // of events like this one: no more
	code           int  // of a reply that it chose
	enhanced, text string
}

// parseAnswer reads an answer that is no change and no progress.
func parseAnswer(code byte, data []byte) (answer, error) {
	switch gomilter.ActionCode(code) {
	case gomilter.ActContinue:
		return answer{verdict: wentOn}, nil
	case gomilter.ActAccept:
		return answer{verdict: accepted}, nil
	case gomilter.ActDiscard:
		return answer{verdict: discarded}, nil
	case gomilter.ActReject:
		return answer{verdict: refused}, nil
	case gomilter.ActTempFail:
		return answer{verdict: postponed}, nil
	case gomilter.ActSkip:
		return answer{verdict: accepted, skip: true}, nil
	case gomilter.ActReplyCode:
		return parseReply(data)
	case shutdown:
		return answer{verdict: postponed, code: 421}, nil
	case connFail:
		return answer{}, errors.New("it asks to be treated as failed")
	}
	return answer{}, fmt.Errorf("%q is no answer", code)
}

// parseReply reads "550 5.7.1 text", of several lines "550-5.7.1 a" CR LF "550 5.7.1 b", with % doubled.
func parseReply(data []byte) (answer, error) {
	s, _, _ := cutString(append(slices.Clone(data), 0))
	if len(s) < 3 || s[0] != '4' && s[0] != '5' {
		return answer{}, fmt.Errorf("%q is no reply", clip(s))
	}
	code, err := strconv.Atoi(s[:3])
	if err != nil || code < 400 {
		return answer{}, fmt.Errorf("%q is no reply", clip(s))
	}
	a := answer{verdict: refused, code: code}
	if code < 500 {
		a.verdict = postponed
	}
	var texts []string
	for line := range strings.Lines(s) {
		line = strings.TrimRight(line, "\r\n")
		if len(line) > 4 && line[:3] == s[:3] {
			line = line[4:]
		} else if len(line) <= 4 {
			continue
		}
		line = strings.TrimLeft(strings.ReplaceAll(line, "%%", "%"), " ")
		if word, rest, _ := strings.Cut(line, " "); isEnhanced(word, s[0]) {
			a.enhanced, line = word, rest
		}
		texts = append(texts, strings.TrimSpace(line))
	}
	a.text = pipeline.CleanText(clip(strings.Join(texts, " ")))
	return a, nil
}

// isEnhanced reports whether s is a status code of the class (RFC 3463, 2).
func isEnhanced(s string, class byte) bool {
	parts := strings.Split(s, ".")
	return len(parts) == 3 && len(parts[0]) == 1 && s[0] == class && !slices.ContainsFunc(parts, func(p string) bool {
		return p == "" || len(p) > 3 || strings.Trim(p, "0123456789") != ""
	})
}

// change notes a change that the milter wants; false: the packet is none.
func (d *dialogue) change(code byte, data []byte) (ok bool, err error) {
	act := gomilter.ModifyActCode(code)
	switch act {
	case gomilter.ActAddHeader, gomilter.ActInsertHeader:
		if act == gomilter.ActInsertHeader {
			if _, data, err = position(data); err != nil {
				return true, err
			}
		}
		name, value, err := fieldOf(data)
		if err != nil {
			return true, err
		}
		d.fact.Headers = append(d.fact.Headers, Field{clip(name), clip(value)})
		d.add(name, value)
	case gomilter.ActChangeHeader:
		place, data, err := position(data)
		if err != nil {
			return true, err
		}
		name, value, err := fieldOf(data)
		if err != nil {
			return true, err
		}
		d.fact.Changed = append(d.fact.Changed, Change{Name: clip(name), Index: place, Deleted: value == "", Value: clip(value)})
		d.replace(name, place, value)
	case gomilter.ActAddRcpt, addRcpt2:
		d.fact.RcptsAdded = append(d.fact.RcptsAdded, addressOf(data))
	case gomilter.ActDelRcpt:
		d.fact.RcptsDeleted = append(d.fact.RcptsDeleted, addressOf(data))
	case gomilter.ActChangeFrom:
		d.fact.SenderChanged, d.fact.Sender = true, addressOf(data)
	case gomilter.ActReplBody:
		d.fact.BodyReplaced = true
		d.fact.BodySize += len(data)
		return true, d.within(0)
	case gomilter.ActQuarantine:
		reason, _, _ := cutString(append(slices.Clone(data), 0))
		d.fact.Quarantined, d.fact.QuarantineReason = true, clip(oneLine(reason))
	default:
		return false, nil
	}
	return true, d.within(1)
}

// within counts changes against their limit, and their octets against that of mails.
func (d *dialogue) within(more int) error {
	if d.edits += more; d.edits > d.limits.MaxEdits {
		return fmt.Errorf("it makes more than %d changes", d.limits.MaxEdits)
	}
	if int64(d.wire.read) > d.limits.MaxSize+maxPacket {
		return fmt.Errorf("it sends more than %d octets", d.limits.MaxSize+maxPacket)
	}
	return nil
}

// fieldOf reads name and value of a header field, the value unfolded.
func fieldOf(data []byte) (name, value string, err error) {
	name, rest, ok := cutString(data)
	if !ok || name == "" {
		return "", "", errors.New("a header field is cut off")
	}
	value, _, ok = cutString(rest)
	if !ok {
		return "", "", errors.New("a header field is cut off")
	}
	return name, oneLine(value), nil
}

// oneLine unfolds a value. RFC 5322, 2.2.3: the line ends go, the white space behind them stays; where there is none the
// milter has forgotten it.
func oneLine(s string) string {
	var b strings.Builder
	for line := range strings.Lines(strings.ReplaceAll(strings.ReplaceAll(s, "\r\n", "\n"), "\r", "\n")) {
		line = strings.TrimSuffix(line, "\n")
		if b.Len() > 0 && line != "" && line[0] != ' ' && line[0] != '\t' {
			b.WriteByte(' ')
		}
		b.WriteString(line)
	}
	return strings.TrimSpace(strings.ToValidUTF8(b.String(), "?"))
}

// addressOf reads an address, without angle brackets; what follows are parameters.
func addressOf(data []byte) string {
	s, _, _ := cutString(append(slices.Clone(data), 0))
	if len(s) >= 2 && s[0] == '<' && s[len(s)-1] == '>' {
		s = s[1 : len(s)-1]
	}
	return clip(s)
}

// clip bounds a text that goes into the fact.
func clip(s string) string {
	const most = 1000
	s = strings.ToValidUTF8(s, "?")
	if len(s) <= most {
		return s
	}
	return strings.ToValidUTF8(s[:most-3], "") + "…"
}
