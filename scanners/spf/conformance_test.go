package spf

import (
	"bytes"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/goccy/go-yaml"
)

// A scenario is one document of the suite of openspf.org for RFC 7208: a zone and what policies in it come to.
type scenario struct {
	name  string
	zone  *zone
	cases []conformanceCase
}

type conformanceCase struct {
	name, helo, host, from string
	results                []string // any of them
	explanation            string   // "" is not looked at, "DEFAULT" is none
}

// readSuite reads the suite.
func readSuite(t testing.TB) []scenario {
	t.Helper()
	dir := os.Getenv("SLUICE_TESTDATA")
	if dir == "" {
		t.Skip("SLUICE_TESTDATA is not set")
	}
	text, err := os.ReadFile(filepath.Join(dir, "spf", "rfc7208-tests.yml"))
	if err != nil {
		t.Fatal(err)
	}
	var out []scenario
	for doc := range bytes.SplitSeq(text, []byte("\n---\n")) {
		var s struct {
			Description string
			Tests       map[string]struct {
				Helo, Host, Mailfrom, Explanation string
				Result                            any
			}
			Zonedata map[string][]any
		}
		if err := yaml.Unmarshal(doc, &s); err != nil {
			t.Fatal(err)
		}
		if len(s.Tests) == 0 {
			continue // comments
		}
		x := scenario{name: s.Description, zone: newZone()}
		for name, records := range s.Zonedata {
			x.zone.fill(t, name, records)
		}
		for name, c := range s.Tests {
			x.cases = append(x.cases, conformanceCase{name, c.Helo, c.Host, c.Mailfrom, list(c.Result), c.Explanation})
		}
		slices.SortFunc(x.cases, func(a, b conformanceCase) int { return strings.Compare(a.name, b.name) })
		out = append(out, x)
	}
	return out
}

// list is a value that may be one or several.
func list(x any) (out []string) {
	if several, ok := x.([]any); ok {
		for _, y := range several {
			out = append(out, fmt.Sprint(y))
		}
		return out
	}
	return []string{fmt.Sprint(x)}
}

// fill takes the records of a name as the suite writes them. SPF stands for TXT where there is no TXT, which may be
// NONE; TIMEOUT is for types that have no record.
func (z *zone) fill(t testing.TB, name string, records []any) {
	t.Helper()
	name = strings.ToLower(name)
	var spf []string
	hasTXT, timeout := false, false
	for _, r := range records {
		m, ok := r.(map[string]any)
		if !ok {
			if r != "TIMEOUT" {
				t.Fatalf("%s: %v", name, r)
			}
			timeout = true
			continue
		}
		for kind, value := range m {
			switch kind {
			case "SPF":
				spf = append(spf, strings.Join(list(value), ""))
			case "TXT":
				if hasTXT = true; value != "NONE" {
					z.put(name, kind, strings.Join(list(value), ""))
				}
			case "MX":
				z.put(name, kind, list(value)[1])
			default:
				z.put(name, kind, list(value)[0])
			}
		}
	}
	if !hasTXT {
		z.txt[name] = append(z.txt[name], spf...)
	}
	z.fail[name] = timeout && len(z.txt[name]) == 0
}

func (c conformanceCase) query() Query {
	q := Query{Client: netip.MustParseAddr(c.host), Helo: c.helo, Receiver: "mx.example.org", Now: time.Unix(1700000000, 0)}
	if at := strings.LastIndexByte(c.from, '@'); at >= 0 {
		q.Local, q.Domain = c.from[:at], c.from[at+1:]
	}
	return q
}

// The suite of openspf.org, release 2014.04: 203 cases. Of hexadecimal digits in an explanation the case does not count:
// the suite has them in capitals, the example in RFC 7208, 7.4 in small letters.
func TestRFC7208(t *testing.T) {
	n := 0
	for _, s := range readSuite(t) {
		t.Run(s.name, func(t *testing.T) {
			for _, c := range s.cases {
				n++
				t.Run(c.name, func(t *testing.T) {
					got := Check(t.Context(), s.zone, Limits{}, c.query())
					if !slices.Contains(c.results, got.Result) {
						t.Errorf("%s (%v), want %v", got.Result, got.Err, c.results)
					}
					if (got.Err != nil) != slices.Contains([]string{None, TempError, PermError}, got.Result) {
						t.Errorf("%s, and the reason is %v", got.Result, got.Err)
					}
					want := c.explanation
					if want == "DEFAULT" {
						want = ""
					}
					if c.explanation != "" && !strings.EqualFold(got.Explanation, want) {
						t.Errorf("explained as %q, want %q", got.Explanation, want)
					}
				})
			}
		})
	}
	if n != 203 {
		t.Errorf("%d cases", n)
	}
}
