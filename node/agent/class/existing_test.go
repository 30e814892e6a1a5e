package class

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// TestExisting: what is written to a group of somebody else's, in both versions of cgroups.
func TestExisting(t *testing.T) {
	for _, c := range []struct {
		version int
		limits  Limits
		want    map[string]string
	}{
		{1, Limits{Memory: 1 << 20, Pids: 7, Shares: 512}, map[string]string{"memory/sys/memory.limit_in_bytes": "1048576", "pids/sys/pids.max": "7", "cpu/sys/cpu.shares": "512"}},
		{1, Limits{Shares: 512}, map[string]string{"memory/sys/memory.limit_in_bytes": "", "cpu/sys/cpu.shares": "512"}},
		{2, Limits{Memory: 1 << 20, Pids: 7, Shares: 1024}, map[string]string{"sys/memory.max": "1048576", "sys/pids.max": "7", "sys/cpu.weight": "100"}},
		{2, Limits{Memory: 1 << 20}, map[string]string{"sys/memory.max": "1048576", "sys/cpu.weight": ""}},
	} {
		mount := t.TempDir()
		put := func(path string) {
			t.Helper()
			if err := os.MkdirAll(filepath.Dir(filepath.Join(mount, path)), 0o755); err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(filepath.Join(mount, path), nil, 0o600); err != nil {
				t.Fatal(err)
			}
		}
		if c.version == 2 {
			put("cgroup.controllers")
		}
		if err := Existing(mount, "/sys", c.limits); err == nil || !strings.Contains(err.Error(), "cgroup \"/sys\" is not there") {
			t.Errorf("version %d: a group that is not there: %v", c.version, err)
		}
		for path := range c.want {
			put(path)
		}
		if err := Existing(mount, "/sys", c.limits); err != nil {
			t.Errorf("version %d, %+v: %v", c.version, c.limits, err)
		}
		for path, want := range c.want {
			if got, err := os.ReadFile(filepath.Join(mount, path)); err != nil || string(got) != want {
				t.Errorf("version %d, %+v: %s is %q, want %q: %v", c.version, c.limits, path, got, want, err)
			}
		}
	}
}
