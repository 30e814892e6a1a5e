package container

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"testing"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/sampan-dev/sampan/node/container/cgroup"
)

// TestSchedule is what a process's scheduler and I/O priority become for the kernel.
func TestSchedule(t *testing.T) {
	for name, c := range map[string]struct {
		in   specs.Process
		want string
	}{
		"none": {specs.Process{}, "nil <nil>"},
		"batch": {specs.Process{Scheduler: &specs.Scheduler{Policy: specs.SchedBatch, Nice: -2, Flags: []specs.LinuxSchedulerFlag{specs.SchedFlagResetOnFork}}},
			"30000000 03000000 0100000000000000 feffffff 00000000 0000000000000000 0000000000000000 0000000000000000 io 0 <nil>"},
		"deadline": {specs.Process{Scheduler: &specs.Scheduler{Policy: specs.SchedDeadline, Runtime: 1, Deadline: 2, Period: 3}},
			"30000000 06000000 0000000000000000 00000000 00000000 0100000000000000 0200000000000000 0300000000000000 io 0 <nil>"},
		"disks":          {specs.Process{IOPriority: &specs.LinuxIOPriority{Class: specs.IOPRIO_CLASS_BE, Priority: 4}}, "io 16388 <nil>"},
		"unknown policy": {specs.Process{Scheduler: &specs.Scheduler{Policy: "SCHED_LUCK"}}, `nil scheduling policy "SCHED_LUCK" is not known`},
		"unknown flag": {specs.Process{Scheduler: &specs.Scheduler{Policy: specs.SchedOther, Flags: []specs.LinuxSchedulerFlag{"x"}}},
			`nil scheduling flag "x" is not known`},
		"unknown class": {specs.Process{IOPriority: &specs.LinuxIOPriority{Class: "x"}}, `nil I/O priority class "x" is not known`},
		"ninth level": {specs.Process{IOPriority: &specs.LinuxIOPriority{Class: specs.IOPRIO_CLASS_RT, Priority: 8}},
			"nil I/O priority 8: must be between 0 and 7"},
	} {
		got, err := planSchedule(&c.in)
		text := "nil"
		if got != nil {
			text = fmt.Sprintf("io %d", got.IOPriority)
			if a := got.Attr; a != nil {
				text = fmt.Sprintf("%x %x %x %x %x %x %x %x ", a[:4], a[4:8], a[8:16], a[16:20], a[20:24], a[24:32], a[32:40], a[40:]) + text
			}
		}
		if text += fmt.Sprint(" ", err); text != c.want {
			t.Errorf("%s: %s, want %s", name, text, c.want)
		}
	}
}

func TestCPUMask(t *testing.T) {
	for list, want := range map[string]string{
		"": " <nil>", "0": "0100000000000000 <nil>", "1-3, 64": "0e000000000000000100000000000000 <nil>",
		"3-1":   ` "3-1" is not a list of processors below 8192`,
		"8192":  ` "8192" is not a list of processors below 8192`,
		"0,,1":  ` "0,,1" is not a list of processors below 8192`,
		"-1":    ` "-1" is not a list of processors below 8192`,
		"0-0-0": ` "0-0-0" is not a list of processors below 8192`,
	} {
		mask, err := cpuMask(list)
		if got := fmt.Sprintf("%x %v", mask, err); got != want {
			t.Errorf("%q: %s, want %s", list, got, want)
		}
	}
}

// TestOCISchedule: a container, and what is executed in it, has the processors and the
// personality that are asked for; capabilities that nobody knows are left out.
func TestOCISchedule(t *testing.T) {
	o, bundle := newOCI(t, func(s *specs.Spec) {
		s.Process.Scheduler = &specs.Scheduler{Policy: specs.SchedBatch}
		s.Process.IOPriority = &specs.LinuxIOPriority{Class: specs.IOPRIO_CLASS_IDLE}
		s.Process.Capabilities.Bounding = append(s.Process.Capabilities.Bounding, "CAP_OF_SOMEBODY")
		s.Linux.Personality = &specs.LinuxPersonality{Domain: specs.PerLinux32}
	}, "sleep")
	ctx := t.Context()
	if err := o.Run(ctx, "c1", OCICreate{Bundle: bundle}); err != nil {
		t.Fatal(err)
	}
	s := o.expect(t, specs.StateRunning)
	if b, err := os.ReadFile(fmt.Sprintf("/proc/%d/personality", s.Pid)); string(b) != "00000008\n" {
		t.Errorf("personality %q, %v", b, err)
	}
	if b, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", s.Pid)); err != nil || strings.Fields(string(b))[40] != "3" {
		t.Errorf("scheduling policy in %q, %v: want SCHED_BATCH, 3", b, err)
	}
	read, out, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer read.Close()
	p := process("probe", "status", "Cpus_allowed_list")
	p.ExecCPUAffinity = &specs.CPUAffinity{Initial: "0", Final: "0"}
	code, err := o.Exec(ctx, "c1", OCIExec{Process: p, Stdio: [3]*os.File{nil, out, nil}})
	out.Close()
	if b, rerr := io.ReadAll(read); code != 0 || err != nil || string(b) != "Cpus_allowed_list: 0\n" {
		t.Errorf("exec on one processor: %q, %d, %v, %v", b, code, err, rerr)
	}
}

