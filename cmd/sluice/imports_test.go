package main

import (
	"go/parser"
	"go/token"
	"io/fs"
	"path"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
)

// A folder is a role, and a role knows only the roles it needs. Each rule is about the packages below a folder, test
// files left out: which of ours they may import, and why no others. The longest folder that fits a package counts.
var imports = []struct {
	below string
	may   []string // packages of ours, "x/..." with all below; "!x" forbids again
	why   string
}{
	{"pipeline", []string{"pipeline/spool", "pipeline/mime"}, "the engine knows neither how mail came in nor where it is kept"},
	{"pipeline/spool", nil, "the spool holds bytes"},
	{"pipeline/mime", nil, "the parser knows messages and nothing else"},
	{"pipeline/orgdomain", nil, "names of domains are compared alike by scanners and rules, and know neither"},
	{"pipeline/srs", nil, "who rewrites senders knows addresses and nothing else"},
	{"pipeline/lookalike", []string{"pipeline/mime", "pipeline/orgdomain"}, "what looks alike to a reader is no matter of policy: scanners and rules ask it alike"},
	{"pipeline/pipelinetest", []string{"pipeline", "pipeline/mime"}, "it tests stages, whoever wrote them"},
	{"rules", []string{"pipeline", "pipeline/mime", "pipeline/orgdomain", "pipeline/lookalike"}, "a rule decides from facts: it does not find them, and does not know what becomes of its verdict"},
	{"rules/replay", []string{"pipeline", "pipeline/mime", "rules", "rules/sieve"}, "replay asks rules again from records"},
	{"scanners", []string{"pipeline", "pipeline/mime", "scanners/resolve", "scanners/breaker", "pipeline/orgdomain", "pipeline/lookalike", "scanners/dnslist", "scanners/dkim/signature", "scanners/peer", "scanners/ask"}, "a scanner finds facts; state and network come through Env, weights and verdicts are the rules'"},
	{"mailstore", nil, "a store keeps mail for whoever asks"},
	{"mailstore/maildir", []string{"mailstore", "mailstore/index"}, "a store knows its contract; a parser is handed to it"},
	{"mailstore/index", []string{"mailstore", "mailstore/state/database"}, "a store knows its contract; a parser is handed to it"},
	{"mailstore/files", nil, "what a disk does is nobody's in particular"},
	{"mailstore/space", []string{"mailstore"}, "a store knows its contract"},
	{"mailstore/refile", []string{"mailstore"}, "what is moved where is decided elsewhere, and any store may do it"},
	{"mailstore/users", []string{"mailstore", "mailstore/state/database"}, "a store knows its contract"},
	{"mailstore/quarantine", []string{"mailstore", "mailstore/files", "mailstore/state/database"}, "a store knows its contract"},
	{"mailstore/state", []string{"mailstore", "mailstore/state/database"}, "a store knows its contract"},
	{"mailstore/queue", []string{"mailstore", "mailstore/files", "mailstore/state/database"}, "a store knows its contract"},
	{"mailstore/scripts", []string{"mailstore"}, "a store knows its contract, and scripts are text to it"},
	{"mailstore/sending", []string{"mailstore", "mailstore/state/database"}, "what accounts send is counted for whoever asks"},
	{"mailstore/storetest", []string{"mailstore"}, "one suite for every store knows none of them"},
	{"mailstore/journal", []string{"mailstore", "mailstore/state/database", "pipeline", "pipeline/mime"}, "the journal keeps the pipeline's records"},
	{"protocols", []string{"pipeline", "pipeline/mime", "pipeline/spool", "mailstore", "protocols/listen", "protocols/sasl"}, "a door drives the pipeline and the stores' contract; doors do not know each other, rules or stores"},
	{"protocols/listen", []string{"mailstore"}, "sockets know nothing of mail; who logs in is the contract's business"},
	{"protocols/sasl", []string{"mailstore", "protocols/listen"}, "who logs in how is the same whatever the door wraps around it"},
	{"protocols/peertest", []string{"..."}, "tests may use everything"},
	{"cmd", []string{"...", "!pipeline/pipelinetest", "!mailstore/storetest", "!protocols/peertest"}, "what only tests need stays out of the program"},
	{"examples", []string{"pipeline", "pipeline/mime", "cmd/sluice/program"}, "a site's own program is built from the program and the contract"},
}

