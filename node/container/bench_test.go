package container

import (
	"os"
	"path/filepath"
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

func BenchmarkExec(b *testing.B) {
	x := newBox(b)
	x.start(x.config("c1", probeSpec("sleep")))
	for b.Loop() {
		code, err := x.Exec(b.Context(), "c1", ExecConfig{Process: process("probe", "exit", "0")})
		if err != nil || code != 0 {
			b.Fatal(code, err)
		}
	}
	b.StopTimer()
	status, err := os.ReadFile(filepath.Join("/proc", itoa(x.keeperPID()), "status"))
	if err != nil {
		b.Fatal(err)
	}
	b.Logf("the keeper:\n%s", status)
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
