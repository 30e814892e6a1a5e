package container

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
)

// The ways out of a container that others have been caught with.
func TestEscapes(t *testing.T) {
	b := newBox(t)
	t.Run("working directory through a descriptor", func(t *testing.T) { // CVE-2024-21626
		for _, cwd := range []string{"/proc/self/fd/3", "/proc/self/fd/4", "/proc/self/fd/5", "/proc/self/fd/6", "/proc/self/fd/7", "/proc/self/fd/8"} {
			spec := probeSpec("id")
			spec.Process.Cwd = cwd
			id := "cwd" + filepath.Base(cwd)
			if err := b.Create(b.context(), b.config(id, spec)); err != nil {
				continue
			}
			if err := b.Start(b.context(), id); err == nil {
				t.Errorf("a container runs in %s", cwd)
			}
		}
		b.start(b.config("host", probeSpec("sleep")))
		for fd := range 12 {
			p := process("/bin/probe", "id")
			p.Cwd = "/proc/self/fd/" + itoa(fd)
			out := newOutput(t)
			if _, err := b.Exec(b.context(), "host", ExecConfig{Process: p, Stdout: out}); err == nil && !strings.HasSuffix(out.b.String(), " / ok\n") {
				t.Errorf("exec runs in %s: %q", p.Cwd, out.b.String())
			}
		}
	})
	t.Run("the runtime's own program", func(t *testing.T) { // CVE-2019-5736
		spec := probeSpec()
		spec.Process.Args = []string{"/proc/self/exe", "stage"}
		cfg := b.config("exe", spec)
		if err := b.Create(b.context(), cfg); err != nil {
			t.Fatal(err)
		}
		// Executing the keeper's memfd again gets the container a program that
		// cannot be written to, with no more rights than its own.
		if err := b.Start(b.context(), "exe"); err != nil {
			t.Skip("refused:", err)
		}
		if s, err := b.Wait(b.context(), "exe"); err != nil || s.ExitCode == 0 {
			t.Errorf("%+v %v", s, err)
		}
	})
	t.Run("links in the image where mounts go", func(t *testing.T) { // CVE-2021-30465, CVE-2025-31133, CVE-2025-52565
		outside := t.TempDir()
		spec := probeSpec("ls", "/dev", ";", "write", "/proc/sys/kernel/core_pattern", ";", "stat", "/dev/null")
		cfg := b.config("links", spec)
		for name, to := range map[string]string{"dev": outside, "sys": "/../../.." + outside} {
			if err := os.Symlink(to, filepath.Join(cfg.Rootfs.Upper, name)); err != nil {
				t.Fatal(err)
			}
		}
		err := b.Create(b.context(), cfg)
		if entries, rerr := os.ReadDir(outside); rerr != nil || len(entries) != 0 {
			t.Errorf("made on the host: %v, %v", entries, rerr)
		}
		if err == nil {
			t.Error("a container whose /dev is a link was made")
		}
	})
}

// A volume may be made to share mounts with the host, one way or both.
func TestPropagation(t *testing.T) {
	b := newBox(t)
	host := t.TempDir()
	if err := unix.Mount(host, host, "", unix.MS_BIND, ""); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		unix.Unmount(filepath.Join(host, "late"), unix.MNT_DETACH)
		unix.Unmount(host, unix.MNT_DETACH)
	})
	if err := unix.Mount("", host, "", unix.MS_SHARED, ""); err != nil {
		t.Fatal(err)
	}
	if err := os.Mkdir(filepath.Join(host, "late"), 0o755); err != nil {
		t.Fatal(err)
	}
	spec := func(root, mount string) *specs.Spec {
		s := probeSpec("lines", ";", "ls", "/volume/late", ";", "ls", "/own/late")
		s.Linux.RootfsPropagation = root
		s.Mounts = append(s.Mounts,
			specs.Mount{Source: host, Destination: "/volume", Type: "bind", Options: []string{"rbind", mount}},
			specs.Mount{Source: host, Destination: "/own", Type: "bind", Options: []string{"rbind", "rprivate", "rro"}})
		return s
	}
	for name, s := range map[string]*specs.Spec{"slave": spec("rslave", "rslave"), "shared": spec("rshared", "rshared"), "private": spec("", "rprivate")} {
		cfg := b.config(name, s)
		cfg.Stdin = true
		b.start(cfg)
	}
	if err := unix.Mount("tmpfs", filepath.Join(host, "late"), "tmpfs", 0, ""); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(host, "late", "seen"), nil, 0o644); err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string]string{"slave": "seen", "shared": "seen", "private": ""} {
		in, out := newPipe(t, b, name)
		in.send("quit\n")
		out.expect("ls /own")
		if _, err := b.Wait(b.context(), name); err != nil {
			t.Fatal(err)
		}
		if got := out.b.String(); got != "got quit\nls /volume/late ok "+want+"\nls /own/late ok \n" {
			t.Errorf("%s saw %q", name, got)
		}
	}
	mounts, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil || strings.Contains(string(mounts), "overlay "+b.dir) || strings.Contains(string(mounts), b.dir+"/run/c") {
		t.Errorf("a root has spread to the host: %v", err)
	}
}
