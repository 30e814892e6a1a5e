package build

import (
	"errors"
	"fmt"
	"runtime"
	"slices"
	"strings"
	"testing"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
)

// What is said about a RUN's limits is in its specification, and nowhere else.
func TestRunLimits(t *testing.T) {
	shm := func(s *specs.Spec) string {
		at := slices.IndexFunc(s.Mounts, func(m specs.Mount) bool { return m.Destination == "/dev/shm" })
		return strings.Join(s.Mounts[at].Options, ",")
	}
	plain, err := runSpec(Run{})
	if err != nil {
		t.Fatal(err)
	}
	spec, err := runSpec(Run{ShmSize: 1 << 20, Ulimits: []Ulimit{{Name: "nofile", Soft: 10, Hard: ^uint64(0)}}})
	if err != nil {
		t.Fatal(err)
	}
	if got := spec.Process.Rlimits; len(got) != len(plain.Process.Rlimits)+1 || got[len(got)-1] != (specs.POSIXRlimit{Type: "RLIMIT_NOFILE", Soft: 10, Hard: ^uint64(0)}) {
		t.Errorf("limits %v", got)
	}
	if got := shm(spec); !strings.HasSuffix(got, ",size=1048576") || strings.Count(got, "size=") != 1 {
		t.Errorf("/dev/shm has %s", got)
	}
	if again, err := runSpec(Run{}); err != nil || shm(again) != shm(plain) {
		t.Errorf("the next RUN's /dev/shm has %s, %v", shm(again), err)
	}
}

// A device that a RUN can do without is left out, and that is told; one that it
// can't is refused. Other limits are another layer.
func TestRunDevice(t *testing.T) {
	needRoot(t)
	store := open(t)
	const head = "-- a --\na\n-- Dockerfile --\nFROM scratch\nCOPY a /\n"
	told := func(events []Event) (text string, known bool) {
		for _, e := range events {
			text += string(e.Output)
			known = known || e.Cached && strings.Contains(e.Text, "RUN")
		}
		return text, known
	}
	run := func(o *Options) { o.Runner = echo{} }
	_, events, err := build(t, store, head+"RUN --device=vendor.example/class=one echo\n", run)
	if text, _ := told(events); err != nil || !strings.Contains(text, "device vendor.example/class=one is left out") {
		t.Errorf("an optional device: %q, %v", text, err)
	}
	if _, _, err = build(t, store, head+"RUN --device=vendor.example/class=one,required echo\n", run); err == nil || !strings.Contains(err.Error(), "is not registered") {
		t.Errorf("a required device: %v", err)
	}
	for _, c := range []struct {
		size  int64
		known bool
	}{{0, true}, {1 << 20, false}, {1 << 20, true}, {2 << 20, false}} {
		_, events, err := build(t, store, head+"RUN --device=vendor.example/class=one echo\n", func(o *Options) { run(o); o.ShmSize = c.size })
		if _, known := told(events); err != nil || known != c.known {
			t.Errorf("/dev/shm of %d bytes: known %v, %v", c.size, known, err)
		}
	}
}

// A RUN of another machine's programs says what is missing here; what fails otherwise is
// left as it is.
func TestForeign(t *testing.T) {
	other := platform{arch: "other"}
	for _, c := range []struct {
		of   platform
		err  error
		told bool
	}{
		{other, fmt.Errorf("start: %w", unix.ENOEXEC), true}, {other, errors.New("exec /bin/sh: exec format error"), true},
		{other, unix.ENOENT, false}, {platform{arch: runtime.GOARCH}, unix.ENOEXEC, false},
	} {
		got := c.of.foreign(c.err)
		if strings.Contains(got.Error(), "binfmt_misc") != c.told || !errors.Is(got, c.err) {
			t.Errorf("%s: %v", c.of, got)
		}
	}
}
