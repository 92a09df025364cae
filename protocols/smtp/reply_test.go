package smtp_test

import (
	"testing"

	"sluice/pipeline"
	"sluice/pipeline/pipelinetest"
)

// A refusal of several lines has both codes on each (RFC 5321, 4.2.1; RFC 2034, 4), wherever it is spoken. What a line end
// in it brings in is a line of the reply and no reply of its own. Other letters than ASCII's are for clients that have said
// SMTPUTF8, until their next MAIL.
func TestRepliesOfManyLines(t *testing.T) {
	refuses := func(in pipeline.Input) func(*door) {
		return func(d *door) {
			d.options.SpeakEarliest = true
			d.steps = []pipeline.Step{pipelinetest.Step("no", pipelinetest.Stage{
				Looks: pipeline.Reads{Input: in, Can: []pipeline.Final{{Action: pipeline.Reject}}},
				Says: says(pipeline.Result{Verdict: pipeline.Verdict{Action: pipeline.Reject, Reply: pipeline.Reply{
					Code: 550, Enhanced: "5.7.1", Text: "100% zu groß\r\n250 injected",
				}}}),
			})}
		}
	}
	const no = "S: 550-5.7.1 100% zu gross\nS: 550 5.7.1 250 injected\nC: NOOP\nS: 250 *\n"
	const nein = "S: 550-5.7.1 100% zu groß\nS: 550 5.7.1 250 injected\nC: NOOP\nS: 250 *\n"
	const mail, utf8 = "C: MAIL FROM:<s@client.example>\nS: 250 *\n", "C: MAIL FROM:<s@client.example> SMTPUTF8\nS: 250 *\n"
	const rcpt = "C: RCPT TO:<me@example.org>\n"
	const data = "S: 250 *\nC: DATA\nS: 354 *\nC: Subject: x\nC: \nC: body\nC: .\n"
	const chunk = "S: 250 *\nR: \"BDAT 8 LAST\\r\\nA: b\\r\\n\\r\\n\"\n"
	for _, tt := range []struct {
		name     string
		input    pipeline.Input
		dialogue string
	}{
		{"at EHLO", pipeline.InputGreeting, "C: EHLO client.example\n" + no},
		{"at MAIL", pipeline.InputSender, "C: MAIL FROM:<s@client.example>\n" + no + "C: MAIL FROM:<s@client.example> SMTPUTF8\n" + nein},
		{"at RCPT", pipeline.InputRecipient, mail + rcpt + no + "C: RSET\nS: 250 *\n" + utf8 + rcpt + nein},
		{"at DATA", pipeline.InputRecipients, utf8 + rcpt + "S: 250 *\nC: DATA\n" + nein + mail + rcpt + "S: 250 *\nC: DATA\n" + no},
		{"after DATA", pipeline.InputBody, utf8 + rcpt + data + nein + mail + rcpt + data + no},
		{"after BDAT", pipeline.InputBody, utf8 + rcpt + chunk + nein + mail + rcpt + chunk + no},
	} {
		t.Run(tt.name, func(t *testing.T) {
			begin := greeting
			if tt.input == pipeline.InputGreeting {
				begin = "S: 220 *\n"
			}
			open(t, refuses(tt.input)).dial().talk(begin + tt.dialogue)
		})
	}
	t.Run("LMTP, each its own", func(t *testing.T) {
		d := open(t, func(d *door) { lmtp(d); d.cfg.Refuse = true; refuses(pipeline.InputBody)(d) })
		d.dial().talk(lmtpGreeting + utf8 + rcpt + "S: 250 *\nC: RCPT TO:<you@example.org>\n" + data +
			"S: 550-5.7.1 <me@example.org> 100% zu groß\nS: 550 5.7.1 250 injected\n" +
			"S: 550-5.7.1 <you@example.org> 100% zu groß\nS: 550 5.7.1 250 injected\nC: NOOP\nS: 250 *\n")
	})
}
