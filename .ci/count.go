//go:build ignore

// Count reads what `go test -json` has written and prints one line: how many tests passed, failed and were skipped,
// subtests included. A package that does not build, or ends in a panic or a race outside of any test, counts as a
// failure. With -failures it prints instead what the failures said, and why tests were skipped.
package main

import (
	"bufio"
	"encoding/json"
	"flag"
	"fmt"
	"os"
	"slices"
	"strings"
)

type event struct {
	Action, Package, ImportPath, Test, Output string
}

type test struct{ pkg, name string }

func main() {
	failures := flag.Bool("failures", false, "print what the failures said")
	flag.Parse()
	f, err := os.Open(flag.Arg(0))
	if err != nil {
		fmt.Println("0 passed, 1 failed, 0 skipped")
		os.Exit(1)
	}
	defer f.Close()
	said := map[test][]string{}
	ended := map[string][]test{}
	var order []test
	sc := bufio.NewScanner(f)
	sc.Buffer(nil, 64<<20)
	for sc.Scan() {
		var e event
		if json.Unmarshal(sc.Bytes(), &e) != nil {
			continue
		}
		t := test{e.Package, e.Test}
		if t.pkg == "" {
			t.pkg = strings.Fields(e.ImportPath + " ?")[0]
		}
		switch e.Action {
		case "output", "build-output":
			said[t] = append(said[t], e.Output)
		case "pass", "fail", "skip":
			ended[e.Action] = append(ended[e.Action], t)
			order = append(order, t)
		}
	}
	tests := func(action string) (n int) {
		for _, t := range ended[action] {
			if t.name != "" {
				n++
			}
		}
		return n
	}
	// A failed package with no failed test failed by itself.
	failed := tests("fail")
	for _, t := range ended["fail"] {
		if t.name == "" && !slices.ContainsFunc(ended["fail"], func(x test) bool { return x.pkg == t.pkg && x.name != "" }) {
			failed++
		}
	}
	if *failures {
		for _, t := range order {
			if slices.Contains(ended["fail"], t) {
				fmt.Printf("--- %s %s\n%s", t.pkg, t.name, strings.Join(said[t], ""))
			}
		}
		for _, t := range ended["skip"] {
			if t.name != "" {
				fmt.Printf("skipped: %s %s: %s\n", t.pkg, t.name, reason(said[t]))
			}
		}
		return
	}
	fmt.Printf("%d passed, %d failed, %d skipped\n", tests("pass"), failed, tests("skip"))
}

// reason is what a skipped test said: its output without the frame around it.
func reason(lines []string) string {
	for _, l := range lines {
		if l = strings.TrimSpace(l); l != "" && !strings.HasPrefix(l, "=== ") && !strings.HasPrefix(l, "--- ") {
			return l
		}
	}
	return "it does not say why"
}
