package container

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/sampan-dev/sampan/node/container/plan"
)

// TestComesTo: without a capability a thread may only fall behind.
func TestComesTo(t *testing.T) {
	nice := func(policy uint32, n int32) *unix.SchedAttr { return &unix.SchedAttr{Policy: policy, Nice: n} }
	first := func(policy, n uint32) *unix.SchedAttr { return &unix.SchedAttr{Policy: policy, Priority: n} }
	for i, c := range []struct {
		have, base *unix.SchedAttr
		want       bool
	}{
		{nice(unix.SCHED_NORMAL, 0), nice(unix.SCHED_NORMAL, 0), true},
		{nice(unix.SCHED_NORMAL, 5), nice(unix.SCHED_NORMAL, 0), true},
		{nice(unix.SCHED_BATCH, 0), nice(unix.SCHED_NORMAL, 0), true},
		{nice(unix.SCHED_IDLE, 0), first(unix.SCHED_FIFO, 5), true},
		{nice(unix.SCHED_NORMAL, -1), nice(unix.SCHED_NORMAL, 0), false},
		{nice(unix.SCHED_NORMAL, 4), nice(unix.SCHED_NORMAL, 5), false},
		{first(unix.SCHED_FIFO, 1), nice(unix.SCHED_NORMAL, 0), false},
		{first(unix.SCHED_FIFO, 5), first(unix.SCHED_FIFO, 5), true},
		{first(unix.SCHED_FIFO, 6), first(unix.SCHED_FIFO, 5), false},
		{first(unix.SCHED_RR, 1), first(unix.SCHED_FIFO, 5), false},
		{nice(unix.SCHED_DEADLINE, 0), nice(unix.SCHED_DEADLINE, 0), false},
	} {
		if got := comesTo(c.have, c.base); got != c.want {
			t.Errorf("row %d: %v", i, got)
		}
	}
}

// TestLevel: what a process has beyond its container's is cut, and no more than that.
func TestLevel(t *testing.T) {
	b := newBox(t)
	b.start(b.config("c", probeSpec("sleep", "1h")))
	c, err := b.find("c")
	if err != nil {
		t.Fatal(err)
	}
	pid, want := c.rec.PID, 100 // it begins with 0, which less than takes a capability
	const messages = 12         // RLIMIT_MSGQUEUE: not that of open files, which a Go program raises itself
	raise := func() {
		attr := &unix.SchedAttr{Size: unix.SizeofSchedAttr, Nice: -5}
		one := unix.NewCPUSet(maxCPUs)
		one.Set(0)
		for _, err := range []error{
			unix.Prlimit(pid, messages, &unix.Rlimit{Cur: 500, Max: 600}, nil),
			unix.Prlimit(pid, unix.RLIMIT_CORE, &unix.Rlimit{Cur: 10, Max: 20}, nil),
			unix.SchedSetAttr(pid, attr, 0),
			unix.SchedSetaffinityDynamic(pid, one),
		} {
			if err != nil {
				t.Fatal(err)
			}
		}
	}
	has := func() string {
		var queues, core unix.Rlimit
		adj, err := readSmall(fmt.Sprintf("/proc/%d/oom_score_adj", pid))
		attr, err2 := unix.SchedGetAttr(pid, 0)
		for _, err := range []error{err, err2, unix.Prlimit(pid, messages, nil, &queues), unix.Prlimit(pid, unix.RLIMIT_CORE, nil, &core)} {
			if err != nil {
				t.Fatal(err)
			}
		}
		return fmt.Sprintf("queues %d:%d core %d:%d oom %s nice %d", queues.Cur, queues.Max, core.Cur, core.Max, strings.TrimSpace(adj), attr.Nice)
	}
	all := uint64(1)<<unix.CAP_SYS_RESOURCE | 1<<unix.CAP_SYS_NICE
	for _, row := range []struct {
		caps uint64
		want string
	}{
		{all, "queues 500:600 core 10:20 oom 0 nice -5"},
		{0, "queues 200:300 core 10:20 oom 100 nice 0"},
	} {
		raise()
		may := &plan.Process{Caps: &plan.Caps{Bounding: row.caps}, OOMScoreAdj: &want, Rlimits: []plan.Rlimit{
			{Type: messages, Soft: 200, Hard: 300}, {Type: unix.RLIMIT_CORE, Soft: 30, Hard: 40}}}
		if err := level([]int{pid}, os.Getpid(), may); err != nil {
			t.Fatal(err)
		}
		if got := has(); got != row.want {
			t.Errorf("%s, want %s", got, row.want)
		}
		if status, err := readSmall(fmt.Sprintf("/proc/%d/status", pid)); err != nil || strings.Contains(status, "Cpus_allowed_list:\t0\n") && possible(t) > 1 {
			t.Errorf("it is kept to one processor (%v)", err)
		}
	}
}

