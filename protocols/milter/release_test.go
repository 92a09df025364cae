package milter

import (
	"context"
	"fmt"
	"strings"
	"testing"

	"sluice/pipeline"
	"sluice/pipeline/pipelinetest"
)

// Mail that was released from quarantine comes back through the MTA whose milter we are. It is not judged again, if our
// genuine mark is on it, a trusted client brings it, and the record lets it go to all who are named.
func TestReleasedMailIsNotJudgedAgain(t *testing.T) {
	record := &pipeline.Record{
		Version: pipeline.RecordVersion, ID: "r1", End: "handed over",
		Recipients: []pipeline.RecipientRecord{{
			Recipient:   pipeline.Recipient{Address: pipelinetest.Address(t, "me@example.org")},
			Verdict:     pipeline.Verdict{Action: pipeline.Keep, By: "release"},
			Disposition: pipeline.Delivered,
		}},
	}
	mail := pipelinetest.Parse(t, "Subject: hello\n\ntext\n")
	genuine := testKey.Value("r1", mail)
	const passes, refused = "S: a\n", "S: y 550 5.7.1 no\n"
	for _, tt := range []struct {
		name, client, mark, rcpts, want string
	}{
		{"released", "127.0.0.1", genuine, "me@example.org", passes},
		{"a stranger brings it", "192.0.2.7", genuine, "me@example.org", refused},
		{"forged", "127.0.0.1", genuine + "x", "me@example.org", refused},
		{"of another record", "127.0.0.1", testKey.Value("r2", mail), "me@example.org", refused},
		{"another recipient", "127.0.0.1", genuine, "me@example.org you@example.org", refused},
		{"no mark", "127.0.0.1", "", "me@example.org", refused},
	} {
		t.Run(tt.name, func(t *testing.T) {
			d := open(t, func(c *Config) {
				c.Recall = func(_ context.Context, id string) (*pipeline.Record, error) {
					if id != record.ID {
						return nil, nil
					}
					return record, nil
				}
			}, says("no", pipeline.Content, reject("no")))
			var b strings.Builder
			fmt.Fprintf(&b, "C: O 6 0x1ff 0x100f7f\nS: O 6 0x19 0x100100\nC: C mail.example|4|%s\nS: c\nC: H mail.example\nS: c\nC: M <a@sender.example>\nS: c\n", tt.client)
			for r := range strings.FieldsSeq(tt.rcpts) {
				fmt.Fprintf(&b, "C: R <%s>\nS: c\n", r)
			}
			b.WriteString("C: T\nS: c\nC: L Subject| hello\nS: c\n")
			if tt.mark != "" {
				fmt.Fprintf(&b, "C: L X-Sluice-Id| %s\nS: c\n", tt.mark)
			}
			b.WriteString("C: N\nS: c\nC: B text\\r\\n\nS: c\nC: E\n" + tt.want + "C: A\nC: Q\nS: EOF\n")
			d.dial().talk(b.String())
			records := d.journal.Records()
			if len(records) != 1 {
				t.Fatalf("%d records of one message", len(records))
			}
			if want := map[string]string{passes: "r1", refused: "t1"}[tt.want]; records[0].ID != want {
				t.Errorf("the record is %s, want %s", records[0].ID, want)
			}
		})
	}
}

// Whoever brings released mail back may have put fields beside our mark that only we write.
func TestReleasedMailKeepsNothingButTheMark(t *testing.T) {
	genuine := testKey.Value("r1", pipelinetest.Parse(t, "Subject: hello\n\ntext\n"))
	d := open(t, func(c *Config) {
		c.Recall = func(context.Context, string) (*pipeline.Record, error) {
			return &pipeline.Record{Version: pipeline.RecordVersion, ID: "r1", Recipients: []pipeline.RecipientRecord{{
				Recipient: pipeline.Recipient{Address: pipelinetest.Address(t, "me@example.org")},
				Verdict:   pipeline.Verdict{Action: pipeline.Keep, By: "release"}, Disposition: pipeline.Delivered,
			}}}, nil
		}
	})
	d.dial().talk(strings.ReplaceAll(postfix, "192.0.2.7", "127.0.0.1") + `
C: M <>
S: c
C: R <me@example.org>
S: c
C: L X-Sluice-Id| r0 forged
S: c
C: L X-Spam-Flag| NO
S: c
C: L x-sluice-id| ` + genuine + `
S: c
C: L Subject| hello
S: c
C: L X-Spam-Score| -100
S: c
C: L X-SLUICE-FOLDER| Wanted
S: c
C: L X-Sluice-Id| ` + genuine + `
S: c
C: N
S: c
C: B text\r\n
S: c
C: E
S: m 1 X-SLUICE-FOLDER|
S: m 1 X-Spam-Score|
S: m 2 x-sluice-id|
S: m 1 X-Spam-Flag|
S: m 1 X-Sluice-Id|
S: a
`)
}
