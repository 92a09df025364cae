package storetest

import (
	"regexp"
	"strings"
	"sync"
	"testing"

	"sluice/mailstore"
)

// Described is a store that knows identities and annotations of folders.
type Described interface {
	mailstore.Store
	mailstore.Metadata
}

// The limits on annotations that a store under test of [Metadata] has to have.
const (
	Annotations    = 5
	AnnotationSize = 200
)

// Metadata tests what every store promises that knows identities and annotations of folders. open is as for [Test].
func Metadata(t *testing.T, open func(t testing.TB) Described) {
	for _, test := range []struct {
		name string
		run  func(t *M)
	}{
		{"identity: it stays, and is found", identityStays},
		{"identity: it goes with the folder", identityGoes},
		{"identity: everybody is told the same", identityShared},
		{"describe", describe},
		{"annotations", annotations},
		{"annotations: names", annotationNames},
		{"annotations: they go with the folder", annotationsGo},
		{"annotations: limits", annotationLimits},
		{"annotations: many at once", annotationsAtOnce},
		{"special use: what is written", usesWritten},
		{"special use: a folder made for it", usesCreated},
		{"special use: a folder made for mail", usesDelivered},
		{"special use: many at once", usesAtOnce},
	} {
		t.Run(test.name, func(t *testing.T) {
			s := open(t)
			test.run(&M{T: &T{T: t, store: s, ctx: t.Context()}, meta: s})
		})
	}
}

// M is a test with a store that knows folders.
type M struct {
	*T
	meta mailstore.Metadata
}

func (m *M) id(account, folder string) string {
	m.Helper()
	id, err := m.meta.FolderID(m.ctx, account, folder)
	m.no(err)
	if !regexp.MustCompile(`^[0-9A-Za-z_-]{1,255}$`).MatchString(id) {
		m.Fatalf("identity %q is none", id)
	}
	return id
}

func (m *M) byID(account, id string) string {
	m.Helper()
	folder, err := m.meta.FolderByID(m.ctx, account, id)
	m.no(err)
	return folder
}

func (m *M) lost(account, id string) {
	m.Helper()
	_, err := m.meta.FolderByID(m.ctx, account, id)
	m.is(err, mailstore.ErrNoFolder)
}

func (m *M) annotate(folder, name, value string) error {
	return m.meta.Annotate(m.ctx, Anna, folder, []mailstore.Annotation{{Name: name, Value: value}}, nil)
}

func (m *M) has(folder string, want ...mailstore.Annotation) {
	m.Helper()
	all, err := m.meta.Annotations(m.ctx, Anna, folder)
	m.no(err)
	same(m.T, "annotations of "+folder, all, mailstore.Annotations(want))
}

func identityStays(m *M) {
	a := m.account(Anna)
	m.no(a.Create(m.ctx, "Lists/go"))
	inbox, lists := m.id(Anna, "inbox"), m.id(Anna, "Lists")
	if inbox == lists || m.id(Anna, "Lists/go") == lists || m.id(Ben, "INBOX") == inbox {
		m.Fatal("two folders have one identity")
	}
	same(m.T, "identity, asked again", m.id(Anna, "INBOX"), inbox)
	same(m.T, "folder", m.byID(Anna, inbox), "INBOX")
	same(m.T, "folder", m.byID(Anna, lists), "Lists")
	m.lost(Ben, lists)

	m.no(a.Rename(m.ctx, "Lists", "Old/lists"))
	same(m.T, "identity under another name", m.id(Anna, "Old/lists"), lists)
	same(m.T, "folder under another name", m.byID(Anna, lists), "Old/lists")
	m.deliver(Anna, "", hello)
	m.no(a.Rename(m.ctx, "INBOX", "Kept")) // RFC 8474, 4.2: the inbox stays, and the folder is a new one
	same(m.T, "identity of the inbox", m.id(Anna, "INBOX"), inbox)
	if m.id(Anna, "Kept") == inbox {
		m.Error("what was in the inbox has its identity")
	}
	for _, id := range []string{"", "F", "../x", inbox + "x", strings.ToLower(inbox), strings.Repeat("F", 300)} {
		m.lost(Anna, id)
	}
	_, err := m.meta.FolderByID(m.ctx, Nobody, inbox)
	m.is(err, mailstore.ErrNoAccount)
}

func identityGoes(m *M) {
	a := m.account(Anna)
	m.no(a.Create(m.ctx, "Lists"))
	id := m.id(Anna, "Lists")
	m.no(a.Delete(m.ctx, "Lists"))
	m.lost(Anna, id)
	for _, name := range []string{"Lists", "", "a.b"} {
		_, err := m.meta.FolderID(m.ctx, Anna, name)
		if err == nil {
			m.Errorf("folder %q has an identity", name)
		}
	}
	m.no(a.Create(m.ctx, "Lists"))
	if m.id(Anna, "Lists") == id {
		m.Error("a new folder has the identity of one that was deleted")
	}
	_, err := m.meta.FolderID(m.ctx, Nobody, "INBOX")
	m.is(err, mailstore.ErrNoAccount)
}

func identityShared(m *M) {
	ids := make([]string, 8)
	var group sync.WaitGroup
	for i := range ids {
		group.Go(func() {
			var err error
			if ids[i], err = m.meta.FolderID(m.ctx, Anna, "INBOX"); err != nil {
				m.Error(err)
			}
		})
	}
	group.Wait()
	for _, id := range ids {
		same(m.T, "identity", id, ids[0])
	}
}

