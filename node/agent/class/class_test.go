package class

import (
	"os"
	"path/filepath"
	"testing"
)

// tree is a directory that looks like mounted cgroups: of version 2 with the
// control files of the kernel's, which are made with a group.
func tree(t *testing.T, unified bool) *Shares {
	t.Helper()
	s := &Shares{Mount: t.TempDir(), Root: "sampan"}
	files := []string{"cpu/sampan/kubepods/burstable/cpu.shares", "cpu/sampan/kubepods/besteffort/cpu.shares"}
	if unified {
		files = []string{"cgroup.controllers", "cgroup.subtree_control", "sampan/cgroup.subtree_control", "sampan/kubepods/cgroup.subtree_control",
			"sampan/kubepods/burstable/cpu.weight", "sampan/kubepods/besteffort/cpu.weight"}
	}
	for _, f := range files {
		path := filepath.Join(s.Mount, f)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, nil, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	return s
}

func read(t *testing.T, s *Shares, path string) string {
	t.Helper()
	b, err := os.ReadFile(filepath.Join(s.Mount, path))
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

func TestSharesV1(t *testing.T) {
	s := tree(t, false)
	if err := s.Set(1536); err != nil {
		t.Fatal(err)
	}
	if got := read(t, s, "cpu/sampan/kubepods/burstable/cpu.shares"); got != "1536" {
		t.Errorf("burstable: %q", got)
	}
	if got := read(t, s, "cpu/sampan/kubepods/besteffort/cpu.shares"); got != "2" {
		t.Errorf("best effort: %q", got)
	}
}

func TestSharesV2(t *testing.T) {
	s := tree(t, true)
	if err := s.Set(1024); err != nil {
		t.Fatal(err)
	}
	for path, want := range map[string]string{
		"sampan/kubepods/burstable/cpu.weight": "100", "sampan/kubepods/besteffort/cpu.weight": "1",
		"cgroup.subtree_control": "+cpu", "sampan/cgroup.subtree_control": "+cpu", "sampan/kubepods/cgroup.subtree_control": "+cpu",
	} {
		if got := read(t, s, path); got != want {
			t.Errorf("%s is %q, want %q", path, got, want)
		}
	}
}

// TestBoundsSwap: a kernel tells by the file of a group that has the memory controller.
func TestBoundsSwap(t *testing.T) {
	for _, c := range []struct {
		name          string
		unified, file bool
		want          bool
	}{
		{"cgroup v1", false, false, false},
		{"cgroup v2", true, true, true},
		{"cgroup v2, swap is not counted", true, false, false},
	} {
		s := tree(t, c.unified)
		if c.file {
			if err := os.WriteFile(filepath.Join(s.Mount, "sampan/kubepods/memory.swap.max"), nil, 0o644); err != nil {
				t.Fatal(err)
			}
		}
		if got, err := s.BoundsSwap(); got != c.want || err != nil {
			t.Errorf("%s: %v, %v", c.name, got, err)
		}
		if c.unified && read(t, s, "sampan/cgroup.subtree_control") != "+memory" {
			t.Errorf("%s: pods have no memory controller", c.name)
		}
	}
}

// TestSetAgain: what has not changed is not written, what failed is.
func TestSetAgain(t *testing.T) {
	s := tree(t, false)
	file := filepath.Join(s.Mount, "cpu/sampan/kubepods/burstable/cpu.shares")
	if err := os.Remove(file); err != nil {
		t.Fatal(err)
	}
	if err := s.Set(100); err == nil {
		t.Fatal("a class without the file was given shares")
	}
	if err := os.WriteFile(file, nil, 0o644); err != nil {
		t.Fatal(err)
	}
	if err := s.Set(100); err != nil {
		t.Fatal(err)
	}
	if err := os.Truncate(file, 0); err != nil {
		t.Fatal(err)
	}
	if err := s.Set(100); err != nil || read(t, s, "cpu/sampan/kubepods/burstable/cpu.shares") != "" {
		t.Errorf("the same was written again, %v", err)
	}
}

func TestWeight(t *testing.T) {
	for shares, want := range map[int64]int64{0: 1, 2: 1, 1024: 100, 262_144: 10_000, 1 << 20: 10_000} {
		if got := weight(shares); got != want {
			t.Errorf("weight of %d shares is %d, want %d", shares, got, want)
		}
	}
}

// TestLimits: all pods together are kept from what is reserved.
func TestLimits(t *testing.T) {
	for _, c := range []struct {
		unified bool
		files   map[string]string
	}{
		{false, map[string]string{"memory/sampan/kubepods/memory.limit_in_bytes": "1024", "pids/sampan/kubepods/pids.max": "77", "cpu/sampan/kubepods/cpu.shares": "1024"}},
		{true, map[string]string{"sampan/kubepods/memory.max": "1024", "sampan/kubepods/pids.max": "77", "sampan/kubepods/cpu.weight": "100"}},
	} {
		s := tree(t, c.unified)
		for path := range c.files {
			full := filepath.Join(s.Mount, path)
			if err := os.MkdirAll(filepath.Dir(full), 0o755); err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(full, nil, 0o644); err != nil {
				t.Fatal(err)
			}
		}
		if err := s.Limit(Limits{Memory: 1024, Pids: 77, Shares: 1024}); err != nil {
			t.Fatal(err)
		}
		for path, want := range c.files {
			if got := read(t, s, path); got != want {
				t.Errorf("%s: %q, want %q", path, got, want)
			}
		}
	}
}

// TestReserve: what is kept for a pod is kept by all above it; cgroup v1 keeps nothing.
func TestReserve(t *testing.T) {
	s := tree(t, true)
	files := map[string]string{"sampan/memory.min": "30", "sampan/memory.low": "20", "sampan/kubepods/memory.min": "30",
		"sampan/kubepods/memory.low": "20", "sampan/kubepods/burstable/memory.low": "20"}
	for path := range files {
		if err := os.WriteFile(filepath.Join(s.Mount, path), nil, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	r := Reserved{Guaranteed: 10, Burstable: 20}
	if err := s.Reserve(r); err != nil {
		t.Fatal(err)
	}
	for path, want := range files {
		if got := read(t, s, path); got != want {
			t.Errorf("%s is %q, want %q", path, got, want)
		}
	}
	if err := os.Remove(filepath.Join(s.Mount, "sampan/memory.min")); err != nil {
		t.Fatal(err)
	}
	if err := s.Reserve(r); err != nil {
		t.Errorf("the same was written again: %v", err)
	}
	if err := s.Reserve(Reserved{}); err == nil {
		t.Error("a group without the file was given memory")
	}
	if err := tree(t, false).Reserve(r); err != nil {
		t.Errorf("cgroup v1: %v", err)
	}
}