// TestOCICrowded: a cgroup that others are in is nobody's to have, and they live on.
func TestOCICrowded(t *testing.T) {
	group := ""
	o, bundle := newOCI(t, func(s *specs.Spec) {
		group = fmt.Sprintf("/sampan-test-%d-crowded", os.Getpid())
		s.Linux.CgroupsPath = group
	}, "sleep")
	t.Cleanup(func() { cgroup.RemoveEmpty(group) })
	ctx := t.Context()
	if err := o.Run(ctx, "c1", OCICreate{Bundle: bundle}); err != nil {
		t.Fatal(err)
	}
	err := o.Create(ctx, "c2", OCICreate{Bundle: bundle})
	if err == nil || !strings.Contains(err.Error(), "cgroup is not empty: 1 process(es) in") {
		t.Errorf("a second container in the cgroup of the first: %v", err)
	}
	o.expect(t, specs.StateRunning)
}

// TestOCIFrozen: in a cgroup that stands still nothing would begin, and whoever waited for
// it would wait for ever.
func TestOCIFrozen(t *testing.T) {
	name := fmt.Sprintf("/sampan-test-%d-frozen", os.Getpid())
	o, bundle := newOCI(t, func(s *specs.Spec) { s.Linux.CgroupsPath = name }, "exit", "0")
	group, err := cgroup.Open(name, nil, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { cgroup.RemoveEmpty(name) })
	if err := errors.Join(group.Create(), group.Freeze(true)); err != nil {
		t.Fatal(err)
	}
	err = o.Create(t.Context(), "c1", OCICreate{Bundle: bundle})
	if !errors.Is(err, ErrState) || !strings.Contains(err.Error(), "container's cgroup unexpectedly frozen") {
		t.Errorf("a container in a frozen cgroup: %v", err)
	}
}

// TestOCIAffinity: the processors that whoever starts containers is kept to are not
// those of the containers, begun by a list of calls or by a stage, nor of their execs.
func TestOCIAffinity(t *testing.T) {
	runtime.LockOSThread() // for good: what this thread is kept to goes with it
	var all, one unix.CPUSet
	if err := unix.SchedGetaffinity(0, &all); err != nil {
		t.Fatal(err)
	}
	if all.Count() < 2 {
		t.Skip("one processor")
	}
	for cpu := 0; one.Count() == 0; cpu++ {
		if all.IsSet(cpu) {
			one.Set(cpu)
		}
	}
	for name, io := range map[string]*specs.LinuxIOPriority{"list": nil, "stage": {Class: specs.IOPRIO_CLASS_BE, Priority: 5}} {
		t.Run(name, func(t *testing.T) {
			runtime.LockOSThread()
			want := allowed(t)
			if err := unix.SchedSetaffinity(0, &one); err != nil {
				t.Fatal(err)
			}
			r, w, err := os.Pipe()
			if err != nil {
				t.Fatal(err)
			}
			defer r.Close()
			o, bundle := newOCI(t, func(s *specs.Spec) { s.Process.IOPriority = io }, "status", "Cpus_allowed_list", ";", "sleep")
			if err := o.Run(t.Context(), "c1", OCICreate{Bundle: bundle, Stdio: [3]*os.File{nil, w, w}}); err != nil {
				t.Fatal(err)
			}
			p := process("probe", "status", "Cpus_allowed_list")
			p.IOPriority = io
			if _, err := o.Exec(t.Context(), "c1", OCIExec{Process: p, Stdio: [3]*os.File{nil, w, w}}); err != nil {
				t.Fatal(err)
			}
			w.Close()
			lines := bufio.NewScanner(r)
			for range 2 {
				if !lines.Scan() || lines.Text() != want {
					t.Errorf("%q, want %q", lines.Text(), want)
				}
			}
		})
	}
}

