package container

import (
	"io"
	"math"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	specs "github.com/opencontainers/runtime-spec/specs-go"

	"github.com/sampan-dev/sampan/node/container/plan"
)

// firstIs says which program a created container's first process is so far.
func firstIs(t *testing.T, pid int) string {
	t.Helper()
	exe, err := os.Readlink(filepath.Join("/proc", itoa(pid), "exe"))
	if err != nil {
		t.Fatal(err)
	}
	return strings.TrimSuffix(strings.TrimPrefix(exe, "/memfd:"), " (deleted)")
}

// What ordinary containers want is done by a list of calls, and what takes a
// decision by a stage: both are tested by all other tests, if they are what they
// say.
func TestQuick(t *testing.T) {
	x := newBox(t)
	volume, file := t.TempDir(), filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(file, []byte("from the host"), 0o644); err != nil {
		t.Fatal(err)
	}
	for _, test := range []struct {
		name, first string
		change      func(*CreateConfig)
	}{
		{"plain", "sampan-init", func(*CreateConfig) {}},
		{"volumes", "sampan-init", func(c *CreateConfig) {
			c.Spec.Mounts = append(c.Spec.Mounts,
				specs.Mount{Destination: "/a/new/directory", Source: volume, Type: "bind", Options: []string{"rbind", "rw"}},
				specs.Mount{Destination: "/a/file", Source: file, Type: "bind", Options: []string{"bind", "ro"}})
		}},
		{"user", "sampan-init", func(c *CreateConfig) {
			c.Spec.Process.User = specs.User{UID: 1000, GID: 1000, AdditionalGids: []uint32{5}}
		}},
		{"terminal", "sampan-keeper", func(c *CreateConfig) { c.TTY = true }},
		{"not there", "sampan-keeper", func(c *CreateConfig) { c.Spec.Process.Args = []string{"/bin/nothing"} }},
	} {
		t.Run(test.name, func(t *testing.T) {
			cfg := x.config("c1", probeSpec("sleep"))
			filter, err := DefaultSeccomp(cfg.Spec)
			if err != nil {
				t.Fatal(err)
			}
			cfg.Spec.Linux.Seccomp = filter
			test.change(&cfg)
			if err := x.Create(x.context(), cfg); err != nil {
				t.Fatal(err)
			}
			s, err := x.Status("c1")
			if err != nil {
				t.Fatal(err)
			}
			if got := firstIs(t, s.PID); got != test.first {
				t.Errorf("the first process is %q, want %q", got, test.first)
			}
			if err := x.Remove(x.context(), "c1"); err != nil {
				t.Fatal(err)
			}
		})
	}
	log, err := os.ReadFile(filepath.Join(x.cfg.Run, "keeper.log"))
	if err != nil || strings.Contains(string(log), "all mounts of the host") {
		t.Errorf("containers begin with copies of the host's mounts: %v: %s", err, log)
	}
}

// An exec that nobody gives input is forked as a list that is made here, if the keeper
// can take one, and else by its plan: each keeper that is alive when this program is
// exchanged must still do. What a list cannot do takes the second way as well.
func TestExecWays(t *testing.T) {
	const notFound = 127
	x := newBox(t)
	x.start(x.config("c1", probeSpec("sleep")))
	link := x.keeper
	if got := link.level.Load(); got != plan.Level {
		t.Fatalf("the keeper is of level %d, want %d", got, plan.Level)
	}
	for _, level := range []int32{plan.Level, plan.LevelHalt, plan.LevelLists, 0} {
		link.level.Store(level)
		for _, test := range []struct {
			argv []string
			code int
		}{{[]string{"/bin/probe", "exit", "3"}, 3}, {[]string{"/bin/nothing"}, notFound}} {
			var out strings.Builder
			code, err := x.Exec(x.context(), "c1", ExecConfig{Process: process(test.argv...), Stdout: &out, Stderr: &out})
			if code != test.code || (err != nil) != (code == notFound) {
				t.Errorf("level %d: %q: code %d, %v; want %d", level, test.argv, code, err, test.code)
			}
		}
		for range 2 { // one finds something prepared
			var out, first strings.Builder
			for file, w := range map[string]io.Writer{"self": &out, "1": &first} {
				if _, err := x.Exec(x.context(), "c1", ExecConfig{Process: process("/bin/probe", "read", "/proc/"+file+"/cgroup"), Stdout: w}); err != nil {
					t.Fatal(err)
				}
			}
			got, want := strings.TrimPrefix(out.String(), "/proc/self/"), strings.TrimPrefix(first.String(), "/proc/1/")
			if got != want || !strings.Contains(got, ":/") {
				t.Errorf("level %d: a process is in\n%sand the container's first in\n%s", level, got, want)
			}
		}
	}
}

