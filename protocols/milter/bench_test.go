package milter

import (
	"bytes"
	"context"
	"encoding/binary"
	"log/slog"
	"net"
	"net/netip"
	"path/filepath"
	"testing"

	"sluice/pipeline"
	"sluice/pipeline/pipelinetest"
)

// BenchmarkTransaction is a message of 10 KB on a connection that stays, as Postfix sends it, from MAIL to its end.
func BenchmarkTransaction(b *testing.B) {
	env := pipelinetest.Env(b)
	env.Journal = nowhere{}
	plan := pipelinetest.Plan(b, env, pipelinetest.Step("look", pipelinetest.Stage{Looks: pipeline.Reads{Input: pipeline.InputHeader}}))
	server := New(Config{
		Plan: func() *pipeline.Plan { return plan }, Handover: testKey, Hostname: "mx.example.org",
		Trusted: netip.Addr.IsLoopback, Log: slog.New(slog.DiscardHandler),
	})
	path := filepath.Join(b.TempDir(), "m")
	l, err := net.Listen("unix", path)
	if err != nil {
		b.Fatal(err)
	}
	go func() { _ = server.Serve(l) }() // ends with Shutdown
	defer server.Shutdown(context.Background())
	mta, err := net.Dial("unix", path)
	if err != nil {
		b.Fatal(err)
	}
	defer mta.Close()

	packet := func(to *bytes.Buffer, code byte, data string) {
		_ = binary.Write(to, binary.BigEndian, uint32(1+len(data)))
		to.WriteByte(code)
		to.WriteString(data)
	}
	in := make([]byte, 4096)
	// say sends what is there, and waits for what ends in the answer code.
	say := func(text []byte, code byte) {
		if _, err := mta.Write(text); err != nil {
			b.Fatal(err)
		}
		for rest := 0; ; {
			n, err := mta.Read(in[rest:])
			if err != nil {
				b.Fatal(err)
			}
			for rest += n; rest >= 5; {
				size := 4 + int(binary.BigEndian.Uint32(in))
				if rest < size {
					break
				}
				got := in[4]
				rest = copy(in, in[size:rest])
				if got == code {
					return
				}
				if got != 'i' {
					b.Fatalf("heard %q", got)
				}
			}
		}
	}
	var hello, envelope, message bytes.Buffer
	packet(&hello, 'O', "\x00\x00\x00\x06\x00\x00\x01\xff\x00\x1f\xff\xff")
	packet(&hello, 'C', "mail.example\x004\x04\xd2192.0.2.7\x00")
	packet(&hello, 'H', "mail.example\x00")
	say(hello.Bytes(), 'O')
	packet(&envelope, 'D', "M{mail_addr}\x00a@sender.example\x00{mail_host}\x00sender.example\x00{mail_mailer}\x00smtp\x00")
	packet(&envelope, 'M', "<a@sender.example>\x00SIZE=10240\x00")
	packet(&envelope, 'D', "Ri\x004F1\x00{rcpt_addr}\x00me@example.org\x00{rcpt_host}\x00example.org\x00")
	packet(&envelope, 'R', "<me@example.org>\x00")
	packet(&message, 'D', "Ti\x004F1\x00")
	packet(&message, 'T', "")
	for _, f := range []string{
		"From\x00 A <a@sender.example>", "To\x00 me@example.org", "Subject\x00 hello", "Date\x00 Sat, 1 Aug 2026 10:00:00 +0000",
		"Message-ID\x00 <1@sender.example>", "MIME-Version\x00 1.0", "Content-Type\x00 text/plain; charset=utf-8",
		"Received\x00 from a by b; Sat, 1 Aug 2026 10:00:00 +0000", "User-Agent\x00 x", "X-Mailer\x00 y",
	} {
		packet(&message, 'L', f+"\x00")
	}
	packet(&message, 'N', "")
	packet(&message, 'B', string(bytes.Repeat([]byte("All the words of a mail, line by line as people write them.\r\n"), 160)))
	packet(&message, 'D', "Ei\x004F1\x00")
	packet(&message, 'E', "")
	packet(&message, 'A', "")

	b.ReportAllocs()
	for b.Loop() {
		say(envelope.Bytes(), 'c')
		say(message.Bytes(), 'a')
	}
}

// nowhere keeps no record.
type nowhere struct{}

func (nowhere) Record(context.Context, *pipeline.Record, bool) error { return nil }
