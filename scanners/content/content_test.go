package content

import (
	"testing"

	"sluice/pipeline/pipelinetest"
)

func TestConform(t *testing.T) {
	pipelinetest.Conform(t, Kind(), nil)
	pipelinetest.Conform(t, Kind(), func(c any) {
		c.(*Config).Protect = []string{"bank.example", "Jane Doe <jane@example.org>", "A Bank <bank.example>"}
	})
}
