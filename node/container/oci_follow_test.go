package container

import (
	"fmt"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/sampan-dev/sampan/node/container/cgroup"
)

// TestOCIFollow: a container is measured until it ends, and wants of memory are told,
// though it lives on.
func TestOCIFollow(t *testing.T) {
	limit := int64(32 << 20)
	o, bundle := newOCI(t, func(s *specs.Spec) {
		s.Linux.Resources = &specs.LinuxResources{Memory: &specs.LinuxMemory{Limit: &limit}}
	}, "sleep")
	ctx := t.Context()
	if err := o.Follow("c1", OCIFollow{}); err == nil {
		t.Error("followed without an interval")
	}
	if err := o.Run(ctx, "c1", OCICreate{Bundle: bundle}); err != nil {
		t.Fatal(err)
	}
	s := o.expect(t, specs.StateRunning)
	var heard []string
	err := o.Follow("c1", OCIFollow{
		Interval: time.Millisecond,
		Usage: func(u cgroup.Usage) error {
			if heard = append(heard, "usage"); u.Pids == 0 {
				t.Error("nobody is in it")
			}
			if len(heard) > 1 {
				return nil
			}
			code, err := o.Exec(ctx, "c1", OCIExec{Process: process("probe", "mem", "64")})
			if code != 128+int(syscall.SIGKILL) {
				t.Errorf("a process that took twice the limit ended with %d, %v", code, err)
			}
			return nil
		},
		OOM: func() error {
			heard = append(heard, "oom")
			return syscall.Kill(s.Pid, syscall.SIGKILL)
		},
	})
	if err != nil {
		t.Error(err)
	}
	if heard = slices.Compact(heard); !slices.Equal(heard[:2], []string{"usage", "oom"}) {
		t.Errorf("heard %q", heard)
	}
}

// TestOCIPidFD: whoever listens gets a descriptor of the first process, and of another.
func TestOCIPidFD(t *testing.T) {
	o, bundle := newOCI(t, nil, "sleep")
	path := filepath.Join(bundle, "s")
	l, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	received := func() string {
		c, err := l.Accept()
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		oob := make([]byte, 64)
		_, n, _, _, err := c.(*net.UnixConn).ReadMsgUnix(make([]byte, 64), oob)
		if err != nil {
			t.Fatal(err)
		}
		all, err := unix.ParseSocketControlMessage(oob[:n])
		if err != nil || len(all) != 1 {
			t.Fatal(all, err)
		}
		fds, err := unix.ParseUnixRights(&all[0])
		if err != nil || len(fds) != 1 {
			t.Fatal(fds, err)
		}
		defer unix.Close(fds[0])
		info, err := os.ReadFile(fmt.Sprintf("/proc/self/fdinfo/%d", fds[0]))
		if err != nil {
			t.Fatal(err)
		}
		return string(info)
	}
	if err := o.Create(t.Context(), "c1", OCICreate{Bundle: bundle, PidFD: PidFDSocket(path)}); err != nil {
		t.Fatal(err)
	}
	pid := o.expect(t, specs.StateCreated).Pid
	if info := received(); !slices.Contains(strings.Split(info, "\n"), fmt.Sprintf("Pid:\t%d", pid)) {
		t.Errorf("created: %q, want %d", info, pid)
	}
	pidFile := filepath.Join(bundle, "pid")
	exec := OCIExec{Process: process("probe", "sleep"), Detach: true, PidFile: pidFile, PidFD: PidFDSocket(path)}
	if _, err := o.Exec(t.Context(), "c1", exec); err != nil {
		t.Fatal(err)
	}
	second, err := os.ReadFile(pidFile)
	if info := received(); err != nil || !slices.Contains(strings.Split(info, "\n"), "Pid:\t"+string(second)) {
		t.Errorf("executed: %q, want %s, %v", info, second, err)
	}
}