// possible is how many processors this machine gives a process that asks for all.
func possible(t *testing.T) int {
	t.Helper()
	cpus := unix.NewCPUSet(maxCPUs)
	if err := unix.SchedGetaffinityDynamic(os.Getpid(), cpus); err != nil {
		t.Fatal(err)
	}
	return cpus.Count()
}

// TestWatches: of what is watched the container must see every one.
func TestWatches(t *testing.T) {
	b := newBox(t)
	shown := filepath.Join(b.dir, "shown")
	if err := os.MkdirAll(filepath.Join(shown, "below"), 0o755); err != nil {
		t.Fatal(err)
	}
	spec := probeSpec("sleep", "1h")
	spec.Mounts = append(spec.Mounts, specs.Mount{Source: shown, Destination: "/tmp/shown", Type: "bind", Options: []string{"bind"}})
	cfg := b.config("c", spec)
	b.start(cfg)
	c, err := b.find("c")
	if err != nil {
		t.Fatal(err)
	}
	p, _, err := b.translate(&cfg, nil)
	if err != nil {
		t.Fatal(err)
	}
	root, err := namespaceRoot(c.rec.PID)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(root)
	j := &judged{c: c, p: p, root: root, at: map[int]mounted{}}
	if err := j.mounts(); err != nil {
		t.Fatal(err)
	}
	inside := fmt.Sprintf("/proc/%d/root", c.rec.PID)
	for _, row := range []struct {
		paths []string
		want  bool
	}{
		{nil, true},
		{[]string{shown}, true},
		{[]string{filepath.Join(shown, "below")}, true},
		{[]string{inside + "/etc", inside + "/tmp"}, true},
		{[]string{b.dir}, false},
		{[]string{filepath.Join(shown, "below"), filepath.Dir(b.dir)}, false},
		{[]string{"/etc/passwd"}, false},
		{[]string{built.rootfs}, false},
	} {
		fd, err := unix.InotifyInit1(unix.IN_CLOEXEC)
		if err != nil {
			t.Fatal(err)
		}
		for _, path := range row.paths {
			if _, err := unix.InotifyAddWatch(fd, path, unix.IN_CREATE); err != nil {
				t.Fatal(err)
			}
		}
		info := fmt.Sprintf("/proc/self/fdinfo/%d", fd)
		text, err := readSmall(info)
		if err != nil {
			t.Fatal(err)
		}
		ok, err := j.watches(info)
		unix.Close(fd)
		if want := row.want && (strings.Contains(text, "f_handle") || len(row.paths) == 0 || row.paths[0] == shown); err != nil || ok != want {
			t.Errorf("%q: %v, %v, want %v:\n%s", row.paths, ok, err, want, text)
		}
	}
	for _, bad := range []string{"inotify wd:1", "inotify wd:1 ino:zz sdev:1", "inotify wd:1 ino:1 sdev:1 fhandle-bytes:9 fhandle-type:1 f_handle:00"} {
		if w, err := parseWatch(bad); err == nil {
			t.Errorf("%q is %+v", bad, w)
		}
	}
}
