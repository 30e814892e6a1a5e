package container

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"testing"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/sampan-dev/sampan/node/container/plan"
)

// within does something in the mount namespace of a process.
func within(t *testing.T, pid int, do func() error) {
	t.Helper()
	err := onLostThread(func() error {
		if err := unix.Unshare(unix.CLONE_FS); err != nil {
			return err
		}
		if err := enter(fmt.Sprintf("/proc/%d/ns/mnt", pid)); err != nil {
			return err
		}
		return do()
	})
	if err != nil {
		t.Fatal(err)
	}
}

// TestJudgeFiles: a container as it is made passes, and one in which anything is
// mounted otherwise does not.
func TestJudgeFiles(t *testing.T) {
	b := newBox(t)
	sb := b.sandbox(SandboxConfig{ID: "pod", Hostname: "inside"})
	for i, row := range []struct {
		name, want string
		do         func() error
	}{
		{"as it is made", "", func() error { return nil }},
		{"the root on what is masked", "is open", func() error { return unix.Mount("/", "/sys/firmware", "", unix.MS_BIND, "") }},
		{"what is masked, to be written to", "is open", func() error { return unix.Mount("tmpfs", "/sys/firmware", "tmpfs", 0, "") }},
		{"something in what is masked", "is open", func() error {
			return errors.Join(unix.Mount("tmpfs", "/sys/firmware", "tmpfs", 0, ""), os.Mkdir("/sys/firmware/secret", 0o700),
				unix.Mount("", "/sys/firmware", "", unix.MS_REMOUNT|unix.MS_BIND|unix.MS_RDONLY, ""))
		}},
		{"another root over the root", "another root", func() error { return unix.Mount("tmpfs", "/", "tmpfs", 0, "") }},
		{"the root over the root", "another root", func() error { return unix.Mount("/", "/", "", unix.MS_BIND, "") }},
		{"something else that is read-only", "is open", func() error { return unix.Mount("tmpfs", "/proc/sys", "tmpfs", unix.MS_RDONLY, "") }},
		{"write access", "is open", func() error { return unix.Mount("", "/proc/sys", "", unix.MS_REMOUNT|unix.MS_BIND, "") }},
		{"devices in a volume", "it lacks", func() error {
			return unix.Mount("", "/tmp/bound", "", unix.MS_REMOUNT|unix.MS_BIND|unix.MS_NOSUID, "")
		}},
		{"another volume", "something else", func() error { return unix.Mount("/dev/mqueue", "/tmp/bound", "", unix.MS_BIND|unix.MS_NODEV, "") }},
		{"part of a filesystem", "for proc", func() error {
			return errors.Join(unix.Mount("/proc/sys", "/proc", "", unix.MS_BIND, ""),
				unix.Mount("", "/proc", "", unix.MS_REMOUNT|unix.MS_BIND|unix.MS_NOSUID|unix.MS_NODEV|unix.MS_NOEXEC, ""))
		}},
		{"one more", `a mount of tmpfs on "/bin"`, func() error { return unix.Mount("tmpfs", "/bin", "tmpfs", 0, "") }},
	} {
		t.Run(row.name, func(t *testing.T) {
			cfg := b.in(sb, fmt.Sprintf("c%d", i), "sleep", "1h")
			cfg.Spec.Mounts = append(cfg.Spec.Mounts, specs.Mount{Source: b.dir, Destination: "/tmp/bound", Type: "bind", Options: []string{"bind", "nodev"}})
			b.start(cfg)
			c, err := b.find(cfg.ID)
			if err != nil {
				t.Fatal(err)
			}
			p, _, err := b.translate(&cfg, sb)
			if err != nil {
				t.Fatal(err)
			}
			root, err := os.Open(fmt.Sprintf("/proc/%d/root", c.rec.PID)) // as its parent has placed it
			if err != nil {
				t.Fatal(err)
			}
			defer root.Close()
			within(t, c.rec.PID, row.do)
			err = c.judgeFiles(p, fmt.Sprintf("/proc/self/fd/%d", root.Fd()), []int{c.rec.PID})
			if row.want == "" && err != nil {
				t.Fatal(err)
			}
			if row.want != "" && (!errors.Is(err, ErrExceeds) || !strings.Contains(err.Error(), row.want)) {
				t.Errorf("%v, want %q", err, row.want)
			}
		})
	}
}

// TestJudgeOpen: what is open in a process is in the container, or such that any program
// could have made it.
func TestJudgeOpen(t *testing.T) {
	b := newBox(t)
	cfg := b.config("c", probeSpec("sleep", "1h"))
	b.start(cfg)
	c, err := b.find("c")
	if err != nil {
		t.Fatal(err)
	}
	other := exec.Command("/probe", "sleep", "1h")
	other.SysProcAttr = &syscall.SysProcAttr{Chroot: filepath.Join(fmt.Sprintf("/proc/%d/root", c.rec.PID), "bin"), Pdeathsig: syscall.SIGKILL}
	other.Dir = "/"
	runtime.LockOSThread() // whose child it is
	defer runtime.UnlockOSThread()
	if err := other.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() { _ = other.Process.Kill(); _ = other.Wait() }()
	p := &plan.Plan{Process: plan.Process{Caps: &plan.Caps{}}}
	placed := fmt.Sprintf("/proc/%d/root", c.rec.PID)
	for _, pid := range []int{other.Process.Pid, os.Getpid()} {
		if err := c.judgeFiles(p, placed, []int{c.rec.PID, pid}); !errors.Is(err, ErrExceeds) || !strings.Contains(err.Error(), "another root") {
			t.Errorf("process %d in a root of its own: %v", pid, err)
		}
	}
	j := &judged{c: c, p: p, at: map[int]mounted{}}
	if err := j.open(os.Getpid()); !errors.Is(err, ErrExceeds) {
		t.Errorf("files of the host: %v", err)
	}
	for link, want := range map[string]bool{
		"pipe:[7]": true, "anon_inode:[eventpoll]": true, "anon_inode:inotify": true,
		"anon_inode:[fanotify]": false, "anon_inode:bpf-map": false, "anon_inode:[perf_event]": false, "mnt:[4026531841]": false, "nonsense": false,
	} {
		if ok, err := j.harmless("/proc/self/fd/0", link, "/proc/self"); err != nil || ok != want {
			t.Errorf("%s: %v, %v", link, ok, err)
		}
	}
	pair, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(pair[0])
	defer unix.Close(pair[1])
	for _, queued := range []bool{false, true} {
		if queued {
			if err := unix.Sendmsg(pair[0], []byte("x"), unix.UnixRights(pair[0]), nil, 0); err != nil {
				t.Fatal(err)
			}
		}
		if ok, err := j.harmless(fmt.Sprintf("/proc/thread-self/fd/%d", pair[1]), "socket:[7]", "/proc/thread-self"); err != nil || ok == queued {
			t.Errorf("a socket with a descriptor in its queue (%v): %v, %v", queued, ok, err)
		}
	}
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.IPPROTO_ICMP)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(fd)
	link, err := os.Readlink(fmt.Sprintf("/proc/thread-self/fd/%d", fd))
	if err != nil {
		t.Fatal(err)
	}
	if raw, err := rawSockets("/proc/thread-self"); err != nil || !raw[link] {
		t.Errorf("%s is not among the raw sockets %v, %v", link, raw, err)
	}
}
