package script

import (
	"bytes"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// foreign is somebody else's engine that starts containers with sampan oci.
type foreign struct {
	t    *testing.T
	argv []string
}

// try runs the engine's command line and checks its exit code; what it has
// printed comes back.
func (f foreign) try(code int, args ...string) string {
	f.t.Helper()
	cmd := exec.CommandContext(f.t.Context(), f.argv[0], append(f.argv[1:], args...)...)
	out, err := cmd.CombinedOutput()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		f.t.Fatal(err)
	}
	if got := cmd.ProcessState.ExitCode(); got != code {
		f.t.Fatalf("%s %v: exit code %d instead of %d\n%s", f.argv[0], args, got, code, out)
	}
	return string(out)
}

// engineTest prepares what the engines need: the runtime under its own name, an
// image as a tar, and a short directory, which sockets ask for.
func engineTest(t *testing.T, programsNeeded ...string) (dir, runtime, rootfs string) {
	t.Helper()
	if os.Getenv(storyEnv) != "" {
		t.Skip("this process tells one story only")
	}
	if os.Geteuid() != 0 {
		t.Skip("containers need namespaces, mounts and cgroups, which only root may make")
	}
	for _, p := range programsNeeded {
		if _, err := exec.LookPath(p); err != nil {
			t.Skipf("%s is not installed: apt-get install %s", p, p)
		}
	}
	bin := programs(t)
	dir, err := os.MkdirTemp("", "oci-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { unmountAll(t, dir) })
	sampan, err := filepath.EvalSymlinks(filepath.Join(bin, "sampan"))
	if err != nil {
		t.Fatal(err)
	}
	runtime = filepath.Join(dir, "sampan-oci")
	if err := os.Symlink(sampan, runtime); err != nil {
		t.Fatal(err)
	}
	rootfs = filepath.Join(dir, "rootfs")
	if err := os.MkdirAll(filepath.Join(rootfs, "bin"), 0o755); err != nil {
		t.Fatal(err)
	}
	b, err := os.ReadFile(filepath.Join(bin, "toolbox"))
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(rootfs, "bin", "toolbox"), b, 0o755); err != nil {
		t.Fatal(err)
	}
	return dir, runtime, rootfs
}

// unmountAll removes the directory with the mounts that an engine has left in it.
func unmountAll(t *testing.T, dir string) {
	t.Helper()
	b, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		t.Error(err)
	}
	lines := strings.Split(string(b), "\n")
	for i := len(lines) - 1; i >= 0; i-- {
		if f := strings.Fields(lines[i]); len(f) > 4 && strings.HasPrefix(f[4], dir+"/") {
			if err := unix.Unmount(f[4], unix.MNT_DETACH); err != nil {
				t.Error(err)
			}
		}
	}
	if err := os.RemoveAll(dir); err != nil {
		t.Error(err)
	}
}

// TestPodmanStartsContainers tells Podman to use sampan oci as its runtime.
func TestPodmanStartsContainers(t *testing.T) {
	dir, runtime, rootfs := engineTest(t, "podman", "conmon")
	podman := foreign{t, []string{
		"podman", "--root", filepath.Join(dir, "root"), "--runroot", filepath.Join(dir, "run"),
		"--runtime", runtime, "--cgroup-manager=cgroupfs", "--storage-driver=vfs", "--events-backend=none",
	}}
	archive := filepath.Join(dir, "rootfs.tar")
	if out, err := exec.CommandContext(t.Context(), "tar", "-C", rootfs, "-cf", archive, ".").CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	podman.try(0, "import", archive, "toolbox")
	t.Cleanup(func() { _ = exec.Command(podman.argv[0], append(podman.argv[1:], "rm", "-af", "-t", "0")...).Run() })

	if out := podman.try(0, "run", "--rm", "--network=none", "toolbox", "/bin/toolbox", "echo", "hello"); out != "hello\n" {
		t.Errorf("printed %q", out)
	}
	podman.try(127, "run", "--rm", "--network=none", "toolbox", "/nothing")
	podman.try(0, "run", "-d", "--name", "a", "--network=none", "toolbox", "/bin/toolbox", "idle")
	if out := podman.try(0, "exec", "a", "/bin/toolbox", "echo", "inside"); out != "inside\n" {
		t.Errorf("printed %q", out)
	}
	podman.try(127, "exec", "a", "/nothing")
	podman.try(0, "pause", "a")
	if out := podman.try(0, "inspect", "--format", "{{.State.Status}}", "a"); out != "paused\n" {
		t.Errorf("status %q", out)
	}
	podman.try(0, "unpause", "a")
	podman.try(0, "stop", "-t", "0", "a")
	if out := podman.try(0, "inspect", "--format", "{{.State.ExitCode}}", "a"); out != "137\n" {
		t.Errorf("exit code %q", out)
	}
	podman.try(0, "rm", "a")
}

