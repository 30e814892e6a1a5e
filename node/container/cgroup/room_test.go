package cgroup

import (
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// TestMakeRoom: only the root of a namespace, with processes that can be moved, is
// emptied. A directory is no kernel: what has been moved stays in it.
func TestMakeRoom(t *testing.T) {
	for _, c := range []struct {
		name        string
		typed       bool
		procs, want string
		moved, fail string
	}{
		{"the machine's root", false, "1\n2\n", "", "", ""},
		{"an empty one", true, "", "", "", ""},
		{"processes", true, "1\n17\n", "1 17", "17", "keeps getting processes"},
		{"another namespace's", true, "0\n17\n", "", "", "not of this process namespace"},
	} {
		root := t.TempDir()
		files := map[string]string{"cgroup.procs": c.procs}
		if c.typed {
			files["cgroup.type"] = "domain\n"
		}
		for name, text := range files {
			if err := os.WriteFile(filepath.Join(root, name), []byte(text), 0o644); err != nil {
				t.Fatal(err)
			}
		}
		pids, err := inTheWay(root)
		if want := strings.Fields(c.want); !slices.Equal(pids, want) && len(pids)+len(want) > 0 {
			t.Errorf("%s: %q is in the way (%v), want %q", c.name, pids, err, c.want)
		}
		err = makeRoom(root)
		if (err == nil) != (c.fail == "") || err != nil && !strings.Contains(err.Error(), c.fail) {
			t.Errorf("%s: %v, want %q", c.name, err, c.fail)
		}
		got, err := os.ReadFile(filepath.Join(root, "init", "cgroup.procs"))
		if string(got) != c.moved || err != nil && !errors.Is(err, os.ErrNotExist) {
			t.Errorf("%s: %q was moved, %v, want %q", c.name, got, err, c.moved)
		}
	}
}
