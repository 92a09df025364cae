package sieve

import "strings"

// folderExtensions: RFC 5490, RFC 8579, RFC 9042, RFC 8580 and RFC 6785. A folder is named by its identity or by its use, not
// by both (RFC 9042).
func folderExtensions() []extension {
	on := []string{"fileinto", "vacation", "notify"}
	metadata := func(name string, folder bool) form {
		f := form{name: name, tags: matchTags(), matches: true}
		if folder {
			f.args = append(f.args, positional{name: "folder", shape: text})
		}
		f.args = append(f.args, positional{name: "annotation", shape: text}, positional{name: "keys", shape: texts})
		f.holds = metadataTest
		return f
	}
	return []extension{
		{
			name: "mailbox",
			tests: []form{{
				name: "mailboxexists", args: []positional{{name: "names of folders", shape: texts}},
				holds: func(r *run, n *call) bool { return r.each(n, &n.args[0], r.folderExists) },
			}},
			tags: []tagOn{{on: on, tag: tag{name: "create", check: needsFcc, apply: func(_ *run, _ *call, _ *value, a *Action) {
				a.Create = a.Kind == FileInto
			}}}},
		},
		{
			name: "mailboxid",
			tests: []form{{
				name: "mailboxidexists", args: []positional{{name: "identities of folders", shape: texts}},
				holds: func(r *run, n *call) bool {
					return r.each(n, &n.args[0], func(id string) bool {
						_, ok := r.folderByID(id)
						return ok
					})
				},
			}},
			tags: []tagOn{{on: on, tag: tag{name: "mailboxid", group: "which folder", takes: text, check: needsFcc, apply: func(r *run, _ *call, v *value, a *Action) {
				if a.Kind == FileInto {
					a.MailboxID = r.text(v)
				}
			}}}},
		},
		{
			name: "special-use",
			tests: []form{{
				name: "specialuse_exists", holds: specialUseExists,
				args: []positional{{name: "folder", shape: text, optional: true}, {name: "special uses", shape: texts}},
			}},
			tags: []tagOn{{on: on, tag: tag{name: "specialuse", group: "which folder", takes: text, check: needsFcc, apply: func(r *run, _ *call, v *value, a *Action) {
				if a.Kind == FileInto {
					a.SpecialUse = r.text(v)
				}
			}}}},
		},
		{
			name: "mboxmetadata",
			tests: []form{metadata("metadata", true), {
				name: "metadataexists", args: []positional{{name: "folder", shape: text}, {name: "annotations", shape: texts}},
				holds: func(r *run, n *call) bool { return r.hasAnnotations(n, r.text(&n.args[0]), &n.args[1]) },
			}},
		},
		{
			name: "servermetadata",
			tests: []form{metadata("servermetadata", false), {
				name: "servermetadataexists", args: []positional{{name: "annotations", shape: texts}},
				holds: func(r *run, n *call) bool { return r.hasAnnotations(n, "", &n.args[0]) },
			}},
		},
		{
			name: "fcc",
			tags: []tagOn{{on: []string{"vacation", "notify"}, tag: tag{name: "fcc", takes: text, check: func(c *checker, _ *call, v *value) {
				if p := v.texts[0]; p.constant() {
					if wrong := badFolder(p.fixed); wrong != "" {
						c.report(p.at, wrong, "")
					}
				}
			}}}},
		},
		// RFC 6785: what happened is in the environment.
		{name: "imapsieve", with: []string{"environment"}},
	}
}

// needsFcc reports a tag about a folder on a command that files nothing without :fcc (RFC 8580, 3).
func needsFcc(c *checker, n *call, v *value) {
	if (n.form.name == "vacation" || n.form.name == "notify") && !n.has("fcc") {
		c.report(v.at, sprintf("%s files nothing without :fcc", n.form.name), `add :fcc "Sent"`)
	}
}

// fcc files a copy of what is sent (RFC 8580).
func (r *run) fcc(n *call, content []byte) flow {
	v := n.tag("fcc")
	if v == nil {
		return next
	}
	folder := r.text(v)
	if wrong := badFolder(folder); wrong != "" {
		return r.fail(n, "%s", wrong)
	}
	r.say(n, "a copy of it is filed into %q", folder)
	return r.add(n, Action{Kind: FileInto, Folder: folder, Content: content, Copy: true})
}

// each reports whether something holds for all strings of a list.
func (r *run) each(n *call, v *value, holds func(string) bool) bool {
	for _, s := range r.texts(v) {
		if !r.spend(n, 1) || !holds(s) {
			return false
		}
	}
	return true
}

func (r *run) folderExists(name string) bool {
	if r.in.Mailboxes == nil {
		return strings.EqualFold(name, "INBOX")
	}
	return r.in.Mailboxes.Exists(name)
}

func (r *run) folderByID(id string) (string, bool) {
	if r.in.Mailboxes == nil {
		return "", false
	}
	return r.in.Mailboxes.ByID(id)
}

// specialUseExists: RFC 8579, 4: of a folder, or of any.
func specialUseExists(r *run, n *call) bool {
	if r.in.Mailboxes == nil {
		return false
	}
	folder := n.arg("folder")
	return r.each(n, n.arg("special uses"), func(use string) bool {
		name, ok := r.in.Mailboxes.BySpecialUse(use)
		return ok && (folder == nil || name == r.text(folder))
	})
}

func (r *run) annotation(folder, name string) (string, bool) {
	if r.in.Mailboxes == nil {
		return "", false
	}
	return r.in.Mailboxes.Metadata(folder, name)
}

// metadataTest: RFC 5490, 3.1 and 4.1: an annotation that is not there matches nothing.
func metadataTest(r *run, n *call) bool {
	folder := ""
	if v := n.arg("folder"); v != nil {
		folder = r.text(v)
	}
	s, ok := r.annotation(folder, r.text(n.arg("annotation")))
	if !ok && n.match.how != count {
		return false
	}
	x := r.matcher(n)
	if ok {
		x.value(s)
	}
	return x.held()
}

func (r *run) hasAnnotations(n *call, folder string, names *value) bool {
	return r.each(n, names, func(name string) bool {
		_, ok := r.annotation(folder, name)
		return ok
	})
}
