package rules

import (
	"context"
	"fmt"
	"math/rand/v2"
	"reflect"
	"strings"
	"testing"
)

// phrase makes a random piece of a condition, mostly of the kind that fits.
func phrase(r *rand.Rand, kind string, depth int) string {
	pick := func(from ...string) string { return from[r.IntN(len(from))] }
	if r.IntN(40) == 0 { // now and then of another kind
		kind = pick("bool", "int", "float", "text", "texts", "ints")
	}
	sub := func(kind string) string { return phrase(r, kind, depth-1) }
	leaf := depth <= 0
	switch kind {
	case "bool":
		if leaf {
			return pick("true", "known(dnsbl.zen)", `hit("early.friend")`, "dnsbl.zen.listed", `has("Subject")`, "client.trusted", "dnsbl.sbl.listed", `in_network(client.ip, "192.0.2.0/24", "::/0")`,
				"date > received + days(2)", "received.hour >= 22", `"bare-lf" in anomalies`, `any(links, .domain == "example.org")`,
				`none(attachments, .extension in ["exe", "txt"] and .size > 3)`, `any(rcpts, .local == "user")`, `all(header_froms, .name == "")`)
		}
		switch r.IntN(18) {
		case 14:
			return fmt.Sprintf("%s(%s, %s)", pick("under", "looks_like", "same_org", "has_word"), sub("text"), sub("text"))
		case 15:
			return fmt.Sprintf("%s(%s, %s, %s)", pick("under", "looks_like", "has_word"), sub("text"), pick(`"example.org"`, `"bücher.example"`, `"xn--bcher-kva.example"`), sub("text"))
		case 16:
			return fmt.Sprintf("mixed_scripts(%s)", sub("text"))
		case 17:
			return fmt.Sprintf("any(%s, %s)", pick("links", "attachments", "rcpts", "header_froms"), pick(
				`.url contains "x"`, `.host == ""`, `.name endsWith "t"`, `.size % 2 == 1`, `.domain == from.domain`, `len(.text) > 2`, `.local != .tag`))
		case 0:
			return fmt.Sprintf("(%s and %s)", sub("bool"), sub("bool"))
		case 1:
			return fmt.Sprintf("(%s or %s)", sub("bool"), sub("bool"))
		case 2:
			return fmt.Sprintf("not (%s)", sub("bool"))
		case 3:
			return fmt.Sprintf("%s %s %s", sub("text"), pick("==", "!=", "<", ">=", "contains", "startsWith", "endsWith", "not contains"), sub("text"))
		case 4:
			return fmt.Sprintf("%s %s %s", sub("number"), pick("==", "!=", "<", "<=", ">"), sub("number"))
		case 5:
			return fmt.Sprintf("%s %s %s", sub("text"), pick("in", "not in"), sub("texts"))
		case 6:
			return fmt.Sprintf("%s %s %s", sub("number"), pick("in", "not in"), sub("ints"))
		case 7:
			return fmt.Sprintf("%s(%s, %s)", pick("any", "all", "none", "one"), sub("texts"), strings.ReplaceAll(sub("bool"), "helo", "#"))
		case 8:
			return fmt.Sprintf("count(%s, # %s %s) %s %s", sub("ints"), pick("==", "<"), sub("number"), pick("==", ">", ">="), sub("int"))
		case 9:
			return fmt.Sprintf("%s matches %s", sub("text"), pick(`"^a"`, "`(?i)x+$`", `"\\d{2,5}"`, `""`))
		case 10:
			return fmt.Sprintf("(%s ? %s : %s)", sub("bool"), sub("bool"), sub("bool"))
		case 11:
			return fmt.Sprintf("(let v = %s; v == %s)", sub("text"), sub("text"))
		case 12:
			return fmt.Sprintf("(%s) == (%s)", sub("bool"), sub("bool"))
		case 13:
			return fmt.Sprintf("%s(scan.files, .name %s %s and %s(.members, .size > %s or .name %s %s))", pick("any", "none", "all"), pick("==", "contains"), sub("text"),
				pick("any", "none", "one"), sub("number"), pick("==", "endsWith"), sub("text"))
		default:
			return fmt.Sprintf("any(scan.files, .size > %s and .name %s %s)", sub("number"), pick("==", "endsWith"), sub("text"))
		}
	case "number":
		return phrase(r, pick("int", "int", "float"), depth)
	case "int":
		if leaf {
			return pick("1", "0", "42", "size", "spf.hops", "header_from.count", "-3", "1_000", "0x1f", "date", "received", "received.hour", "date.zone",
				"len(links)", "len(attachments)", `len(headers("X"))`)
		}
		switch r.IntN(10) {
		case 8:
			return fmt.Sprintf("count_matches(%s, %s)", sub("text"), pick(`"a+"`, `""`, `"(?i)x|y"`))
		case 9:
			return fmt.Sprintf("%s(%s)", pick("days", "hours", "minutes"), sub("number"))
		case 0:
			return fmt.Sprintf("(%s %s %s)", sub("int"), pick("+", "-", "*", "%"), sub("int"))
		case 1:
			return fmt.Sprintf("len(%s)", sub(pick("text", "texts", "ints")))
		case 2:
			return fmt.Sprintf("indexOf(%s, %s)", sub("text"), sub("text"))
		case 3:
			return fmt.Sprintf("int(%s)", sub(pick("text", "number")))
		case 4:
			return fmt.Sprintf("%s(%s, %s)", pick("min", "max"), sub("int"), sub("int"))
		case 5:
			return fmt.Sprintf("abs(%s)", sub("int"))
		case 6:
			return fmt.Sprintf("%s[%s]", pick("scan.sizes", "[1, 2, 3]"), sub("int"))
		default:
			return fmt.Sprintf("(%s ? %s : %s)", sub("bool"), sub("int"), sub("int"))
		}
	case "float":
		if leaf {
			return pick("1.5", "0.0", "dmarc.percent", "1e3")
		}
		switch r.IntN(6) {
		case 4:
			return fmt.Sprintf("entropy(%s)", sub("text"))
		case 5:
			return fmt.Sprintf("similarity(%s, %s)", sub("text"), sub("text"))
		case 0:
			return fmt.Sprintf("(%s %s %s)", sub("number"), pick("+", "-", "*", "/"), sub("float"))
		case 1:
			return fmt.Sprintf("float(%s)", sub(pick("text", "number")))
		case 2:
			return fmt.Sprintf("%s(%s, %s)", pick("min", "max"), sub("number"), sub("float"))
		default:
			return fmt.Sprintf("-(%s)", sub("float"))
		}
	case "text":
		if leaf {
			return pick(`"x"`, `""`, "`a\"b`", "helo", "subject", "spf.result", "from.domain", `header("X")`, "client.ip", "rcpt.tag", `"Ü"`, "text", "html", "message_id", "list_id",
				"client.tls", "header_from.name", "lower(text)", "lower(subject)", "lower(html)", "received.weekday", "date.weekday")
		}
		switch r.IntN(8) {
		case 6:
			return fmt.Sprintf("%s(%s)", pick("org", "unicode", "ascii", "host"), sub("text"))
		case 7:
			return fmt.Sprintf("other_address(%s, %s)", sub("text"), sub("text"))
		case 0:
			return fmt.Sprintf("%s(%s)", pick("lower", "upper", "trim"), sub("text"))
		case 1:
			return fmt.Sprintf("%s(%s, %s)", pick("trimPrefix", "trimSuffix", "trim"), sub("text"), sub("text"))
		case 2:
			return fmt.Sprintf("string(%s)", sub("number"))
		case 3:
			return fmt.Sprintf("%s[%s]", sub("texts"), sub("int"))
		case 4:
			return fmt.Sprintf("(%s | lower())", sub("text"))
		default:
			return fmt.Sprintf("(%s ? %s : %s)", sub("bool"), sub("text"), sub("text"))
		}
	case "texts":
		if leaf {
			return pick("dnsbl.zen.codes", `["a", "x"]`, "[]", "[helo, subject]", `headers("X-Twice")`, `headers("Received")`)
		}
		return fmt.Sprintf("[%s, %s]", sub("text"), sub("text"))
	default:
		if leaf {
			return pick("scan.sizes", "[1, 2]", "1..5", "[1, 2.5]", "[]")
		}
		return fmt.Sprintf("[%s, %s]", sub("number"), sub("number"))
	}
}