// allowed is what a process that is kept to no processors has in its status.
func allowed(t *testing.T) string {
	t.Helper()
	out, err := exec.Command("grep", "Cpus_allowed_list", "/proc/self/status").Output()
	if err != nil {
		t.Fatal(err)
	}
	return strings.Join(strings.Fields(string(out)), " ")
}

// TestMemoryPolicy is what linux.memoryPolicy becomes for the kernel.
func TestMemoryPolicy(t *testing.T) {
	for name, c := range map[string]struct {
		in   *specs.LinuxMemoryPolicy
		want string
	}{
		"none":       {nil, "nil <nil>"},
		"interleave": {&specs.LinuxMemoryPolicy{Mode: specs.MpolInterleave, Nodes: "0-1,3"}, "0x3 0b00000000000000 <nil>"},
		"bind static": {&specs.LinuxMemoryPolicy{Mode: specs.MpolBind, Nodes: "0", Flags: []specs.MemoryPolicyFlagType{specs.MpolFStaticNodes}},
			"0x8002 0100000000000000 <nil>"},
		"default":      {&specs.LinuxMemoryPolicy{Mode: specs.MpolDefault}, "0x0  <nil>"},
		"no mode":      {&specs.LinuxMemoryPolicy{Nodes: "0"}, `nil invalid memory policy mode ""`},
		"unknown mode": {&specs.LinuxMemoryPolicy{Mode: "BIND"}, `nil invalid memory policy mode "BIND"`},
		"unknown flag": {&specs.LinuxMemoryPolicy{Mode: specs.MpolBind, Nodes: "0", Flags: []specs.MemoryPolicyFlagType{"x"}}, `nil invalid memory policy flag "x"`},
		"nodes of none": {&specs.LinuxMemoryPolicy{Mode: specs.MpolDefault, Nodes: "0-7"},
			"nil memory policy MPOL_DEFAULT: mode requires 0 nodes but got 8"},
		"many nodes": {&specs.LinuxMemoryPolicy{Mode: specs.MpolBind, Nodes: "0-9876543210"},
			`nil invalid memory policy nodes "0-9876543210": must be a list of numbers below 1024`},
	} {
		got, err := memoryPolicy(c.in)
		text := "nil"
		if got != nil {
			text = fmt.Sprintf("%#x %x", got.Mode, got.Nodes)
		}
		if text += fmt.Sprint(" ", err); text != c.want {
			t.Errorf("%s: %s, want %s", name, text, c.want)
		}
	}
}

// TestOCIMemoryPolicy: the program of a container, and what is executed in it, has its
// memory from where it is asked for.
func TestOCIMemoryPolicy(t *testing.T) {
	o, bundle := newOCI(t, func(s *specs.Spec) {
		s.Linux.MemoryPolicy = &specs.LinuxMemoryPolicy{Mode: specs.MpolBind, Nodes: "0", Flags: []specs.MemoryPolicyFlagType{specs.MpolFStaticNodes}}
	}, "sleep")
	if _, err := os.Stat("/proc/self/numa_maps"); err != nil {
		t.Skip("needs a kernel with memory nodes")
	}
	if err := o.Run(t.Context(), "c1", OCICreate{Bundle: bundle}); err != nil {
		t.Fatal(err)
	}
	const want = " bind=static:0 "
	first, err := os.ReadFile(fmt.Sprintf("/proc/%d/numa_maps", o.expect(t, specs.StateRunning).Pid))
	if err != nil || !strings.Contains(string(first), want) {
		t.Errorf("numa_maps %q, %v", first, err)
	}
	if got := o.said(t, process("probe", "read", "/proc/self/numa_maps")); !strings.Contains(got, want) {
		t.Errorf("exec: numa_maps %q", got)
	}
}

// TestEnvironment is which of a spec's variables a program gets.
func TestEnvironment(t *testing.T) {
	for in, want := range map[string]string{
		"": "", "A=1 B=2": "A=1 B=2", "A=1 B=2 A=3": "B=2 A=3", "A=1 A=": "A=", "HOME=": "", "HOME=/x HOME=": "", "HOME= HOME=/x": "HOME=/x",
	} {
		if got := strings.Join(environment(strings.Fields(in)), " "); got != want {
			t.Errorf("%q: %q, want %q", in, got, want)
		}
	}
}