func describe(m *M) {
	m.deliver(Anna, "", hello)
	m.deliver(Anna, "", hello, `\Seen`)
	m.deliver(Anna, "Junk", hello)
	m.no(m.account(Anna).Create(m.ctx, "Lists/go"))
	list, err := m.meta.Describe(m.ctx, Anna)
	m.no(err)
	var names []string
	for _, d := range list {
		names = append(names, d.Name)
		same(m.T, "identity of "+d.Name, d.ID, m.id(Anna, d.Name))
	}
	same(m.T, "folders", names, []string{"INBOX", "Junk", "Lists", "Lists/go"})
	same(m.T, "inbox", [3]int64{int64(list[0].Messages), int64(list[0].Unseen), list[0].Size}, [3]int64{2, 1, 2 * int64(len(hello))})
	same(m.T, "use", list[1].Use, `\Junk`)
	l := m.list(m.folder(Anna, "INBOX"))
	if !l.Messages[0].Recent {
		m.Error("a message that nobody has looked at is no longer new")
	}
	_, err = m.meta.Describe(m.ctx, Nobody)
	m.is(err, mailstore.ErrNoAccount)
}

func annotations(m *M) {
	m.has("INBOX")
	m.has("")
	m.no(m.annotate("", "/shared/comment", "the server"))
	m.no(m.annotate("inbox", "/private/Comment", "mine"))
	m.no(m.annotate("INBOX", "/SHARED/vendor/x", ""))
	m.has("", mailstore.Annotation{Name: "/shared/comment", Value: "the server"})
	m.has("INBOX", mailstore.Annotation{Name: "/private/comment", Value: "mine"}, mailstore.Annotation{Name: "/shared/vendor/x"})
	all, err := m.meta.Annotations(m.ctx, Anna, "INBOX")
	m.no(err)
	if value, ok := all.Value("/Private/comment"); !ok || value != "mine" {
		m.Errorf("looked up: %q, %t", value, ok)
	}
	if _, ok := all.Value("/private/other"); ok {
		m.Error("there is one that is not")
	}
	m.no(m.annotate("INBOX", "/private/comment", "zwei\n\"Zeilen\" ü"))
	m.no(m.meta.Annotate(m.ctx, Anna, "INBOX", nil, []string{"/shared/VENDOR/x", "/private/none"}))
	m.has("INBOX", mailstore.Annotation{Name: "/private/comment", Value: "zwei\n\"Zeilen\" ü"})
	m.no(m.meta.Annotate(m.ctx, Anna, "INBOX", nil, []string{"/private/comment"}))
	m.has("INBOX")
	m.is(m.annotate("none", "/private/comment", "x"), mailstore.ErrNoFolder)
	_, err = m.meta.Annotations(m.ctx, Anna, "none")
	m.is(err, mailstore.ErrNoFolder)
	_, err = m.meta.Annotations(m.ctx, Nobody, "")
	m.is(err, mailstore.ErrNoAccount)
	others, err := m.meta.Annotations(m.ctx, Ben, "")
	m.no(err)
	same(m.T, "annotations of another account", len(others), 0)
}

func annotationNames(m *M) {
	for _, name := range []string{
		"", "/", "comment", "/private", "/private/", "/shared//x", "/private/x/", "/other/x", "private/x", "/private/a*", "/private/%",
		"/private/ü", "/private/a\r\nb", "/private/\x00", "/shared/" + strings.Repeat("x", 300),
	} {
		m.is(m.annotate("INBOX", name, "x"), mailstore.ErrAnnotation)
		m.is(m.meta.Annotate(m.ctx, Anna, "INBOX", nil, []string{name}), mailstore.ErrAnnotation)
	}
	for _, value := range []string{"\xff", "a\x00b"} {
		m.is(m.annotate("INBOX", "/private/comment", value), mailstore.ErrAnnotation)
	}
	// All or none.
	m.is(m.meta.Annotate(m.ctx, Anna, "INBOX", []mailstore.Annotation{{Name: "/private/a", Value: "1"}, {Name: "/none"}}, nil), mailstore.ErrAnnotation)
	m.has("INBOX")
}

func annotationsGo(m *M) {
	a := m.account(Anna)
	m.no(a.Create(m.ctx, "Lists"))
	m.no(m.annotate("Lists", "/private/comment", "go with me"))
	m.no(a.Rename(m.ctx, "Lists", "Old"))
	m.has("Old", mailstore.Annotation{Name: "/private/comment", Value: "go with me"})
	m.no(a.Delete(m.ctx, "Old"))
	m.no(a.Create(m.ctx, "Old"))
	m.has("Old")
}

func annotationLimits(m *M) {
	for i := range Annotations {
		m.no(m.annotate("INBOX", "/private/"+string(rune('a'+i)), "x"))
	}
	m.is(m.annotate("INBOX", "/private/z", "x"), mailstore.ErrTooManyAnnotations)
	m.no(m.annotate("INBOX", "/private/a", "another"))
	m.is(m.annotate("INBOX", "/private/a", strings.Repeat("x", AnnotationSize)), mailstore.ErrAnnotationSize)
	m.no(m.annotate("", "/private/a", strings.Repeat("\x01", AnnotationSize-len("/private/a"))))
	m.has("", mailstore.Annotation{Name: "/private/a", Value: strings.Repeat("\x01", AnnotationSize-len("/private/a"))})
}

func annotationsAtOnce(m *M) {
	var group sync.WaitGroup
	for i := range Annotations {
		group.Go(func() {
			if err := m.annotate("INBOX", "/private/"+string(rune('a'+i)), "x"); err != nil {
				m.Error(err)
			}
		})
	}
	group.Wait()
	all, err := m.meta.Annotations(m.ctx, Anna, "INBOX")
	m.no(err)
	same(m.T, "annotations set at once", len(all), Annotations)
}
