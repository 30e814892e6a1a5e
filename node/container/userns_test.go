package container

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/sampan-dev/sampan/node/container/plan/overlay"
)

func mappings() *IDMappings {
	m := []specs.LinuxIDMapping{{ContainerID: 0, HostID: 200000, Size: 65536}}
	return &IDMappings{UID: m, GID: m}
}

// mappedBox is a box whose files can be shown under other ids. Not every filesystem can
// do that: tmpfs, which a directory for temporary files may be, since Linux 6.3.
func mappedBox(t testing.TB) *box {
	t.Helper()
	b := newBox(t)
	err := b.holdNamespaces(unix.CLONE_NEWUSER, mappings(), nil, func(ns string) error {
		users, err := os.Open(ns + "/" + userPin)
		if err != nil {
			return err
		}
		defer users.Close()
		tree, err := unix.OpenTree(unix.AT_FDCWD, b.dir, unix.OPEN_TREE_CLONE|unix.OPEN_TREE_CLOEXEC)
		if err != nil {
			return err
		}
		defer unix.Close(tree)
		return unix.MountSetattr(tree, "", unix.AT_EMPTY_PATH, &unix.MountAttr{Attr_set: unix.MOUNT_ATTR_IDMAP, Userns_fd: uint64(users.Fd())})
	})
	if errors.Is(err, unix.EINVAL) {
		t.Skipf("the kernel can't show what is in %q under other ids, as user namespaces need it (tmpfs: Linux 6.3 or newer): %v", b.dir, err)
	}
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// Root in the container is nobody outside, yet its files are root's on disk.
func TestUserNamespace(t *testing.T) {
	b := mappedBox(t)
	sb := b.sandbox(SandboxConfig{ID: "pod", Hostname: "pod-name", UserNS: mappings(), Sysctls: map[string]string{"net.ipv4.ip_forward": "1"}})
	volume := t.TempDir()
	cfg := b.in(sb, "c1", strings.Split("id ; read /proc/self/uid_map ; write /made ; write /tmp/made ; write /volume/made ; "+
		"write /dev/made ; write /dev/shm/made ; status CapEff NoNewPrivs Seccomp ; host ; fds ; mount ; unshare ; lines ; exit 8", " ")...)
	cfg.Spec.Mounts = append(cfg.Spec.Mounts, specs.Mount{Source: volume, Destination: "/volume", Type: "bind", Options: []string{"bind", "idmap"}})
	filter, err := DefaultSeccomp(cfg.Spec)
	if err != nil {
		t.Fatal(err)
	}
	cfg.Spec.Linux.Seccomp = filter
	cfg.Stdin = true
	b.start(cfg)
	in, out := newPipe(t, b, "c1")
	in.send("go\n")
	out.expect("got go")
	s, err := b.Status("c1")
	if err != nil {
		t.Fatal(err)
	}
	if uid := owner(t, "/proc/"+itoa(s.PID)); uid != 200000 {
		t.Errorf("the process is user %d on the host", uid)
	}
	for _, p := range []string{filepath.Join(cfg.Rootfs.Upper, "made"), filepath.Join(volume, "made")} {
		if uid := owner(t, p); uid != 0 {
			t.Errorf("%s is user %d's on disk", p, uid)
		}
	}
	run := newOutput(t)
	code, err := b.Exec(b.context(), "c1", ExecConfig{Process: process("probe", "id", ";", "write", "/tmp/other", ";", "status", "CapEff"), Stdout: run})
	if want := "id 0 0 [] / ok\nwrite /tmp/other ok\nCapEff: 00000000a80425fb\n"; code != 0 || err != nil || run.b.String() != want {
		t.Errorf("exec: %d %v %q", code, err, run.b.String())
	}
	in.send("quit\n")
	if s, err = b.Wait(b.context(), "c1"); err != nil || s.ExitCode != 8 {
		t.Errorf("%+v %v", s, err)
	}
	want := `id 0 0 [0] / ok
/proc/self/uid_map ok 0     200000      65536
write /made ok
write /tmp/made ok
write /volume/made ok
write /dev/made ok
write /dev/shm/made ok
NoNewPrivs: 1
CapEff: 00000000a80425fb
Seccomp: 2
`
	got := strings.ReplaceAll(b.log(cfg.LogPath), "stdout F ", "")
	if !strings.HasPrefix(strings.ReplaceAll(got, "CapEff: 00000000a80425fb\nNoNewPrivs: 1\n", "NoNewPrivs: 1\nCapEff: 00000000a80425fb\n"), want) {
		t.Errorf("saw\n%swant\n%s", got, want)
	}
	if rest := "host pod-name pid 1\nfds 0,1,2\nmount operation not permitted\nunshare operation not permitted\ngot go\ngot quit\n"; !strings.HasSuffix(got, rest) {
		t.Errorf("saw\n%swant at the end\n%s", got, rest)
	}
}

func owner(t testing.TB, path string) int {
	t.Helper()
	st, err := os.Stat(path)
	if err != nil {
		t.Fatal(err)
	}
	return int(st.Sys().(*syscall.Stat_t).Uid)
}

// A container may have a user namespace without a sandbox, and another user in it.
func TestOwnUserNamespace(t *testing.T) {
	b := mappedBox(t)
	spec := probeSpec(strings.Split("id ; write /tmp/x ; append /dev/stdout hello ; status CapEff", " ")...)
	spec.Linux.Namespaces = append(spec.Linux.Namespaces, specs.LinuxNamespace{Type: specs.UserNamespace})
	spec.Linux.UIDMappings, spec.Linux.GIDMappings = mappings().UID, mappings().GID
	spec.Process.User = specs.User{UID: 1000, GID: 1000}
	spec.Process.NoNewPrivileges = false
	cfg := b.config("c1", spec)
	if err := os.Mkdir(filepath.Join(cfg.Rootfs.Upper, "tmp"), 0o777); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(filepath.Join(cfg.Rootfs.Upper, "tmp"), 0o777); err != nil {
		t.Fatal(err)
	}
	s, out := b.run(cfg)
	if want := "id 1000 1000 [] / ok\nwrite /tmp/x ok\nhelloappend /dev/stdout ok\nCapEff: 0000000000000000\n"; s.ExitCode != 0 || strings.ReplaceAll(out, "stdout F ", "") != want {
		t.Errorf("%+v saw\n%s", s, out)
	}
	if uid := owner(t, filepath.Join(cfg.Rootfs.Upper, "tmp/x")); uid != 1000 {
		t.Errorf("the file is user %d's on disk", uid)
	}
	bad := b.config("c2", spec)
	spec.Process.Args = []string{"/etc/passwd.d"}
	if err := b.Create(b.context(), bad); err != nil {
		t.Fatal(err)
	}
	if err := b.Start(b.context(), "c2"); err == nil || !strings.Contains(err.Error(), "no such file") {
		t.Errorf("Start: %v", err)
	}
	third := b.config("c3", spec)
	spec.Process.Args = []string{"/notelf"}
	if err := os.WriteFile(filepath.Join(third.Rootfs.Upper, "notelf"), []byte("not a program"), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := b.Create(b.context(), third); err != nil {
		t.Fatal(err)
	}
	if err := b.Start(b.context(), "c3"); err == nil || !strings.Contains(err.Error(), "exec /notelf: failed in the user namespace") {
		t.Errorf("Start: %v", err)
	}
}

// Root with every capability and no filter, in a user namespace: its mounts are its
// own to change, and nothing of the host is.
func TestAttacksFromUserNamespace(t *testing.T) {
	b := mappedBox(t)
	sb := b.sandbox(SandboxConfig{ID: "pod", Hostname: "pod", UserNS: mappings()})
	outside := t.TempDir()
	canary := filepath.Join(outside, "canary")
	if err := os.WriteFile(canary, []byte("untouched"), 0o600); err != nil {
		t.Fatal(err)
	}
	host, err := os.Hostname()
	if err != nil {
		t.Fatal(err)
	}
	verbs := "mount ; remount /secret ; write /secret/canary ; umount /sys/firmware ; remount /proc/sys ; read /host/canary ; append /host/canary x ; chown /host/canary ; attack " + canary
	cfg := b.in(sb, "c1", strings.Split(verbs, " ")...)
	cfg.Spec.Process.Capabilities = everything()
	cfg.Spec.Process.NoNewPrivileges = false
	cfg.Spec.Linux.Seccomp = nil
	cfg.Spec.Linux.Resources.Devices = []specs.LinuxDeviceCgroup{{Allow: true, Access: "rwm"}}
	cfg.Spec.Mounts = append(cfg.Spec.Mounts,
		specs.Mount{Source: outside, Destination: "/secret", Type: "bind", Options: []string{"bind", "ro", "idmap"}},
		// A volume without the mapping: its files are nobody's in there.
		specs.Mount{Source: outside, Destination: "/host", Type: "bind", Options: []string{"bind"}})
	s, out := b.run(cfg)
	want := `mount ok
remount /secret operation not permitted
write /secret/canary read-only file system
umount /sys/firmware invalid argument
remount /proc/sys operation not permitted
/host/canary permission denied
append /host/canary permission denied
chown /host/canary operation not permitted
`
	got := strings.ReplaceAll(strings.ReplaceAll(out, "stdout F ", ""), " \n", "\n")
	if s.ExitCode != 0 || !strings.HasPrefix(got, want) {
		t.Errorf("%+v saw\n%swant\n%s", s, got, want)
	}
	tries := strings.TrimPrefix(got, want)
	if n := strings.Count(tries, "\n"); n != 14 {
		t.Errorf("%d attacks were tried:\n%s", n, tries)
	}
	for line := range strings.Lines(tries) {
		if strings.HasSuffix(line, " ok\n") {
			t.Errorf("an attack worked: %s", line)
		}
	}
	if b, err := os.ReadFile(canary); err != nil || string(b) != "untouched" || owner(t, canary) != 0 {
		t.Errorf("the canary is %q, %v", b, err)
	}
	if now, err := os.Hostname(); err != nil || now != host {
		t.Errorf("the host is called %q, %v", now, err)
	}
}

func everything() *specs.LinuxCapabilities {
	all := AllCapabilities()
	return &specs.LinuxCapabilities{Bounding: all, Effective: all, Permitted: all, Inheritable: all}
}

// Layers of an image that is a volume are shown by the mapping, one or several, also
// where the kernel takes them by mount(2) only.
func TestMappedImageVolume(t *testing.T) {
	for _, named := range []bool{false, true} {
		if !named && !overlay.Appends() {
			continue
		}
		t.Run(fmt.Sprintf("named %v", named), func(t *testing.T) { mappedImageVolume(t, named) })
	}
}

func mappedImageVolume(t *testing.T, named bool) {
	b := mappedBox(t)
	b.named = named
	sb := b.sandbox(SandboxConfig{ID: "pod", Hostname: "pod", UserNS: mappings(), Sysctls: map[string]string{"user.max_uts_namespaces": "7"}})
	lower := []string{t.TempDir(), t.TempDir()}
	for i, dir := range lower {
		if err := os.WriteFile(filepath.Join(dir, itoa(i)), []byte("layer"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	cfg := b.in(sb, "c1", strings.Split("read /image/0 ; read /image/1 ; write /image/new ; read /proc/sys/user/max_uts_namespaces", " ")...)
	cfg.Spec.Mounts = append(cfg.Spec.Mounts, specs.Mount{Source: "overlay", Destination: "/image", Type: "overlay",
		Options: []string{"ro", "lowerdir+=" + lower[0], "lowerdir+=" + lower[1], "idmap"}})
	_, out := b.run(cfg)
	want := "/image/0 ok layer\n/image/1 ok layer\nwrite /image/new read-only file system\n/proc/sys/user/max_uts_namespaces ok 7\n"
	if got := strings.ReplaceAll(out, "stdout F ", ""); got != want {
		t.Errorf("saw\n%swant\n%s", got, want)
	}
}
