package milter

import (
	"os/exec"
	"strings"
	"testing"

	"sluice/pipeline"
	"sluice/protocols/peertest"
)

func TestMiltertest(t *testing.T) {
	peertest.Need(t, "miltertest")
	d := open(t, nil,
		says("rules", pipeline.Rcpt, reject("no"), "bad"),
		says("late", pipeline.Content, reject("100% not wanted"), "late"),
		says("drop", pipeline.Content, pipeline.Verdict{Action: pipeline.Discard}, "discard"))
	cmd := exec.CommandContext(t.Context(), "miltertest", "-v", "-D", "SOCKET=unix:"+d.path, "-s", "testdata/stages.lua")
	out, err := cmd.CombinedOutput()
	if err != nil || !strings.Contains(string(out), "all stages passed") {
		t.Errorf("miltertest: %v\n%s", err, out)
	}
}
