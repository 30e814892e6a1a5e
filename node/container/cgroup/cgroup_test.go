package cgroup

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"syscall"
	"testing"
	"time"

	"github.com/opencontainers/cgroups"
	specs "github.com/opencontainers/runtime-spec/specs-go"
)

func ptr[T any](v T) *T { return &v }

// member is a process in a group of its own, which waits to be told to go on.
func member(t *testing.T, g *Group) *exec.Cmd {
	t.Helper()
	c := exec.Command("sleep", "1000")
	if err := c.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		c.Process.Kill()
		c.Wait()
	})
	if err := g.Add(c.Process.Pid); err != nil {
		t.Fatal(err)
	}
	return c
}

func newGroup(t *testing.T, r *specs.LinuxResources) *Group {
	t.Helper()
	if os.Getuid() != 0 {
		t.Skip("needs root: cgroups")
	}
	parent := fmt.Sprintf("/sampan-test-%d-%s", os.Getpid(), filepath.Base(filepath.Dir(t.TempDir())))
	g, err := Open(parent+"/one", r, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	if err := g.Create(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
		defer cancel()
		if err := g.Remove(ctx); err != nil {
			t.Error(err)
		}
		RemoveEmpty(parent)
		if left, _ := filepath.Glob("/sys/fs/cgroup/*" + parent); len(left) > 0 {
			t.Errorf("left: %v", left)
		}
	})
	return g
}

// The exam that the back end of this machine, v1 or v2, must pass.
func TestGroup(t *testing.T) {
	g := newGroup(t, &specs.LinuxResources{
		Memory: &specs.LinuxMemory{Limit: ptr(int64(64 << 20))},
		CPU:    &specs.LinuxCPU{Shares: ptr(uint64(512)), Quota: ptr(int64(50000)), Period: ptr(uint64(100000))},
		Pids:   &specs.LinuxPids{Limit: ptr(int64(20))},
	})
	c := member(t, g)
	if pids, err := g.Pids(); err != nil || !slices.Equal(pids, []int{c.Process.Pid}) {
		t.Errorf("processes %v, %v; want %d", pids, err, c.Process.Pid)
	}
	u, err := g.Usage()
	if err != nil || u.Limit != 64<<20 || u.PidsLimit != 20 || u.Pids != 1 {
		t.Errorf("usage %+v, %v", u, err)
	}
	if quota := readAny(t, g, "cpu.cfs_quota_us", "cpu.max"); quota != "-1\n" && quota != "max 100000\n" {
		t.Errorf("throttled before it was asked for: %q", quota)
	}
	if err := g.Throttle(); err != nil {
		t.Fatal(err)
	}
	if quota := readAny(t, g, "cpu.cfs_quota_us", "cpu.max"); quota != "50000\n" && quota != "50000 100000\n" {
		t.Errorf("quota %q", quota)
	}
	if err := g.Update(&specs.LinuxResources{Memory: &specs.LinuxMemory{Limit: ptr(int64(32 << 20))}}); err != nil {
		t.Fatal(err)
	}
	if u, err = g.Usage(); err != nil || u.Limit != 32<<20 || u.PidsLimit != 20 {
		t.Errorf("usage after an update %+v, %v", u, err)
	}
	if n := g.OOMKills(); n != 0 {
		t.Errorf("%d OOM kills", n)
	}
	if err := g.Freeze(true); err != nil {
		t.Fatal(err)
	}
	if err := g.Signal(syscall.SIGTERM); err != nil { // waits for the thaw
		t.Fatal(err)
	}
	if err := g.Freeze(false); err != nil {
		t.Fatal(err)
	}
	if err := c.Wait(); err == nil || c.ProcessState.Sys().(syscall.WaitStatus).Signal() != syscall.SIGTERM {
		t.Errorf("ended with %v", err)
	}
}

func readAny(t *testing.T, g *Group, names ...string) string {
	t.Helper()
	for _, name := range names {
		for _, procs := range g.Procs() {
			if b, err := os.ReadFile(filepath.Join(filepath.Dir(procs), name)); err == nil {
				return string(b)
			}
		}
	}
	t.Fatalf("none of %v", names)
	return ""
}

