package main

import (
	"bufio"
	"encoding/json"
	"fmt"
	"os"
	osexec "os/exec"
	"path/filepath"
	"runtime"
	"syscall"
	"testing"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/sampan-dev/sampan/node/container"
	"github.com/sampan-dev/sampan/node/container/cgroup"
)

// A container in the foreground gets the signals of run, begins with nothing of what
// the program has changed for its own sake, and its exit code is that of run: with the
// entry that make tells the linker of, and without.
func TestForeground(t *testing.T) {
	if os.Getuid() != 0 {
		t.Skip("needs root: containers")
	}
	own, err := unix.PrctlRetInt(unix.PR_GET_TIMERSLACK, 0, 0, 0, 0)
	if err != nil {
		t.Fatal(err)
	}
	entries := map[string]string{"plain": "", "users": ""}
	if runtime.GOARCH == "amd64" {
		entries["entered"] = "-E main.entry"
	}
	for name, flags := range entries { // users are others than this machine's
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			program := filepath.Join(dir, "oci")
			compile(t, program, ".", flags)
			group := fmt.Sprintf("/sampan-oci-test-%d", os.Getpid())
			t.Cleanup(func() { cgroup.RemoveEmpty(group) })
			bundle(t, dir, group+"/"+name, name == "users")
			run := osexec.Command(program, "--root", filepath.Join(dir, "state"), "run", "--bundle", dir, "c-"+name)
			run.Stderr = os.Stderr
			out, err := run.StdoutPipe()
			if err != nil {
				t.Fatal(err)
			}
			if err := run.Start(); err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() {
				_ = run.Process.Kill()
				_ = osexec.Command(program, "--root", filepath.Join(dir, "state"), "delete", "--force", "c-"+name).Run()
			})
			lines := bufio.NewScanner(out)
			expect := func(want string) {
				t.Helper()
				if !lines.Scan() || lines.Text() != want {
					t.Fatalf("%q, want %q: %v", lines.Text(), want, lines.Err())
				}
			}
			expect(fmt.Sprint("slack ", own))
			expect(fmt.Sprintf("variables %q", []string{"HERE=yes", "HOME=/"}))
			for _, s := range []syscall.Signal{syscall.SIGUSR1, syscall.SIGINT, syscall.SIGUSR1, syscall.SIGTERM} {
				if err := run.Process.Signal(s); err != nil {
					t.Fatal(err)
				}
				expect("got " + s.String())
			}
			if err := run.Wait(); run.ProcessState.ExitCode() != 7 {
				t.Errorf("ended with %v, want the container's exit code 7", err)
			}
			if left, _ := os.ReadDir(filepath.Join(dir, "state")); len(left) > 0 {
				t.Errorf("left: %v", left)
			}
		})
	}
}

func compile(t *testing.T, to, what, flags string) {
	t.Helper()
	c := osexec.Command("go", "build", "-ldflags", flags, "-o", to, what)
	c.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := c.CombinedOutput(); err != nil {
		t.Fatalf("build %s: %v: %s", what, err, out)
	}
}

// bundle makes one whose program is that of testdata/inside.
func bundle(t *testing.T, dir, group string, users bool) {
	t.Helper()
	for _, d := range []string{"bin", "proc", "sys", "dev"} {
		if err := os.MkdirAll(filepath.Join(dir, "rootfs", d), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	compile(t, filepath.Join(dir, "rootfs/bin/inside"), "./testdata/inside", "")
	spec := container.DefaultSpec()
	spec.Root = &specs.Root{Path: "rootfs"}
	spec.Process.Args, spec.Process.Terminal = []string{"/bin/inside"}, false
	spec.Process.Env = []string{"HERE=yes"}
	spec.Linux.CgroupsPath = group
	if users {
		maps := []specs.LinuxIDMapping{{HostID: 100000, Size: 65536}}
		spec.Linux.UIDMappings, spec.Linux.GIDMappings = maps, maps
		spec.Linux.Namespaces = append(spec.Linux.Namespaces, specs.LinuxNamespace{Type: specs.UserNamespace})
	}
	b, err := json.Marshal(spec)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "config.json"), b, 0o600); err != nil {
		t.Fatal(err)
	}
}
