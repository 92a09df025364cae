package program

import (
	"encoding/json"

	"sluice/pipeline"
	"sluice/scanners/arc"
	"sluice/scanners/authres"
	"sluice/scanners/dkim"
	"sluice/scanners/dmarc"
	"sluice/scanners/rdns"
	"sluice/scanners/spf"
)

// authResults says what a transaction has found out about its mail's authentication, for the seal of mail that is
// handed on ([mailstore.Outgoing.Results]): the body of an Authentication-Results field without our name, "" where
// nobody has looked. Shadow steps are only tried, so they tell nobody anything.
func authResults(r *pipeline.Record) string {
	var facts []authres.Teller
	for _, s := range r.Steps {
		if s.Shadow || s.Fact == nil || s.Missing["result"] != "" {
			continue
		}
		if f := teller(s); f != nil {
			facts = append(facts, f)
		}
	}
	if len(facts) == 0 {
		return ""
	}
	return authres.Results(facts)
}

// teller returns a step's fact, nil where it is none of those that mail is authenticated by.
func teller(s pipeline.StepRecord) authres.Teller {
	switch s.Kind {
	case "spf":
		return decoded[spf.Fact](s)
	case "dkim":
		return decoded[dkim.Fact](s)
	case "dmarc":
		return decoded[dmarc.Fact](s)
	case "arc":
		return decoded[arc.Fact](s)
	case "rdns":
		return decoded[rdns.Fact](s)
	}
	return nil
}

func decoded[T authres.Teller](s pipeline.StepRecord) authres.Teller {
	var fact T
	if json.Unmarshal(s.Fact, &fact) != nil {
		return nil
	}
	return fact
}
