package program

import (
	"slices"
	"strings"

	"sluice/pipeline"
)

// ownersView returns records as the owner of a mailbox may see them: what their mail was, what was decided about it for
// them and by which rule, and what is anyhow to be read in its header. It leaves out
//
//   - other recipients, all of them and whatever was said about them;
//   - of the client, whether it is trusted and as whom it has logged in: its address and name stand in Received;
//   - facts but those of the steps that write or would write Authentication-Results, and those about the mail itself;
//   - texts for the operator, errors with their addresses and reasons, rules on trial, timings;
//   - paths on the server's disk, and fields of the header that their copy lacks;
//   - of rules that the administrator calls private, name, condition and evidence. What they add to the score is shown.
//
// Records of mail that was not for the owner are left out.
func ownersView(records []*pipeline.Record, account string, private []string) (seen []*pipeline.Record) {
	for _, r := range records {
		if v := ownerView(r, account, private); v != nil {
			seen = append(seen, v)
		}
	}
	return seen
}

func ownerView(r *pipeline.Record, account string, private []string) *pipeline.Record {
	v := *r
	v.Recipients = nil
	for _, x := range r.Recipients {
		if !owns(x, account) {
			continue
		}
		x.Verdict.Reason, x.Note, x.Removed = "", "", nil
		if isPrivate(x.Step, x.Verdict.By, private) {
			x.Verdict.By = privateRule
		}
		if step, rule, _ := strings.Cut(x.FolderBy, "/"); isPrivate(step, rule, private) {
			x.FolderBy = step + "/" + privateRule
		}
		x.Handling = ownersHandling(x.Handling)
		x.Steps = ownersSteps(x.Steps, private)
		v.Recipients = append(v.Recipients, x)
	}
	if len(v.Recipients) == 0 {
		return nil
	}
	v.Client = pipeline.Client{Addr: r.Client.Addr, Name: r.Client.Name, TLS: r.Client.TLS}
	v.Note, v.Timings = "", nil
	v.Steps = ownersSteps(r.Steps, private)
	return &v
}

// ownersFiles are files without where they lie on the server's disk.
func ownersFiles(files []found) []found {
	for i := range files {
		files[i].Path = ""
		if files[i].Gone != "" {
			files[i].Gone = "it is in no folder any more"
		}
	}
	return files
}

// owns reports whether a recipient is the owner: by the account that the mail went to, or, where somebody else delivers
// it, by the address.
func owns(x pipeline.RecipientRecord, account string) bool {
	if x.Account != "" {
		return x.Account == account
	}
	x.Address.Tag = ""
	return x.Address.String() == account
}

// privateRule stands for the name of a private rule.
const privateRule = "(private)"

// isPrivate reports whether a rule is one that owners of mailboxes do not see.
func isPrivate(step, rule string, private []string) bool {
	return rule != "" && slices.ContainsFunc(private, func(pattern string) bool { return wildcard(pattern, step+"/"+rule) })
}

// wildcard reports whether a text is what a pattern says, in which * stands for anything.
func wildcard(pattern, text string) bool {
	parts := strings.Split(pattern, "*")
	last := len(parts) - 1
	if last == 0 {
		return pattern == text
	}
	text, begins := strings.CutPrefix(text, parts[0])
	if !begins {
		return false
	}
	for _, part := range parts[1:last] {
		at := strings.Index(text, part)
		if at < 0 {
			return false
		}
		text = text[at+len(part):]
	}
	return strings.HasSuffix(text, parts[last])
}

// shownToOwners are the kinds of steps whose facts owners see.
func shownToOwners() []string { return []string{"arc", "content", "dkim", "dmarc", "spf"} }

func ownersSteps(steps []pipeline.StepRecord, private []string) (seen []pipeline.StepRecord) {
	for _, s := range steps {
		if s.Shadow {
			continue
		}
		out := pipeline.StepRecord{Name: s.Name, At: s.At, Kind: s.Kind, Stages: []pipeline.StageRecord{}}
		if slices.Contains(shownToOwners(), s.Kind) {
			out.Fact = s.Fact
			if s.Unknown != "" {
				out.Unknown = notKnown
			}
			for name := range s.Missing {
				if out.Missing == nil {
					out.Missing = map[string]string{}
				}
				out.Missing[name] = notKnown
			}
		}
		for _, h := range s.Hits {
			switch {
			case h.Shadow:
				continue
			case isPrivate(s.Name, h.Name, private):
				h.Name, h.Note, h.Evidence = privateRule, "", nil
			default:
				h.Note = "" // it says where overrides are written
				h.Evidence = slices.DeleteFunc(slices.Clone(h.Evidence), func(e pipeline.Evidence) bool {
					return e.Position == pipeline.Position{} // it is not from the mail itself
				})
			}
			out.Hits = append(out.Hits, h)
		}
		for _, u := range s.Undecided {
			if !u.Shadow && !isPrivate(s.Name, u.Name, private) {
				u.Why = notKnown
				out.Undecided = append(out.Undecided, u)
			}
		}
		if out.Fact != nil || out.Unknown != "" || len(out.Missing)+len(out.Hits)+len(out.Undecided) > 0 {
			seen = append(seen, out)
		}
	}
	return seen
}

// notKnown is what owners are told where operators are told why.
const notKnown = "not known at the time"