// TestContainerdStartsContainers tells containerd's shim to use sampan oci.
func TestContainerdStartsContainers(t *testing.T) {
	dir, runtime, rootfs := engineTest(t, "containerd", "ctr", "containerd-shim-runc-v2")
	socket := filepath.Join(dir, "c.sock")
	config := filepath.Join(dir, "config.toml")
	text := "version = 2\nroot = \"" + filepath.Join(dir, "root") + "\"\nstate = \"" + filepath.Join(dir, "state") +
		"\"\ndisabled_plugins = [\"io.containerd.grpc.v1.cri\"]\n[grpc]\naddress = \"" + socket + "\"\n"
	if err := os.WriteFile(config, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	daemon := exec.CommandContext(t.Context(), "containerd", "-c", config)
	daemon.Cancel = func() error { return daemon.Process.Signal(unix.SIGTERM) }
	daemon.WaitDelay = 10 * time.Second
	var log bytes.Buffer
	daemon.Stderr = &log
	if err := daemon.Start(); err != nil {
		t.Fatal(err)
	}
	ctr := foreign{t, []string{"ctr", "-a", socket, "--connect-timeout", "60s"}}
	ctr.try(0, "version")
	t.Cleanup(func() {
		if t.Failed() {
			t.Logf("containerd:\n%s", log.String())
		}
	})

	ours := []string{"--runc-binary", runtime, "--runc-root", filepath.Join(dir, "oci"), "--rootfs"}
	run := func(code int, flags, args []string) string {
		t.Helper()
		return ctr.try(code, append(append(append([]string{"run"}, flags...), ours...), args...)...)
	}
	if out := run(0, []string{"--rm"}, []string{rootfs, "c1", "/bin/toolbox", "echo", "hello"}); out != "hello\n" {
		t.Errorf("printed %q", out)
	}
	if out := run(1, []string{"--rm"}, []string{rootfs, "c2", "/nothing"}); !strings.Contains(out, "no such file or directory") {
		t.Errorf("a program that is not there: %q", out)
	}
	run(0, []string{"-d"}, []string{rootfs, "c3", "/bin/toolbox", "idle"})
	if out := ctr.try(0, "task", "exec", "--exec-id", "e1", "c3", "/bin/toolbox", "echo", "inside"); out != "inside\n" {
		t.Errorf("printed %q", out)
	}
	ctr.try(0, "task", "pause", "c3")
	if out := ctr.try(0, "task", "ls"); !strings.Contains(out, "PAUSED") {
		t.Errorf("tasks %q", out)
	}
	ctr.try(0, "task", "resume", "c3")
	if out := ctr.try(0, "task", "metrics", "c3"); !strings.Contains(out, "memory") {
		t.Errorf("metrics %q", out)
	}
	if out := ctr.try(0, "task", "rm", "--force", "c3"); !strings.Contains(out, "137") {
		t.Errorf("removed with %q", out)
	}
	ctr.try(0, "container", "rm", "c3")
}
