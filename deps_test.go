package sampan_test

import (
	"encoding/json"
	"flag"
	"os"
	"os/exec"
	"slices"
	"strings"
	"testing"
)

var update = flag.Bool("update", false, "write testdata anew instead of comparing with it")

const (
	depsFile   = "testdata/deps.txt"
	whyFile    = "docs/decisions/0002-libraries-and-what-is-ours.md"
	ownModule  = "github.com/sampan-dev/sampan"
	theProgram = "./cmd/sampan"
)

// What is linked into sampan is looked at by a person whenever it changes. The
// list has no versions: those are go.mod's. If it changed on purpose:
//
//	go test -run TestDependencies -update .
func TestDependencies(t *testing.T) {
	got := modules(t, "list", "-deps", "-f", "{{with .Module}}{{.Path}}{{end}}", theProgram)
	if *update {
		if err := os.WriteFile(depsFile, []byte(strings.Join(got, "\n")+"\n"), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	raw, err := os.ReadFile(depsFile)
	if err != nil {
		t.Fatal(err)
	}
	want := strings.Fields(string(raw))
	for _, m := range got {
		if !slices.Contains(want, m) {
			t.Errorf("sampan now links %s, which %s does not have: say in %s what it is for", m, depsFile, whyFile)
		}
	}
	for _, m := range want {
		if !slices.Contains(got, m) {
			t.Errorf("sampan no longer links %s: take it out of %s", m, depsFile)
		}
	}
}

// Each module that go.mod asks for directly has its reason written down.
func TestDependenciesHaveReasons(t *testing.T) {
	raw, err := os.ReadFile(whyFile)
	if err != nil {
		t.Fatal(err)
	}
	out, err := exec.Command("go", "mod", "edit", "-json").Output()
	if err != nil {
		t.Fatal(err)
	}
	var mod struct {
		Require []struct {
			Path     string
			Indirect bool
		}
	}
	if err := json.Unmarshal(out, &mod); err != nil {
		t.Fatal(err)
	}
	if len(mod.Require) == 0 {
		t.Fatal("go.mod names no module")
	}
	for _, m := range mod.Require {
		if !m.Indirect && !strings.Contains(string(raw), "`"+m.Path+"`") {
			t.Errorf("%s has no word about `%s`", whyFile, m.Path)
		}
	}
}

// modules runs go and gives the lines it prints, sorted, each once and without
// our own module, as they are for the platform that releases are built for.
func modules(t *testing.T, args ...string) []string {
	t.Helper()
	c := exec.Command("go", args...)
	c.Env = append(os.Environ(), "CGO_ENABLED=0", "GOOS=linux", "GOARCH=amd64", "GOFLAGS=")
	c.Stderr = t.Output()
	out, err := c.Output()
	if err != nil {
		t.Fatalf("go %s: %v", strings.Join(args, " "), err)
	}
	found := slices.DeleteFunc(strings.Split(string(out), "\n"), func(m string) bool { return m == "" || m == ownModule })
	slices.Sort(found)
	return slices.Compact(found)
}
