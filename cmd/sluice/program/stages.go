package program

import (
	"sluice/pipeline"
	"sluice/rules"
	"sluice/rules/sieve"
	"sluice/scanners/arc"
	"sluice/scanners/authres"
	"sluice/scanners/clamav"
	"sluice/scanners/content"
	"sluice/scanners/dkim"
	"sluice/scanners/dmarc"
	"sluice/scanners/dnsbl"
	"sluice/scanners/exec"
	"sluice/scanners/greylist"
	"sluice/scanners/helo"
	"sluice/scanners/http"
	"sluice/scanners/links"
	"sluice/scanners/milter"
	"sluice/scanners/ratelimit"
	"sluice/scanners/rdns"
	"sluice/scanners/replies"
	"sluice/scanners/rspamd"
	"sluice/scanners/spamd"
	"sluice/scanners/spf"
)

// Stages returns the kinds of stages that come with Sluice. This list is the registry: there is no other.
func Stages() []pipeline.Kind {
	return []pipeline.Kind{
		arc.Kind(),
		authres.Kind(),
		clamav.Kind(),
		content.Kind(),
		dkim.Kind(),
		dmarc.Kind(),
		dnsbl.Kind(),
		exec.Kind(),
		greylist.Kind(),
		helo.Kind(),
		http.Kind(),
		links.Kind(),
		milter.Kind(),
		ratelimit.Kind(),
		rdns.Kind(),
		replies.Kind(),
		rspamd.Kind(),
		spamd.Kind(),
		spf.Kind(),
		rules.Kind(),
		sieve.StepKind(),
	}
}
