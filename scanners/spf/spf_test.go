package spf

import (
	"testing"

	"sluice/pipeline/pipelinetest"
)

func TestConform(t *testing.T) { pipelinetest.Conform(t, Kind(), nil) }
