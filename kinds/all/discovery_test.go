package all

import (
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/sampan-dev/sampan/kinds"
)

const (
	factsFile = "testdata/discovery.facts"
	gapsFile  = "testdata/discovery.gaps"
)

// The table must say of each resource what upstream's discovery says. Known
// differences are in testdata/discovery.gaps, with "-" for what is missing here
// and "+" for what only we have; -update writes it anew: read the difference.
func TestDiscoveryIsUpstreams(t *testing.T) {
	facts := lines(t, factsFile)
	var ours []string
	for _, kind := range Kinds() {
		ours = append(ours, described(kind)...)
	}
	var gaps []string
	for _, fact := range facts {
		if !slices.Contains(ours, fact) {
			gaps = append(gaps, "- "+fact)
		}
	}
	for _, line := range ours {
		if !slices.Contains(facts, line) {
			gaps = append(gaps, "+ "+line)
		}
	}
	slices.SortFunc(gaps, func(a, b string) int { return strings.Compare(a[2:], b[2:]) })
	if *rewrite {
		text := "# Where our table is not upstream's (discovery.facts).\n" + strings.Join(gaps, "\n") + "\n"
		if err := os.WriteFile(gapsFile, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	known := lines(t, gapsFile)
	for _, gap := range gaps {
		if !slices.Contains(known, gap) {
			t.Errorf("differs from upstream's discovery: %s", gap)
		}
	}
	for _, gap := range known {
		if !slices.Contains(gaps, gap) {
			t.Logf("no longer a gap, -update takes it from the list: %s", gap)
		}
	}
}

func lines(t *testing.T, file string) []string {
	t.Helper()
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	var out []string
	for line := range strings.Lines(string(text)) {
		if line = strings.TrimSpace(line); line != "" && !strings.HasPrefix(line, "#") {
			out = append(out, line)
		}
	}
	return out
}

// described gives a kind and its subresources in the form of the facts.
func described(kind *kinds.Kind) []string {
	gv, scope := kind.GVK.GroupVersion(), "cluster"
	if kind.Namespaced {
		scope = "namespaced"
	}
	verbs := kind.Verbs
	if verbs == nil {
		verbs = []string{"create", "delete", "deletecollection", "get", "list", "patch", "update", "watch"}
	}
	line := []string{gv.String(), kind.Resource, kind.GVK.Kind, scope, sorted(verbs), kind.Singular}
	if len(kind.Short) > 0 {
		line = append(line, "short="+strings.Join(kind.Short, ","))
	}
	if len(kind.Categories) > 0 {
		line = append(line, "categories="+strings.Join(kind.Categories, ","))
	}
	out := []string{strings.Join(line, " ")}
	for _, sub := range kind.Subresources {
		name := kind.GVK.Kind
		if !sub.GVK.Empty() {
			name = sub.GVK.Kind
			if sub.GVK.GroupVersion() != gv {
				name = sub.GVK.GroupVersion().String() + "/" + name
			}
		}
		out = append(out, strings.Join([]string{gv.String(), kind.Resource + "/" + sub.Name, name, scope, sorted(sub.Verbs)}, " "))
	}
	return out
}

func sorted(verbs []string) string { return strings.Join(slices.Sorted(slices.Values(verbs)), ",") }
