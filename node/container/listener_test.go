package container

import (
	"encoding/binary"
	"encoding/json"
	"fmt"
	"net"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"unsafe"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
)

// TestOCIListener: whoever listens is asked about a container's calls and those of what
// is executed in it, knows whose they are, and decides what becomes of them; with a
// user namespace and without, with no_new_privs and without.
func TestOCIListener(t *testing.T) {
	for name, users := range map[string]bool{"plain": false, "users": true} {
		t.Run(name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "s")
			o, bundle := newOCI(t, func(s *specs.Spec) {
				s.Process.NoNewPrivileges = false
				s.Linux.Seccomp = &specs.LinuxSeccomp{
					DefaultAction: specs.ActAllow, Architectures: []specs.Arch{specs.ArchX86_64}, ListenerPath: path, ListenerMetadata: "meta",
					Syscalls: []specs.LinuxSyscall{{Names: []string{"mkdir", "mkdirat"}, Action: specs.ActNotify}},
				}
				if users {
					s.Linux.Namespaces = append(s.Linux.Namespaces, specs.LinuxNamespace{Type: specs.UserNamespace})
					s.Linux.UIDMappings = []specs.LinuxIDMapping{{HostID: 100000, Size: 65536}}
					s.Linux.GIDMappings = s.Linux.UIDMappings
				}
			}, "sleep")
			err := o.Run(t.Context(), "c1", OCICreate{Bundle: bundle})
			if err == nil || !strings.Contains(err.Error(), "failed to connect with seccomp agent") {
				t.Fatalf("nobody listens: %v", err)
			}
			l, err := net.Listen("unix", path)
			if err != nil {
				t.Fatal(err)
			}
			defer l.Close()
			if err := o.Run(t.Context(), "c1", OCICreate{Bundle: bundle}); err != nil {
				t.Fatal(err)
			}
			pid := o.expect(t, specs.StateRunning).Pid
			fd, state := receiveListener(t, l)
			defer unix.Close(fd)
			if state.Pid != pid || state.State.Pid != pid || state.State.ID != "c1" || state.State.Bundle != bundle ||
				state.State.Status != specs.StateCreated || state.Metadata != "meta" || fmt.Sprint(state.Fds) != "[seccompFd]" {
				t.Errorf("told %+v", state)
			}
			go func() { // l.Accept ends it when there was no exec
				fd, state, err := acceptListener(l)
				if err == nil && (state.State.Pid != pid || state.Pid == pid || state.State.Status != specs.StateRunning) {
					t.Errorf("exec: told %+v", state)
				}
				if err == nil {
					answer(fd, syscall.ENOMEDIUM)
					unix.Close(fd)
				}
			}()
			if got := o.said(t, process("probe", "mkdir", "/tmp/x")); !strings.Contains(got, "no medium found") {
				t.Errorf("mkdir that is answered with ENOMEDIUM: %q", got)
			}
		})
	}
}

func receiveListener(t *testing.T, l net.Listener) (int, specs.ContainerProcessState) {
	t.Helper()
	fd, state, err := acceptListener(l)
	if err != nil {
		t.Fatal(err)
	}
	return fd, state
}

func acceptListener(l net.Listener) (fd int, state specs.ContainerProcessState, err error) {
	c, err := l.Accept()
	if err != nil {
		return -1, state, err
	}
	defer c.Close()
	text, oob := make([]byte, 4096), make([]byte, 64)
	n, m, _, _, err := c.(*net.UnixConn).ReadMsgUnix(text, oob)
	if err != nil {
		return -1, state, err
	}
	if err := json.Unmarshal(text[:n], &state); err != nil {
		return -1, state, fmt.Errorf("%q: %w", text[:n], err)
	}
	all, err := unix.ParseSocketControlMessage(oob[:m])
	if err != nil || len(all) != 1 {
		return -1, state, fmt.Errorf("%d messages: %w", len(all), err)
	}
	fds, err := unix.ParseUnixRights(&all[0])
	if err != nil || len(fds) != 1 {
		return -1, state, fmt.Errorf("descriptors %v: %w", fds, err)
	}
	return fds[0], state, nil
}

// answer takes the next call that a filter asks about, and has it fail.
func answer(fd int, with syscall.Errno) {
	const receive, send = 0xc0502100, 0xc0182101 // SECCOMP_IOCTL_NOTIF_*
	var asked [80]byte
	if _, _, e := unix.Syscall(unix.SYS_IOCTL, uintptr(fd), receive, uintptr(unsafe.Pointer(&asked[0]))); e != 0 {
		return
	}
	reply := append(asked[:8:8], make([]byte, 16)...) // its number, and a value
	binary.LittleEndian.PutUint32(reply[16:], uint32(-int32(with)))
	_, _, _ = unix.Syscall(unix.SYS_IOCTL, uintptr(fd), send, uintptr(unsafe.Pointer(&reply[0])))
}
