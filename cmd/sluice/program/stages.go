package program

import (
	"sluice/pipeline"
	"sluice/rules"
	"sluice/scanners/clamav"
	"sluice/scanners/dnsbl"
	"sluice/scanners/exec"
	"sluice/scanners/helo"
	"sluice/scanners/http"
	"sluice/scanners/links"
	"sluice/scanners/rdns"
	"sluice/scanners/spf"
)

// Stages returns the kinds of stages that come with Sluice. This list is the registry: there is no other.
func Stages() []pipeline.Kind {
	return []pipeline.Kind{
		clamav.Kind(),
		dnsbl.Kind(),
		exec.Kind(),
		helo.Kind(),
		http.Kind(),
		links.Kind(),
		rdns.Kind(),
		spf.Kind(),
		rules.Kind(),
	}
}
