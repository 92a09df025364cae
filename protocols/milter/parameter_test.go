package milter

import (
	"testing"

	"sluice/pipeline"
)

// What a client asks for reaches the record as the SMTP door would have it there.
func TestParametersOfMailAndRcpt(t *testing.T) {
	d := open(t, nil)
	d.dial().talk(postfix + `
C: M <käthe@Exämple.org>|SIZE=100|BODY=8bitmime|SMTPUTF8|RET=hdrs|ENVID=QQ314159|AUTH=<>
S: c
C: R <jürgen@example.org>|NOTIFY=success,Delay|ORCPT=rfc822;al+2Bias+40@example.org
S: c
C: R <me@example.org>|orcpt=utf-8;j\x{FC}rgen@example.org|notify=NEVER
S: c
C: R <you@example.org>|ORCPT=utf-8;jürgen@example.org
S: c
C: R <they@example.org>|NOTIFY=NEVER,DELAY|ORCPT=x400;/C=DE
S: c
` + transfer + `
S: i 0 *
S: a
`)
	r, _ := d.journal.Last()
	want := pipeline.Asked{UTF8: true, Body: "8BITMIME", Return: "HDRS", EnvelopeID: "QQ314159"}
	if r.Asked != want || r.Sender.String() != "käthe@exämple.org" {
		t.Errorf("%v asked %+v, want %+v", r.Sender, r.Asked, want)
	}
	for i, want := range []struct{ address, notify, orcpt, original string }{
		{"jürgen@example.org", "SUCCESS,DELAY", "rfc822;al+2Bias+40@example.org", "al+ias@@example.org"},
		{"me@example.org", "NEVER", `utf-8;j\x{FC}rgen@example.org`, "jürgen@example.org"},
		{"you@example.org", "", "utf-8;jürgen@example.org", "jürgen@example.org"},
		{"they@example.org", "", "x400;/C=DE", ""},
	} {
		x := r.Recipients[i]
		if x.Address.String() != want.address || x.Notify != want.notify || x.ORCPT != want.orcpt {
			t.Errorf("the recipient is %+v, want %+v", x.Recipient, want)
		}
		if got := x.Original; got.IsZero() != (want.original == "") {
			t.Errorf("the original recipient of %v is %v, want %q", x.Address, got, want.original)
		}
	}
	if got, want := r.Recipients[1].Original.String(), "jürgen@example.org"; got != want {
		t.Errorf("the original recipient is %q, want %q", got, want)
	}

	// The next one asks for nothing.
	d.dial().talk(postfix + message + "S: i 0 *\nS: a\n")
	if r, _ := d.journal.Last(); r.Asked != (pipeline.Asked{}) || r.Recipients[0].ORCPT != "" {
		t.Errorf("the next message asked %+v", r.Asked)
	}
}

// MTAs check parameters; what one lets through all the same is not kept.
func TestParametersThatMakeNoSense(t *testing.T) {
	long := make([]byte, 501)
	for i := range long {
		long[i] = 'x'
	}
	if got := asked([]string{"BODY=BINARYMIME", "SMTPUTF8=yes", "RET=ALL", "ENVID=a b", "ENVID=" + string(long), "=", ""}); got != (pipeline.Asked{}) {
		t.Errorf("asked %+v", got)
	}
	var r pipeline.Recipient
	describe(&r, []string{
		"NOTIFY=", "NOTIFY=LATER", "NOTIFY=DELAY,DELAY,DELAY,DELAY", "ORCPT=rfc822", "ORCPT=rfc822;", "ORCPT=;a@b.example",
		"ORCPT=rfc822;" + string(long), "ORCPT=rfc822;a\n@b.example", "ORCPT=utf-8;\xff@b.example", "", "=",
	})
	if r != (pipeline.Recipient{}) {
		t.Errorf("the recipient is %+v", r)
	}
	for text, want := range map[string]string{`a\x{}b`: `a\x{}b`, `\x{110000}`: `\x{110000}`, `\x{FC`: `\x{FC`, `\x{FC}\x{20ac}`: "ü€"} {
		if got := unUnitext(text); got != want {
			t.Errorf("unUnitext(%q) = %q, want %q", text, got, want)
		}
	}
}