// What an exec leaves for the next serves the same command only, is looked up anew
// where it may have changed, and goes with the container.
func TestExecAgain(t *testing.T) {
	const notFound = 127
	x := newBox(t)
	cfg := x.config("c1", probeSpec("sleep"))
	x.start(cfg)
	c, err := x.find("c1")
	if err != nil {
		t.Fatal(err)
	}
	kept := func() *os.File {
		c.mu.Lock()
		defer c.mu.Unlock()
		if c.ready == nil {
			return nil
		}
		return c.ready.list
	}
	ask := func(want int, p *specs.Process) *os.File {
		t.Helper()
		code, err := x.Exec(x.context(), "c1", ExecConfig{Process: p})
		if code != want || (err != nil) != (want == notFound) {
			t.Errorf("%q: code %d, %v; want %d", p.Args, code, err, want)
		}
		return kept()
	}
	exit := func(want int, argv ...string) *os.File {
		t.Helper()
		return ask(want, process(argv...))
	}
	first := exit(3, "/bin/probe", "exit", "3")
	if again := exit(3, "/bin/probe", "exit", "3"); first == nil || again != first {
		t.Errorf("the same command was prepared anew: %p, then %p", first, again)
	}
	if other := exit(4, "/bin/probe", "exit", "4"); other == first {
		t.Error("another command was taken for the same")
	}
	was := kept()
	for _, change := range []func(p *specs.Process){
		func(p *specs.Process) { p.Env = append(p.Env, "MORE=1") },
		func(p *specs.Process) { p.User.AdditionalGids = []uint32{7} },
		func(p *specs.Process) { p.Cwd = "/bin" },
		func(p *specs.Process) { p.Rlimits = []specs.POSIXRlimit{{Type: "RLIMIT_CORE"}} },
		func(p *specs.Process) { p.Capabilities = &specs.LinuxCapabilities{} },
		func(p *specs.Process) { p.NoNewPrivileges = !p.NoNewPrivileges },
	} {
		p := process("/bin/probe", "exit", "4")
		change(p)
		now := ask(4, p)
		if now == was {
			t.Errorf("%+v was taken for another", p)
		}
		was = now
	}
	exit(notFound, "/bin/nothing")
	if err := syscall.Kill(x.keeperPID(), syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	ctx := x.context()
	for code := -1; code != 5; { // until a successor serves: the one that dies may have been asked
		code, err = x.Exec(ctx, "c1", ExecConfig{Process: process("/bin/probe", "exit", "5")})
		if ctx.Err() != nil {
			t.Fatalf("nothing runs any more: code %d, %v", code, err)
		}
	}
	if err := x.Signal(x.context(), "c1", syscall.SIGKILL, false); err != nil {
		t.Fatal(err)
	}
	if _, err := x.Wait(x.context(), "c1"); err != nil {
		t.Fatal(err)
	}
	if got, n := kept(), x.prepared.Load(); got != nil || n != 0 {
		t.Errorf("a container that has ended keeps %v, of %d prepared", got, n)
	}
}

// TestPreparable: where few files may be open, few are kept for execs to come.
func TestPreparable(t *testing.T) {
	for files, want := range map[uint64]int32{0: 0, 1024: 23, 4096: 93, 20_000: 454, 1 << 20: maxPrepared, math.MaxUint64: maxPrepared} {
		if got := preparable(files); got != want {
			t.Errorf("%d files: %d, want %d", files, got, want)
		}
	}
}
