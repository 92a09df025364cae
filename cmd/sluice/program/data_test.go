package program

import (
	"bytes"
	"context"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"sluice/cmd/sluice/program/config"
	"sluice/mailstore"
	"sluice/mailstore/journal"
	"sluice/mailstore/quarantine"
	"sluice/pipeline"
	"sluice/pipeline/mime"
)

func TestSecretIsMadeOnce(t *testing.T) {
	dir := t.TempDir()
	first, err := secret(dir)
	if err != nil || len(first) != secretSize {
		t.Fatalf("%x, %v", first, err)
	}
	again, err := secret(dir)
	if err != nil || !bytes.Equal(first, again) {
		t.Errorf("%x, %v; want %x", again, err, first)
	}
	info, err := os.Stat(filepath.Join(dir, "secret"))
	if err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("%v, %v", info.Mode(), err)
	}
	if left, _ := filepath.Glob(filepath.Join(dir, ".*")); len(left) > 0 {
		t.Errorf("left over: %v", left)
	}
	if err := os.WriteFile(filepath.Join(dir, "secret"), []byte("short"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := secret(dir); err == nil || !strings.Contains(err.Error(), "has 5 octets, not 32; remove it") {
		t.Errorf("a short secret: %v", err)
	}
}

func TestLock(t *testing.T) {
	dir := t.TempDir()
	f, err := lock(dir, serving)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := lock(dir, "refile"); !errors.As(err, new(ownedError)) || !strings.Contains(err.Error(), "another sluice serve (pid ") {
		t.Errorf("locked twice: %v", err)
	}
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
	again, err := lock(dir, "refile")
	if err != nil {
		t.Fatalf("given back and taken again: %v", err)
	}
	if _, err := lock(dir, "refile"); !errors.As(err, new(ownedError)) || !strings.Contains(err.Error(), "sluice refile (pid ") {
		t.Errorf("locked by a command: %v", err)
	}
	_ = again.Close()
}

// A command owns the folder for a moment, and reload looks whether anybody does: a server starts all the same.
func TestLockSoon(t *testing.T) {
	dir := t.TempDir()
	f, err := lock(dir, "user folders")
	if err != nil {
		t.Fatal(err)
	}
	pauses := 0
	own, err := lockSoon(dir, func() {
		if pauses++; pauses == 3 {
			_ = f.Close()
		}
	})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := lockSoon(dir, func() {}); !errors.As(err, new(ownedError)) {
		t.Errorf("two servers: %v", err)
	}
	_ = own.Close()
}

// SIGHUP is what a server takes for an order, and what ends a command.
func TestNoSignalForACommand(t *testing.T) {
	dir := t.TempDir()
	f, err := lock(dir, "refile")
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	err = new(program).signal(dir, errors.New("connection refused"))
	if err == nil || !strings.Contains(err.Error(), "no sluice serve uses the data folder") || !strings.Contains(err.Error(), "but sluice refile (pid") {
		t.Errorf("got %v", err)
	}
}

func TestWriteFileLeavesNothingBehind(t *testing.T) {
	dir := t.TempDir()
	target := filepath.Join(dir, "taken")
	if err := os.Mkdir(target, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := writeFile(target, []byte("x"), 0o600); err == nil {
		t.Error("a folder was replaced")
	}
	if left, _ := os.ReadDir(dir); len(left) != 1 {
		t.Errorf("left over: %v", left)
	}
	if err := writeFile(filepath.Join(dir, "none", "file"), nil, 0o600); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("into no folder: %v", err)
	}
}

func TestCertificateIsMadeOnce(t *testing.T) {
	p := &program{now: time.Now}
	c := &config.Config{Data: t.TempDir(), Hostname: "mx.example.org"}
	first, err := p.certificates(c)
	if err != nil {
		t.Fatal(err)
	}
	leaf, err := x509.ParseCertificate(first[0].Certificate[0])
	if err != nil {
		t.Fatal(err)
	}
	for _, host := range []string{"mx.example.org", "localhost", "127.0.0.1", "::1"} {
		if err := leaf.VerifyHostname(host); err != nil {
			t.Error(err)
		}
	}
	again, err := p.certificates(c)
	if err != nil || !bytes.Equal(again[0].Certificate[0], first[0].Certificate[0]) {
		t.Errorf("another one is made: %v", err)
	}
	key, err := os.Stat(filepath.Join(c.Data, "tls", "key.pem"))
	if err != nil || key.Mode().Perm() != 0o600 {
		t.Errorf("%v, %v", key.Mode(), err)
	}
	broken := &config.Config{Data: t.TempDir(), TLS: config.TLS{Certificate: "/no/cert.pem", Key: "/no/key.pem"}}
	if _, err := p.certificates(broken); err == nil || !strings.Contains(err.Error(), "/no/cert.pem") {
		t.Errorf("files that are not there: %v", err)
	}
	if block, _ := pem.Decode([]byte(read(t, c.Data, "tls/cert.pem"))); block == nil || block.Type != "CERTIFICATE" {
		t.Error("the file is no certificate")
	}
}

// What expires in quarantine leaves its trace in the record.
func TestExpiryIsRecorded(t *testing.T) {
	ctx := t.Context()
	dir := t.TempDir()
	now := time.Date(2026, 11, 22, 10, 0, 0, 0, time.UTC)
	clock := func() time.Time { return now }
	held, err := quarantine.Open(ctx, quarantine.Config{Dir: filepath.Join(dir, "quarantine"), Keep: 24 * time.Hour, Now: clock})
	if err != nil {
		t.Fatal(err)
	}
	j, err := journal.Open(ctx, journal.Config{Path: filepath.Join(dir, "journal.db"), Now: clock})
	if err != nil {
		t.Fatal(err)
	}
	waiting, err := openQueue(ctx, &config.Config{Data: dir}, nil, slog.New(slog.DiscardHandler), clock, nil)
	if err != nil {
		t.Fatal(err)
	}
	h := &house{quarantine: held, journal: j, queue: waiting, renewSenders: func() error { return nil }}
	t.Cleanup(func() { _ = h.close() })
	address, err := mime.ParseAddress("me@example.org")
	if err != nil {
		t.Fatal(err)
	}
	ids, err := held.Hold(ctx, mailstore.Held{
		ID: "t1", Received: now, Content: strings.NewReader("Subject: x\r\n\r\nx\r\n"),
		Recipients: []mailstore.HeldRecipient{{Address: "me@example.org", Reason: "rules/hold"}},
	})
	if err != nil {
		t.Fatal(err)
	}
	record := &pipeline.Record{Version: pipeline.RecordVersion, ID: "t1", Received: now, Recipients: []pipeline.RecipientRecord{{
		Recipient: pipeline.Recipient{Address: address}, Disposition: pipeline.Held, Held: ids[0],
	}}}
	if err := j.Record(ctx, record, true); err != nil {
		t.Fatal(err)
	}
	done, cancel := context.WithCancel(ctx)
	cancel() // one round, then the end
	log := newWatched()
	p := &program{stderr: log}
	now = now.Add(25 * time.Hour)
	h.tidy(ctx, p.logger(config.Log{}, nil), clock)
	h.keepTidy(done, p.logger(config.Log{}, nil), clock)
	if rows, err := held.List(ctx, quarantine.Filter{}); err != nil || len(rows) != 0 {
		t.Errorf("still held: %v, %v", rows, err)
	}
	r, err := j.Recall(ctx, "t1")
	if err != nil {
		t.Fatal(err)
	}
	if x := r.Recipients[0]; x.Note != "expired in quarantine on Mon, 23 Nov 2026 11:00:00 UTC" || x.Disposition != pipeline.Held {
		t.Errorf("the record says %+v", x)
	}
	if !strings.Contains(log.String(), `msg="expired in quarantine" held=`+ids[0]) {
		t.Errorf("the log says %s", log)
	}
}

func TestHeaderSurgery(t *testing.T) {
	const mail = "Return-Path: <a@b>\r\nX-Sluice-Id: 1\r\n 2\r\nSubject: x\r\nx-sluice-ID: 3\r\n\r\nX-Sluice-Id: body\r\n"
	if got, want := string(without([]byte(mail), "return-path", pipeline.IDField)), "Subject: x\r\n\r\nX-Sluice-Id: body\r\n"; got != want {
		t.Errorf("without: %q, want %q", got, want)
	}
	for mail, want := range map[string]string{
		"Return-Path: <a@b>\r\nSubject: x\r\n\r\n":     "Return-Path: <a@b>\r\nDelivered-To: me@x\r\nSubject: x\r\n\r\n",
		"Return-Path:\r\n <a@b>\r\nSubject: x\r\n\r\n": "Return-Path:\r\n <a@b>\r\nDelivered-To: me@x\r\nSubject: x\r\n\r\n",
		"Subject: x\r\n\r\n":                           "Delivered-To: me@x\r\nSubject: x\r\n\r\n",
		"":                                             "Delivered-To: me@x\r\n",
	} {
		if got := string(addressed([]byte(mail), "me@x")); got != want {
			t.Errorf("addressed(%q) = %q, want %q", mail, got, want)
		}
	}
	for _, mail := range []string{"", "x", "x\r\n", "a:b", "\r\n", "Return-Path:"} {
		without([]byte(mail), "x")
		addressed([]byte(mail), "x")
	}
}
