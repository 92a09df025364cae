package spamd

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"strconv"
	"strings"

	"sluice/pipeline"
	"sluice/scanners/peer"
)

// ask asks about one mail on a connection of its own: spamd closes it after each answer.
func (s *stage) ask(ctx context.Context, v pipeline.View) (Fact, error) {
	conn, err := s.peer.Connect(ctx)
	if err != nil {
		return Fact{}, err
	}
	defer conn.Close()
	trace := s.trace(v)
	var head bytes.Buffer
	fmt.Fprintf(&head, "SYMBOLS SPAMC/1.5\r\nContent-length: %d\r\n", int64(len(trace))+v.Message.Size())
	if s.config.User != "" {
		fmt.Fprintf(&head, "User: %s\r\n", s.config.User)
	}
	head.WriteString("\r\n" + trace)
	_, sent := io.Copy(conn, io.MultiReader(&head, v.Message.Raw()))
	// spamd may have answered before it had read all, to say what is wrong.
	text, err := io.ReadAll(io.LimitReader(conn, s.config.MaxReply+1))
	if int64(len(text)) > s.config.MaxReply {
		return Fact{}, fmt.Errorf("the reply has more than %d octets", s.config.MaxReply)
	}
	fact, wrong := parseReply(text)
	switch {
	case wrong == nil && err == nil:
		return fact, nil
	case len(text) == 0 && sent != nil:
		return Fact{}, fmt.Errorf("send the mail: %w", sent)
	case err != nil:
		return Fact{}, fmt.Errorf("read the reply: %w", err)
	case len(text) == 0:
		return Fact{}, errors.New("it hung up without a reply")
	}
	return Fact{}, wrong
}

// Codes of spamd's replies, those of sysexits(3), with which spamd says that this question is wrong and not that it
// cannot work.
const (
	exUsage   = 64
	exDataErr = 65
	exNoUser  = 67
	exTimeout = 79
)

// parseReply reads a whole reply:
//
//	SPAMD/1.1 0 EX_OK
//	Content-length: 13
//	Spam: True ; 7.5 / 5.0
//
//	RULE_A,RULE_B
//
// One that is cut off anywhere is none, and neither is one without a score.
func parseReply(text []byte) (Fact, error) {
	head, body, ok := bytes.Cut(text, []byte("\r\n\r\n"))
	lines := strings.Split(string(head), "\r\n")
	if err := parseStatus(lines[0]); err != nil {
		return Fact{}, err
	}
	if !ok {
		return Fact{}, errors.New("the reply ends in its header")
	}
	f, length, judged := Fact{Scanned: true}, -1, false
	for _, line := range lines[1:] {
		name, value, _ := strings.Cut(line, ":")
		value = strings.TrimSpace(value)
		var err error
		switch strings.ToLower(name) {
		case "content-length":
			if length, err = strconv.Atoi(value); err != nil || length < 0 {
				return Fact{}, fmt.Errorf("the reply has a Content-length of %q", clip(value))
			}
		case "spam":
			if err = f.judge(value); err != nil {
				return Fact{}, err
			}
			judged = true
		}
	}
	switch {
	case length < 0:
		return Fact{}, errors.New("the reply has no Content-length: nothing says whether it is whole")
	case length != len(body):
		return Fact{}, fmt.Errorf("the reply announces %d octets and has %d", length, len(body))
	case !judged:
		return Fact{}, errors.New("the reply has no score")
	}
	return f, f.list(string(body))
}

// parseStatus reads "SPAMD/1.1 0 EX_OK".
func parseStatus(line string) error {
	version, rest, _ := strings.Cut(line, " ")
	code, word, _ := strings.Cut(rest, " ")
	n, err := strconv.Atoi(code)
	if !strings.HasPrefix(version, "SPAMD/") || err != nil {
		return fmt.Errorf("%q is no reply of spamd", clip(line))
	}
	if n == 0 {
		return nil
	}
	err = fmt.Errorf("it answers %d %s", n, clip(word))
	switch n {
	case exUsage, exDataErr, exNoUser, exTimeout:
		return &peer.Answered{Err: err}
	}
	return err
}

// judge reads "True ; 7.5 / 5.0"; older ones write Yes and No.
func (f *Fact) judge(value string) error {
	wrong := fmt.Errorf("the reply has %q where its score belongs", clip(value))
	word, numbers, ok := strings.Cut(value, ";")
	score, required, both := strings.Cut(numbers, "/")
	if !ok || !both {
		return wrong
	}
	switch strings.ToLower(strings.TrimSpace(word)) {
	case "true", "yes":
		f.Spam = true
	case "false", "no":
	default:
		return wrong
	}
	for text, to := range map[string]*float64{score: &f.Score, required: &f.Required} {
		x, err := strconv.ParseFloat(strings.TrimSpace(text), 64)
		if err != nil || x-x != 0 { // neither infinite nor no number: records could not hold it
			return wrong
		}
		*to = x
	}
	return nil
}

// list reads "RULE_A,RULE_B".
func (f *Fact) list(body string) error {
	const most = 1000
	for name := range strings.SplitSeq(body, ",") {
		if name = strings.TrimSpace(name); name == "" || name == "none" {
			continue
		}
		if len(f.Rules) == most {
			return fmt.Errorf("the reply has more than %d rules", most)
		}
		f.Rules = append(f.Rules, clip(name))
	}
	return nil
}

// clip bounds a text of spamd's.
func clip(s string) string {
	const most = 100
	if len(s) > most {
		s = s[:most] + "…"
	}
	return strings.ToValidUTF8(s, "?")
}
