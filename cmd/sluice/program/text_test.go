package program

import (
	"strings"
	"testing"
	"time"

	"sluice/pipeline"
)

func TestWhatTheSenderAskedFor(t *testing.T) {
	r := &pipeline.Record{
		ID: "1", Received: time.Unix(0, 0).UTC(), Door: pipeline.SMTP, End: "done",
		Asked: pipeline.Asked{UTF8: true, Body: "8BITMIME", Return: "HDRS", EnvelopeID: "e+2B\x1b[1m"},
		Recipients: []pipeline.RecipientRecord{
			{Recipient: pipeline.Recipient{ORCPT: "rfc822;a+40x", Notify: "SUCCESS,FAILURE"}},
			{Recipient: pipeline.Recipient{Notify: "NEVER"}},
			{},
		},
	}
	var b strings.Builder
	(&text{w: &b}).record(r, nil)
	var said []string
	for line := range strings.Lines(b.String()) {
		if line, ok := strings.CutPrefix(strings.TrimSpace(line), "asked for  "); ok {
			said = append(said, line)
		}
	}
	if got, want := strings.Join(said, "\n"), "NOTIFY=SUCCESS,FAILURE ORCPT=rfc822;a+40x\nNOTIFY=NEVER\nSMTPUTF8 BODY=8BITMIME RET=HDRS ENVID=e+2B\\x1b[1m"; got != want {
		t.Errorf("says\n%s\nwant\n%s\nin\n%s", got, want, &b)
	}

	b.Reset()
	r.Asked, r.Recipients = pipeline.Asked{}, r.Recipients[2:]
	if (&text{w: &b}).record(r, nil); strings.Contains(b.String(), "asked") {
		t.Errorf("nobody has asked for anything:\n%s", &b)
	}
}
