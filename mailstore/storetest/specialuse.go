package storetest

import (
	"strings"
	"sync"

	"sluice/mailstore"
)

// uses are the special uses that folders of an account have, by their names.
func (m *M) uses(want map[string]string) {
	m.Helper()
	infos, err := m.account(Anna).Folders(m.ctx)
	m.no(err)
	got := map[string]string{}
	for _, i := range infos {
		if i.Use != "" {
			got[i.Name] = i.Use
		}
	}
	same(m.T, "uses", got, want)
}

func usesWritten(m *M) {
	a := m.account(Anna)
	for _, name := range []string{"Junk", "Sent", "Mine", "Other"} {
		m.no(a.Create(m.ctx, name))
	}
	m.uses(map[string]string{"Junk": `\Junk`, "Sent": `\Sent`})
	m.no(m.annotate("Mine", "/PRIVATE/SpecialUse", `\junk`)) // what is written counts, not the name
	m.uses(map[string]string{"Mine": `\Junk`, "Sent": `\Sent`})
	m.has("Mine", mailstore.Annotation{Name: mailstore.UseAnnotation, Value: `\Junk`})

	m.is(m.annotate("Other", mailstore.UseAnnotation, `\Junk`), mailstore.ErrUse) // it is another's
	m.is(m.annotate("Other", mailstore.UseAnnotation, `\All`), mailstore.ErrUse)
	m.is(m.annotate("Other", mailstore.UseAnnotation, `\Sent \Trash`), mailstore.ErrUse)
	m.is(m.annotate("", mailstore.UseAnnotation, `\Trash`), mailstore.ErrUse)
	m.is(m.annotate("", mailstore.UseAnnotation, ""), mailstore.ErrUse)
	m.no(m.annotate("Other", mailstore.UseAnnotation, `\Important`))
	m.no(m.annotate("Sent", mailstore.UseAnnotation, "")) // none, whatever its name is
	m.uses(map[string]string{"Mine": `\Junk`, "Other": `\Important`})

	m.no(a.Rename(m.ctx, "Mine", "Lists/mine"))
	m.uses(map[string]string{"Lists/mine": `\Junk`, "Other": `\Important`})
	m.no(a.Delete(m.ctx, "Lists/mine"))
	m.no(a.Create(m.ctx, "Mine"))
	m.uses(map[string]string{"Junk": `\Junk`, "Other": `\Important`})
	m.no(m.meta.Annotate(m.ctx, Anna, "Sent", nil, []string{mailstore.UseAnnotation}))
	m.uses(map[string]string{"Junk": `\Junk`, "Other": `\Important`, "Sent": `\Sent`})
}

func usesCreated(m *M) {
	a := m.account(Anna)
	m.no(a.Create(m.ctx, "Junk"))
	m.no(a.CreateFor(m.ctx, "Lists/spam", `\JUNK`))
	m.uses(map[string]string{"Lists/spam": `\Junk`})
	m.is(a.CreateFor(m.ctx, "Spam", `\Junk`), mailstore.ErrUse)
	m.is(a.CreateFor(m.ctx, "Spam", `\Flagged`), mailstore.ErrUse)
	m.is(a.CreateFor(m.ctx, "Spam", ``), mailstore.ErrUse)
	m.is(a.CreateFor(m.ctx, "Lists/spam", `\Sent`), mailstore.ErrExists)
	m.is(a.CreateFor(m.ctx, "a..b", `\Sent`), mailstore.ErrName)
	m.is(a.CreateFor(m.ctx, "inbox", `\Sent`), mailstore.ErrExists)
	same(m.T, "folders", m.names(a), []string{"INBOX", "Junk", "Lists", "Lists/spam"})
	m.no(a.CreateFor(m.ctx, "Gesendet", `\Sent`))
	m.no(a.Create(m.ctx, "Sent"))
	m.uses(map[string]string{"Lists/spam": `\Junk`, "Gesendet": `\Sent`})
}

func usesDelivered(m *M) {
	deliver := func(folder, use string) {
		m.Helper()
		_, err := m.store.Deliver(m.ctx, []mailstore.Item{
			{Account: Anna, Folder: folder, Use: use, Wish: true, ID: "x", Content: strings.NewReader(hello)},
		})
		m.no(err)
	}
	m.no(m.account(Anna).Create(m.ctx, "Kept"))
	deliver("Kept", `\Trash`) // it is there
	deliver("Spam", `\junk`)
	deliver("More", `\Junk`) // Spam has it
	deliver("Odd", `\All`)
	deliver("", `\Drafts`)
	deliver("a..b", `\Drafts`)
	m.uses(map[string]string{"Spam": `\Junk`})
	same(m.T, "folders", m.names(m.account(Anna)), []string{"INBOX", "Kept", "More", "Odd", "Spam"})
	same(m.T, "subscribed", m.info(m.account(Anna), "Spam").Subscribed, true)
	m.no(m.account(Anna).Create(m.ctx, "Sent"))
	deliver("Mine", `\Sent`) // Sent has it by its name
	m.uses(map[string]string{"Spam": `\Junk`, "Sent": `\Sent`})
}

func usesAtOnce(m *M) {
	var group sync.WaitGroup
	var made sync.Map
	a := m.account(Anna)
	for _, name := range []string{"a", "b", "c", "d"} {
		group.Go(func() {
			if err := a.CreateFor(m.ctx, name, `\Junk`); err == nil {
				made.Store(name, true)
			}
		})
	}
	group.Wait()
	got := map[string]string{}
	made.Range(func(name, _ any) bool { got[name.(string)] = `\Junk`; return true })
	same(m.T, "folders with the use", len(got), 1)
	m.uses(got)
}