func TestKill(t *testing.T) {
	g := newGroup(t, nil)
	one, two := member(t, g), member(t, g)
	if err := g.Signal(syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	for _, c := range []*exec.Cmd{one, two} {
		if err := c.Wait(); err == nil || c.ProcessState.Sys().(syscall.WaitStatus).Signal() != syscall.SIGKILL {
			t.Errorf("ended with %v", err)
		}
	}
}

func TestOpenRefuses(t *testing.T) {
	for _, path := range []string{"", "/", "relative", "/a/../b", "/a/"} {
		if _, err := Open(path, nil, slog.New(slog.DiscardHandler)); err == nil {
			t.Errorf("path %q was taken", path)
		}
	}
	bad := &specs.LinuxResources{Devices: []specs.LinuxDeviceCgroup{{Type: "x", Access: "rwm"}}}
	if _, err := Open("/sampan-test-never", bad, slog.New(slog.DiscardHandler)); err == nil {
		t.Error("a device of type x was taken")
	}
}

// What the spec says about devices, and what every container has on top.
func TestDeviceRules(t *testing.T) {
	rules, err := deviceRules(nil)
	if err != nil || rules[0].Allow || rules[0].Type != 'a' || len(rules) != 1+len(always()) {
		t.Errorf("no rules: %+v, %v", rules, err)
	}
	rules, err = deviceRules([]specs.LinuxDeviceCgroup{{Allow: false, Access: "rwm"}, {Allow: true, Access: "rwm"}})
	if err != nil || len(rules) != 2 || !rules[1].Allow {
		t.Errorf("a privileged container: %+v, %v", rules, err)
	}
	// Kubelets and device plugins say the permissions in this order.
	number := int64(7)
	for said, want := range map[string]string{"mrw": "rwm", "wr": "rw", "r": "r", "": "rwm"} {
		r, err := deviceRule(specs.LinuxDeviceCgroup{Allow: true, Type: "b", Major: &number, Minor: &number, Access: said})
		if err != nil || string(r.Permissions) != want || !r.Permissions.IsValid() {
			t.Errorf("access %q: %+v, %v", said, r, err)
		}
	}
	if _, err := deviceRule(specs.LinuxDeviceCgroup{Allow: true, Type: "b", Access: "rx"}); err == nil {
		t.Error("an access of x was taken")
	}
}

// TestLimit: a parent's limits, and pids.max in either version's dress.
func TestLimit(t *testing.T) {
	g := newGroup(t, nil)
	res := &specs.LinuxResources{Memory: &specs.LinuxMemory{Limit: ptr(int64(64 << 20))}, Unified: map[string]string{"pids.max": "30"},
		CPU: &specs.LinuxCPU{Quota: ptr(int64(50_000)), Period: ptr(uint64(100_000))}}
	if err := Limit(g.Path(), res, slog.New(slog.DiscardHandler)); err != nil {
		t.Fatal(err)
	}
	if u, err := g.Usage(); err != nil || u.Limit != 64<<20 || u.PidsLimit != 30 {
		t.Errorf("usage %+v, %v", u, err)
	}
	if quota := readAny(t, g, "cpu.cfs_quota_us", "cpu.max"); quota != "50000\n" && quota != "50000 100000\n" {
		t.Errorf("quota %q", quota)
	}
	res.Unified["pids.max"] = "max"
	if err := Limit(g.Path(), res, slog.New(slog.DiscardHandler)); err != nil {
		t.Fatal(err)
	}
	if u, err := g.Usage(); err != nil || u.PidsLimit != 0 {
		t.Errorf("usage %+v, %v; want no limit of processes", u, err)
	}
	res.Unified["pids.max"] = "some"
	if err := Limit(g.Path(), res, slog.New(slog.DiscardHandler)); err == nil {
		t.Error("a limit of some processes was taken")
	}
}

// TestLimitBelowTheDead: a parent can have less processor time than the group of a
// container that has ended still has, but on cgroup v1 no less than one that runs.
func TestLimitBelowTheDead(t *testing.T) {
	quota := func(us int64) *specs.LinuxResources {
		return &specs.LinuxResources{CPU: &specs.LinuxCPU{Quota: ptr(us), Period: ptr(uint64(100_000))}}
	}
	log := slog.New(slog.DiscardHandler)
	g := newGroup(t, nil) // what it makes goes with all below it
	pod := g.Path()
	if err := Limit(pod, quota(80_000), log); err != nil {
		t.Fatal(err)
	}
	dead, err := Open(pod+"/dead", quota(70_000), log)
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(dead.Create(), dead.Throttle()); err != nil {
		t.Fatal(err)
	}
	if err := Limit(pod, quota(40_000), log); err != nil {
		t.Errorf("with a dead group below: %v", err)
	}
	live, err := Open(pod+"/live", quota(40_000), log)
	if err != nil {
		t.Fatal(err)
	}
	if err := live.Create(); err != nil {
		t.Fatal(err)
	}
	member(t, live)
	if err := live.Throttle(); err != nil {
		t.Fatal(err)
	}
	err = Limit(pod, quota(20_000), log)
	if v2 := cgroups.IsCgroup2UnifiedMode(); (err == nil) != v2 {
		t.Errorf("with a live group below: %v", err)
	}
	if got := readAny(t, live, cfsQuota, "cpu.max"); got != "40000\n" && got != "40000 100000\n" {
		t.Errorf("the live group's quota is now %q", got)
	}
}

// A directory that is left of a hierarchy is no controller, one that is mounted is.
func TestOffered(t *testing.T) {
	left := t.TempDir()
	if err := os.Mkdir(filepath.Join(left, "hugetlb"), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(left, "cgroup.controllers"), []byte("cpu memory\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		controller    string
		unified, want bool
	}{{"hugetlb", false, false}, {"rdma", false, false}, {"memory", true, true}, {"hugetlb", true, false}} {
		if got := offered(left, c.controller, c.unified); got != c.want {
			t.Errorf("%s, unified %t: %t", c.controller, c.unified, got)
		}
	}
	for _, h := range hierarchies() {
		if h.key != systemdKey && h.key != unifiedKey && !offered(filepath.Dir(h.dir), filepath.Base(h.dir), false) {
			t.Errorf("%s is mounted at %s", h.key, h.dir)
		}
	}
}

// What a machine cannot have is left out of what another runtime is asked for.
func TestPossible(t *testing.T) {
	given := &specs.LinuxResources{
		Pids:           &specs.LinuxPids{Limit: new(int64(10))},
		HugepageLimits: []specs.LinuxHugepageLimit{{Pagesize: "2MB"}},
		Unified:        map[string]string{"pids.max": "7", "memory.high": "1000"},
	}
	for _, c := range []struct {
		unified, huge bool
		pids          int64
		pages, words  int
	}{{false, false, 7, 0, 0}, {false, true, 7, 1, 0}, {true, false, 10, 0, 2}, {true, true, 10, 1, 2}} {
		got, err := possible(given, c.unified, func(_, name string, _ bool) bool { return name == "hugetlb" && c.huge }, slog.New(slog.DiscardHandler))
		if err != nil || *got.Pids.Limit != c.pids || len(got.HugepageLimits) != c.pages || len(got.Unified) != c.words {
			t.Errorf("%+v: %+v, %v", c, got, err)
		}
	}
	if *given.Pids.Limit != 10 || len(given.HugepageLimits) != 1 || len(given.Unified) != 2 {
		t.Errorf("what was given has changed: %+v", given)
	}
	if _, err := possible(&specs.LinuxResources{Unified: map[string]string{"pids.max": "few"}}, false, offered, slog.New(slog.DiscardHandler)); err == nil {
		t.Error("a limit that is none is taken")
	}
}

// TestMishaps: v1 counts those that were killed alone.
func TestMishaps(t *testing.T) {
	for text, want := range map[string][3]uint64{
		"low 0\nhigh 7\nmax 3\noom 2\noom_kill 1\noom_group_kill 0\n": {1, 7, 3},
		"oom_kill_disable 0\nunder_oom 0\noom_kill 4\n":               {4, 0, 0},
		"": {},
	} {
		killed, high, limit := mishapsIn(text)
		if got := [3]uint64{killed, high, limit}; got != want {
			t.Errorf("%q: %v, want %v", text, got, want)
		}
	}
}
