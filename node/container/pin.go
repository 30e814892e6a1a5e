package container

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"
)

// pinNamespaces makes the sandbox's namespaces and pins them. With a user
// namespace the others must belong to it, so a process is started in all of
// them; without, a thread makes them that ends when it is done.
func (r *Runtime) pinNamespaces(s *Sandbox) error {
	flags := s.flags()
	if s.Config.UserNS == nil {
		return onLostThread(func() error {
			if err := unix.Unshare(int(flags)); err != nil {
				return fmt.Errorf("unshare: %w", err)
			}
			return s.pin(fmt.Sprintf("/proc/self/task/%d/ns", unix.Gettid()))
		})
	}
	var params []string
	for name, value := range s.Config.Sysctls {
		if s.ofUsers(name) {
			params = append(params, strings.ReplaceAll(name, ".", "/")+"="+value)
		}
	}
	return r.holdNamespaces(flags, s.Config.UserNS, params, func(ns string) error {
		return onLostThread(func() error {
			for _, name := range []string{"net", "uts", "ipc"} {
				if err := enter(filepath.Join(ns, name)); err != nil {
					return err
				}
			}
			return s.pin(ns)
		})
	})
}

func (s *Sandbox) flags() (flags uintptr) {
	for _, f := range s.pinned() {
		flags |= f
	}
	return flags
}

// pin sets up the namespaces that the calling thread is in, and binds those of
// the directory ns to their files.
func (s *Sandbox) pin(ns string) error {
	flags := s.flags()
	if flags&unix.CLONE_NEWUTS != 0 && s.Config.Hostname != "" {
		if err := unix.Sethostname([]byte(s.Config.Hostname)); err != nil {
			return fmt.Errorf("set hostname %q: %w", s.Config.Hostname, err)
		}
	}
	if flags&unix.CLONE_NEWNET != 0 {
		if err := loopbackUp(); err != nil {
			return fmt.Errorf("bring up lo: %w", err)
		}
	}
	for name, value := range s.Config.Sysctls {
		if s.ofUsers(name) {
			continue
		}
		if err := s.sysctl(name, value); err != nil {
			return err
		}
	}
	for name := range s.pinned() {
		if err := pinFile(filepath.Join(ns, name), filepath.Join(s.dir, name)); err != nil {
			return err
		}
	}
	return nil
}

// ofUsers says that a parameter is the user namespace's: nobody but a process in
// it can write it, and the one that holds the namespaces does.
func (s *Sandbox) ofUsers(name string) bool {
	return s.Config.UserNS != nil && strings.HasPrefix(strings.ReplaceAll(name, ".", "/"), "user/") && !strings.Contains(name, "..")
}

// sysctl writes a parameter of a namespace that the thread has made. One of the
// host's is refused: it would change every pod.
func (s *Sandbox) sysctl(name, value string) error {
	path := strings.ReplaceAll(name, ".", "/")
	net := strings.HasPrefix(path, "net/") && !s.Config.HostNetwork
	ipc := !s.Config.HostIPC && (strings.HasPrefix(path, "kernel/shm") || strings.HasPrefix(path, "kernel/msg") ||
		path == "kernel/sem" || strings.HasPrefix(path, "fs/mqueue/"))
	uts := !s.Config.HostNetwork && path == "kernel/domainname"
	if !net && !ipc && !uts || strings.Contains(path, "..") {
		return fmt.Errorf("sysctl %q is not one of the sandbox's own namespaces", name)
	}
	f, err := os.OpenFile("/proc/sys/"+path, os.O_WRONLY, 0)
	if err != nil {
		return fmt.Errorf("sysctl %q: %w", name, err)
	}
	defer f.Close()
	if _, err := f.WriteString(value); err != nil {
		return fmt.Errorf("sysctl %q to %q: %w", name, value, err)
	}
	return nil
}

// loopbackUp brings lo up in the thread's network namespace.
func loopbackUp() error {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	req, err := unix.NewIfreq("lo")
	if err != nil {
		return err
	}
	if err := unix.IoctlIfreq(fd, unix.SIOCGIFFLAGS, req); err != nil {
		return err
	}
	req.SetUint16(req.Uint16() | unix.IFF_UP)
	return unix.IoctlIfreq(fd, unix.SIOCSIFFLAGS, req)
}