// Libraries that only some packages may use.
var libraries = []struct {
	library string
	in      []string
	why     string
}{
	{"github.com/emersion/go-message", []string{"pipeline/mime"}, "each mail is parsed once, within limits, by pipeline/mime"},
	{"github.com/emersion/go-smtp", []string{"protocols/smtp", "protocols/relay", "cmd/sluice/program"}, "its traps are guarded in one place"},
	{"github.com/emersion/go-milter", []string{"protocols/milter", "scanners/milter"}, "its traps are guarded in one place"},
	{"github.com/emersion/go-imap", []string{"protocols/imap"}, "its traps are guarded in one place"},
	{"github.com/expr-lang/expr", []string{"rules"}, "its holes are closed in one place"},
	{"github.com/miekg/dns", []string{"scanners/resolve", "protocols/peertest"}, "one resolver asks for everybody"},
	{"github.com/emersion/go-msgauth", []string{"scanners/dkim", "scanners/arc", "protocols/relay"}, "its limits are set in one place"},
	{"blitiri.com.ar/go/spf", nil, "our own evaluator is asked; that one is its oracle in tests"},
	{"github.com/dutchcoders/go-clamd", []string{"scanners/clamav"}, "it turns errors into clean unless guarded"},
	{"github.com/prometheus/client_golang", []string{"protocols/admin"}, "what is counted is worked out in one place"},
	{"github.com/ulikunitz/xz", []string{"scanners/content"}, "what it unpacks is bounded in one place"},
	{"github.com/xdg-go/scram", []string{"protocols/sasl", "mailstore/users"}, "one side proves, one keeps the keys; no door computes"},
	{"testing", []string{"pipeline/pipelinetest", "mailstore/storetest", "protocols/peertest"}, "what only tests need stays out of the program"},
}

func TestImports(t *testing.T) {
	root := filepath.Join("..", "..")
	err := filepath.WalkDir(root, func(file string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if name := d.Name(); d.IsDir() && file != root && (strings.HasPrefix(name, ".") || name == "testdata" || name == "sluice-data") {
			return filepath.SkipDir
		}
		if d.IsDir() || !strings.HasSuffix(file, ".go") || strings.HasSuffix(file, "_test.go") {
			return nil
		}
		rel, err := filepath.Rel(root, file)
		if err != nil {
			return err
		}
		f, err := parser.ParseFile(token.NewFileSet(), file, nil, parser.ImportsOnly)
		if err != nil {
			return err
		}
		pkg := path.Dir(filepath.ToSlash(rel))
		for _, spec := range f.Imports {
			name, err := strconv.Unquote(spec.Path.Value)
			if err != nil {
				return err
			}
			if why := forbidden(pkg, name); why != "" {
				t.Errorf("%s imports %s: %s", rel, name, why)
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
}

func TestForbidden(t *testing.T) {
	for _, tt := range []struct {
		pkg, name string
		ok        bool
	}{
		{"scanners/dnsbl", "sluice/pipeline", true},
		{"scanners/dnsbl", "sluice/rules", false},
		{"scanners/dnsbl", "sluice/mailstore", false},
		{"protocols/imap", "sluice/protocols/listen", true},
		{"protocols/imap", "sluice/protocols/smtp", false},
		{"protocols/imap", "sluice/mailstore/maildir", false},
		{"mailstore/maildir", "sluice/pipeline", false},
		{"pipeline", "github.com/emersion/go-message", false},
		{"pipeline/mime", "github.com/emersion/go-message/charset", true},
		{"cmd/sluice/program", "sluice/rules", true},
		{"cmd/sluice/program", "sluice/protocols/peertest", false},
		{"rules", "time", true},
	} {
		if why := forbidden(tt.pkg, tt.name); (why == "") != tt.ok {
			t.Errorf("%s importing %s: %q", tt.pkg, tt.name, why)
		}
	}
}

// forbidden returns why a package may not import another, "" if it may.
func forbidden(pkg, name string) string {
	for _, l := range libraries {
		if below(name, l.library) {
			for _, in := range l.in {
				if below(pkg, in) {
					return ""
				}
			}
			return l.why
		}
	}
	ours, ok := strings.CutPrefix(name, "sluice/")
	if !ok {
		names := pkg == "pipeline/mime" || pkg == "pipeline/orgdomain" || pkg == "pipeline/lookalike"
		if below(pkg, "pipeline") && !names && strings.Contains(strings.Split(name, "/")[0], ".") {
			return "the engine needs the standard library only"
		}
		return ""
	}
	best := -1
	for i, r := range imports {
		if below(pkg, r.below) && (best < 0 || len(r.below) > len(imports[best].below)) {
			best = i
		}
	}
	if best < 0 {
		return "no rule says where this folder stands: add one"
	}
	allowed := false
	for _, m := range imports[best].may {
		switch no, isNo := strings.CutPrefix(m, "!"); {
		case isNo && below(ours, no):
			allowed = false
		case m == "..." || m == ours:
			allowed = true
		}
	}
	if !allowed {
		return imports[best].why
	}
	return ""
}

func below(name, folder string) bool { return name == folder || strings.HasPrefix(name, folder+"/") }
