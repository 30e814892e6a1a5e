package container

import (
	"bytes"
	"fmt"
	"log/slog"
	"path/filepath"
	"strings"
	"testing"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
)

func TestOutOfMemory(t *testing.T) {
	b := newBox(t)
	spec := probeSpec("mem", "200")
	limit := int64(32 << 20)
	spec.Linux.Resources.Memory = &specs.LinuxMemory{Limit: &limit, Swap: &limit}
	s, out := b.run(b.config("c1", spec))
	if s.ExitCode != 137 || !s.OOMKilled || out != "" {
		t.Errorf("%+v, printed %q", s, out)
	}
}

func TestPidsLimit(t *testing.T) {
	b := newBox(t)
	spec := probeSpec("fork", "100")
	limit := int64(30)
	spec.Linux.Resources.Pids.Limit = &limit
	s, out := b.run(b.config("c1", spec))
	// Go's runtime may die of the refusal or report it: the limit held either way.
	if strings.Contains(out, "fork false") {
		t.Errorf("a hundred processes under a limit of 30: %+v %q", s, out)
	}
}

func TestUpdateAndStats(t *testing.T) {
	b := newBox(t)
	cfg := b.config("c1", probeSpec("burn", ";", "lines", ";", "mem", "100"))
	cfg.Stdin = true
	b.start(cfg)
	in, out := newPipe(t, b, "c1")
	in.send("burnt\n")
	out.expect("got burnt\n")
	u, err := b.Stats("c1")
	if err != nil || u.CPU < 5e6 || u.Memory == 0 || u.WorkingSet == 0 || u.RSS == 0 || u.Pids == 0 || u.Limit != 0 {
		t.Errorf("usage %+v, %v", u, err)
	}
	limit := int64(48 << 20)
	if err := b.Update(b.context(), "c1", &specs.LinuxResources{Memory: &specs.LinuxMemory{Limit: &limit, Swap: &limit}}); err != nil {
		t.Fatal(err)
	}
	if u, err := b.Stats("c1"); err != nil || u.Limit != uint64(limit) || u.PidsLimit != defaultPids {
		t.Errorf("usage %+v, %v", u, err)
	}
	in.send("quit\n")
	if s, err := b.Wait(b.context(), "c1"); err != nil || !s.OOMKilled {
		t.Errorf("%+v %v: the new limit does not hold", s, err)
	}
}

func TestSeccompInside(t *testing.T) {
	b := newBox(t)
	spec := probeSpec("unshare", ";", "nosuchcall", ";", "mkdir", "/tmp/d", ";", "status", "Seccomp")
	filter, err := DefaultSeccomp(spec)
	if err != nil {
		t.Fatal(err)
	}
	no := uint(38)
	filter.Syscalls = append([]specs.LinuxSyscall{{Names: []string{"mkdir", "mkdirat"}, Action: specs.ActErrno, ErrnoRet: &no}}, filter.Syscalls...)
	spec.Linux.Seccomp = filter
	for _, nnp := range []bool{true, false} {
		spec.Process.NoNewPrivileges = nnp
		id := map[bool]string{true: "nnp", false: "without"}[nnp]
		want := "unshare operation not permitted\nnosuchcall function not implemented\nmkdir function not implemented\nSeccomp: 2\n"
		if _, out := b.run(b.config(id, spec)); strings.ReplaceAll(out, "stdout F ", "") != want {
			t.Errorf("%s: saw\n%swant\n%s", id, out, want)
		}
	}
	b.start(b.config("c3", func() *specs.Spec { spec.Process.Args = []string{"/bin/probe", "sleep"}; return spec }()))
	out := newOutput(t)
	p := process("probe", "unshare")
	if code, err := b.Exec(b.context(), "c3", ExecConfig{Process: p, Stdout: out}); code != 0 || err != nil || out.b.String() != "unshare operation not permitted\n" {
		t.Errorf("exec: %d %v %q", code, err, out.b.String())
	}
}

// A limit of processes above what there can be is cut, and somebody hears of it.
func TestLimitIsCut(t *testing.T) {
	h := newHome(t)
	var said bytes.Buffer
	h.cfg.Log = slog.New(slog.NewTextHandler(&said, nil))
	r := h.open()
	defer r.Close()
	b := &box{r, t, filepath.Dir(h.cfg.Run)}
	spec := probeSpec("read", "/proc/self/limits")
	spec.Process.Rlimits = []specs.POSIXRlimit{{Type: "RLIMIT_NOFILE", Soft: 1 << 40, Hard: 1 << 40}, {Type: "RLIMIT_CORE", Soft: 1, Hard: 2}}
	s, out := b.run(b.config("c1", spec))
	var own unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &own); err != nil {
		t.Fatal(err)
	}
	got := strings.Join(strings.Fields(strings.ReplaceAll(out, "stdout F ", "")), " ")
	for _, want := range []string{fmt.Sprintf("Max open files %d %d files", own.Max, own.Max), "Max core file size 1 2 bytes"} {
		if s.ExitCode != 0 || !strings.Contains(got, want) {
			t.Errorf("%+v want %q in\n%s", s, want, out)
		}
	}
	if n := strings.Count(said.String(), fmt.Sprintf("limit nofile of %d refused, %d kept", 1<<40, own.Max)); n != 1 {
		t.Errorf("told %d times:\n%s", n, said.String())
	}
	if strings.Contains(said.String(), "limit core") {
		t.Errorf("told of what was granted:\n%s", said.String())
	}
}
