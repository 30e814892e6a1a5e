package container

import (
	"encoding/binary"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"testing"
)

// BenchmarkRun is create, start, exit and remove of a tiny program over overlayfs,
// with and without what a pod's container has around it.
func BenchmarkRun(b *testing.B) {
	for name, sandbox := range map[string]bool{"alone": false, "sandboxed": true} {
		b.Run(name, func(b *testing.B) {
			x := newBox(b)
			cfg := x.config("c1", probeSpec("exit", "0"))
			filter, err := DefaultSeccomp(cfg.Spec)
			if err != nil {
				b.Fatal(err)
			}
			cfg.Spec.Linux.Seccomp = filter
			if sandbox {
				x.sandbox(SandboxConfig{ID: "pod", Hostname: "pod"})
				cfg.SandboxID = "pod"
			}
			ctx := b.Context()
			for b.Loop() {
				if err := x.Create(ctx, cfg); err != nil {
					b.Fatal(err)
				}
				if err := x.Start(ctx, "c1"); err != nil {
					b.Fatal(err)
				}
				if _, err := x.Wait(ctx, "c1"); err != nil {
					b.Fatal(err)
				}
				if err := x.Remove(ctx, "c1"); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

// BenchmarkStart is until the program runs, as a pod waits for it.
func BenchmarkStart(b *testing.B) {
	x := newBox(b)
	cfg := x.config("c1", probeSpec("sleep"))
	ctx := b.Context()
	for b.Loop() {
		if err := x.Create(ctx, cfg); err != nil {
			b.Fatal(err)
		}
		if err := x.Start(ctx, "c1"); err != nil {
			b.Fatal(err)
		}
		b.StopTimer()
		if err := x.Remove(ctx, "c1"); err != nil {
			b.Fatal(err)
		}
		b.StartTimer()
	}
}

func BenchmarkSandbox(b *testing.B) {
	x := newBox(b)
	ctx := b.Context()
	for b.Loop() {
		if _, err := x.CreateSandbox(ctx, SandboxConfig{ID: "pod", Hostname: "pod"}); err != nil {
			b.Fatal(err)
		}
		if err := x.RemoveSandbox(ctx, "pod"); err != nil {
			b.Fatal(err)
		}
	}
}

// BenchmarkExec is a probe of a program that does nothing: the time, and what can be
// judged on a busy machine, the processor time of this process and of the keeper, and
// how often the threads of both have waited.
func BenchmarkExec(b *testing.B) {
	if runtime.GOARCH != "amd64" {
		b.Skip("its program is written in the machine code of amd64")
	}
	x := newBox(b)
	if err := os.WriteFile(filepath.Join(built.rootfs, "bin/zero"), exitZero(), 0o755); err != nil {
		b.Fatal(err)
	}
	x.start(x.config("c1", probeSpec("sleep")))
	p := process("/bin/zero")
	pids := map[string]int{"here": os.Getpid(), "keeper": x.keeperPID()}
	before := map[string]usage{}
	for name, pid := range pids {
		before[name] = usageOf(b, pid)
	}
	for b.Loop() {
		code, err := x.Exec(b.Context(), "c1", ExecConfig{Process: p, Stdout: io.Discard, Stderr: io.Discard})
		if err != nil || code != 0 {
			b.Fatal(code, err)
		}
	}
	for name, pid := range pids {
		u := usageOf(b, pid)
		b.ReportMetric(float64(u.processor-before[name].processor)/1000/float64(b.N), name+"-µs/op")
		b.ReportMetric(float64(u.waits-before[name].waits)/float64(b.N), name+"-waits/op")
	}
}

// usage is what the threads of a process have used: nanoseconds, and how often they
// gave up the processor.
type usage struct{ processor, waits int }

func usageOf(b *testing.B, pid int) (u usage) {
	tasks, err := filepath.Glob(filepath.Join("/proc", itoa(pid), "task/*"))
	if err != nil {
		b.Fatal(err)
	}
	for _, task := range tasks {
		var ran int
		stat, _ := os.ReadFile(filepath.Join(task, "schedstat")) // a thread may end
		_, _ = fmt.Sscan(string(stat), &ran)
		u.processor += ran
		status, _ := os.ReadFile(filepath.Join(task, "status"))
		for line := range strings.Lines(string(status)) {
			if n, ok := strings.CutPrefix(line, "voluntary_ctxt_switches:"); ok {
				waits, _ := strconv.Atoi(strings.TrimSpace(n))
				u.waits += waits
			}
		}
	}
	return u
}

// exitZero is the smallest program: mov eax, exit_group; xor edi, edi; syscall.
func exitZero() []byte {
	code := []byte{0xb8, 231, 0, 0, 0, 0x31, 0xff, 0x0f, 0x05}
	const address, headers = 0x400000, 64 + 56
	le := binary.LittleEndian
	out := append([]byte("\x7fELF\x02\x01\x01"), make([]byte, 9)...)
	out = le.AppendUint16(le.AppendUint16(out, 2), 62) // ET_EXEC, EM_X86_64
	out = le.AppendUint32(out, 1)
	for _, n := range []uint64{address + headers, 64, 0} {
		out = le.AppendUint64(out, n)
	}
	out = le.AppendUint32(out, 0)
	for _, n := range []uint16{64, 56, 1, 0, 0, 0} {
		out = le.AppendUint16(out, n)
	}
	out = le.AppendUint32(le.AppendUint32(out, 1), 5) // PT_LOAD, readable and executable
	size := uint64(headers + len(code))
	for _, n := range []uint64{0, address, address, size, size, 0x1000} {
		out = le.AppendUint64(out, n)
	}
	return append(out, code...)
}

// BenchmarkLog is how fast output becomes a log file.
func BenchmarkLog(b *testing.B) {
	x := newBox(b)
	const megabytes = 64
	b.SetBytes(megabytes << 20)
	for b.Loop() {
		cfg := x.config("c1", probeSpec("flood", itoa(megabytes)))
		x.start(cfg)
		if _, err := x.Wait(b.Context(), "c1"); err != nil {
			b.Fatal(err)
		}
		if err := x.Remove(b.Context(), "c1"); err != nil {
			b.Fatal(err)
		}
		if err := os.Remove(cfg.LogPath); err != nil {
			b.Fatal(err)
		}
	}
}