// What the checker lets pass expr compiles, and it does not fail by type, whatever the mail.
func TestRandomConditions(t *testing.T) {
	sc, err := newScope("rules", before())
	if err != nil {
		t.Fatal(err)
	}
	rounds := 1000
	if testing.Short() {
		rounds = 300
	}
	accepted := 0
	for seed := range rounds {
		r := rand.New(rand.NewPCG(uint64(seed), 3))
		when := phrase(r, "bool", 1+r.IntN(4))
		set := newRuleset(sc)
		set.limits = DefaultLimits()
		x := &rule{name: "a", when: []rune(when)}
		src := newSource("x", when)
		for i := range len(x.when) + 1 {
			x.whenAt = append(x.whenAt, spot{src, 1, i + 1, 1})
		}
		set.rules = []*rule{x}
		// The same, all of it by expr's machine.
		slow := newRuleset(sc)
		slow.slow = true
		slow.rules = []*rule{{name: "a", when: x.when, whenAt: x.whenAt}}
		slow.compile(&reporter{step: "rules"})
		rep := &reporter{step: "rules"}
		set.compile(rep)
		if len(rep.all) > 0 {
			if strings.Contains(rep.all.Error(), "cannot be compiled") {
				t.Errorf("seed %d: %v", seed, rep.all)
			}
			continue
		}
		accepted++
		for range 3 {
			v := randomView(t, r)
			slowly := slow.stages(thresholds{})
			for i, st := range set.stages(thresholds{}) {
				res, err := st.Check(context.Background(), v)
				if err != nil {
					t.Fatal(err)
				}
				other, err := slowly[i].Check(context.Background(), v)
				if err != nil {
					t.Fatal(err)
				}
				if len(res.Hits)+len(res.Undecided) == 0 {
					// A rule that does not hold was settled by the cheap terms, here and there by others.
					res.Terms, other.Terms = nil, nil
				}
				if !reflect.DeepEqual(res, other) {
					t.Errorf("seed %d: %s: got %+v, expr's machine says %+v", seed, when, res, other)
				}
				for _, u := range res.Undecided {
					if strings.Contains(u.Why, " failed: ") && !byData(u.Why) {
						t.Errorf("seed %d: %s: %s", seed, when, u.Why)
					}
				}
			}
		}
	}
	t.Logf("%d of %d accepted", accepted, rounds)
	if accepted < rounds/4 {
		t.Errorf("only %d of %d random conditions were accepted", accepted, rounds)
	}
}
