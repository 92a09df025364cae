package main

import (
	"testing"

	"sluice/pipeline/pipelinetest"
)

// What every stage promises, ours does too.
func TestConform(t *testing.T) {
	pipelinetest.Conform(t, impostor(), func(c any) {
		c.(*config).Staff["Ann Boss"] = "ann@example.org"
	})
}
