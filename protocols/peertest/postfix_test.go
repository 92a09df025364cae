package peertest

import (
	"strings"
	"testing"
)

func TestPostfixStartsAndStops(t *testing.T) {
	p := StartPostfix(t, PostfixConfig{Main: map[string]string{"virtual_transport": "discard"}})
	transcript, code := Swaks(t, "--server", p.Address, "--from", "a@sender.example", "--to", "me@example.org")
	if code != 0 {
		t.Fatalf("swaks: exit code %d\n%s", code, transcript)
	}
	if transcript, code = Swaks(t, "--server", p.Address, "--to", "me@elsewhere.example", "--xclient-addr", "192.0.2.7"); code == 0 {
		t.Errorf("relayed for a stranger:\n%s", transcript)
	}
	p.WaitLog("status=sent (elsewhere.example)"[:11])
	if !strings.Contains(p.Log(), "relay=none") {
		t.Log(p.Log())
	}
}
