package cli

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// The freezer is found in either version's words, and never at the root of all.
func TestFreezerOf(t *testing.T) {
	for groups, want := range map[string]string{
		"12:pids:/a\n5:freezer:/pods/x\n0::/u\n": "/r/freezer/pods/x/freezer.state",
		"0::/pods/x\n":                           "/r/pods/x/cgroup.freeze",
		"5:freezer:/\n0::/\n":                    "",
		"0::/../x\n":                             "",
		"":                                       "",
	} {
		if f, err := freezerOf(groups, "/r"); f.write != want || (err == nil) != (want != "") {
			t.Errorf("%q: %+v, %v", groups, f, err)
		}
	}
}

// What is written to the freezer, and that a freezer that never freezes is let go.
func TestFreeze(t *testing.T) {
	proc, root := t.TempDir(), t.TempDir()
	put := func(at, text string) {
		t.Helper()
		if err := os.MkdirAll(filepath.Dir(at), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(at, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	put(filepath.Join(proc, "7", "cgroup"), "0::/x\n")
	put(filepath.Join(root, "x", "cgroup.events"), "populated 1\nfrozen 1\n")
	for still, want := range map[bool]string{true: "1", false: "0"} {
		put(filepath.Join(root, "x", "cgroup.freeze"), "")
		if err := freeze(proc, root, 7, still); err != nil {
			t.Fatal(err)
		}
		if got, err := os.ReadFile(filepath.Join(root, "x", "cgroup.freeze")); err != nil || !strings.HasPrefix(string(got), want) {
			t.Errorf("still %v: %q, %v", still, got, err)
		}
	}
	if err := freeze(proc, root, 8, true); err == nil {
		t.Error("a process that there is not stands still")
	}
}
