package program

import (
	"path/filepath"
	"slices"

	"sluice/cmd/sluice/program/config"
	"sluice/mailstore/maildir"
	"sluice/mailstore/refile"
	"sluice/pipeline"
)

// sortedMails are mails that runs of refile have moved or flagged, by account and file, the latest move first. That was not
// their owner's doing.
type sortedMails map[[2]string][]sortedMail

type sortedMail struct {
	run, by  string   // which run, and which rules
	from, to string   // folders
	set      []string // flags that were set
}

// A refiledBy says of a mail that a run of refile has moved or flagged it.
type refiledBy struct {
	Run   string   `json:"run"`
	By    string   `json:"by"` // "rules/newsletters"
	From  string   `json:"from"`
	To    string   `json:"to"`
	Flags []string `json:"flags,omitempty"` // that were set
}

// note notes of files which runs have moved them, the latest first.
func (all sortedMails) note(files []found) {
	for i := range files {
		for _, m := range all[[2]string{files[i].Account, files[i].File}] {
			files[i].Refiled = append(files[i].Refiled, refiledBy{Run: m.run, By: m.by, From: m.from, To: m.to, Flags: m.set})
		}
	}
}

// sortedByRuns reads all runs. One that cannot be read is left out: refile list complains about it.
func sortedByRuns(c *config.Config) sortedMails {
	all := sortedMails{}
	runs, _ := refile.Dir{Path: filepath.Join(c.Data, "refile")}.List()
	for _, r := range runs {
		for _, x := range r.All {
			if x.State != refile.Done && x.State != refile.Stays {
				continue
			}
			m := sortedMail{run: r.ID, by: x.By, from: x.From.Folder, to: x.To.Folder}
			for _, f := range x.To.Flags {
				if !slices.Contains(x.From.Flags, f) {
					m.set = append(m.set, f)
				}
			}
			key := [2]string{r.Account, x.From.File}
			all[key] = append(all[key], m)
		}
	}
	return all
}

// unsort returns where a mail would lie, and with which flags, had no run moved it: what its owner did before and after
// stands. What the owner has moved away from where a run had put it, counts as filed there.
func (all sortedMails) unsort(x pipeline.RecipientRecord, now maildir.Seen) (pipeline.RecipientRecord, maildir.Seen) {
	for _, m := range all[[2]string{x.Account, now.File}] {
		switch {
		case m.from == m.to:
		case now.Folder == m.to:
			now.Folder = m.from
		default:
			x.Folder = m.to
		}
		if len(m.set) > 0 {
			now.Flags = slices.DeleteFunc(slices.Clone(now.Flags), func(f string) bool { return containsFold(m.set, f) })
		}
	}
	return x, now
}
