package container

import (
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
	"syscall"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
)

// userPin is the name of a pinned user namespace.
const userPin = "user"

// pinUserNS makes a user namespace for one container and pins it at path.
func (r *Runtime) pinUserNS(maps *IDMappings, path string) error {
	return r.holdNamespaces(unix.CLONE_NEWUSER, maps, nil, func(ns string) error {
		return pinFile(ns+"/"+userPin, path)
	})
}

// holdNamespaces starts a process in new namespaces, one of them a user namespace
// that owns the others, and calls f with their directory while it is there. The
// process sets the sysctls (user/name=value) that only it can.
func (r *Runtime) holdNamespaces(flags uintptr, maps *IDMappings, sysctls []string, f func(ns string) error) error {
	if len(maps.UID) == 0 || len(maps.GID) == 0 {
		return errors.New("user namespace has no id mappings")
	}
	exe, err := r.cfg.Keeper()
	if err != nil {
		return fmt.Errorf("keeper program: %w", err)
	}
	defer exe.Close()
	in, hold, err := os.Pipe()
	if err != nil {
		return err
	}
	defer hold.Close() // a second time is no harm
	said, words, err := os.Pipe()
	if err != nil {
		return errors.Join(err, in.Close())
	}
	defer said.Close()
	p, err := os.StartProcess(fmt.Sprintf("/proc/self/fd/%d", exe.Fd()), append([]string{"sampan-keeper", "hold"}, sysctls...), &os.ProcAttr{
		Dir: "/", Env: []string{"GOMAXPROCS=1"}, Files: []*os.File{in, words, words},
		Sys: &syscall.SysProcAttr{
			Cloneflags: flags, UidMappings: procMaps(maps.UID), GidMappings: procMaps(maps.GID),
			GidMappingsEnableSetgroups: true,
			Credential:                 rootOf(maps),
		},
	})
	in.Close()
	words.Close()
	if err != nil {
		return fmt.Errorf("start a process in a user namespace: %w", err)
	}
	if len(sysctls) > 0 {
		err = heldSysctls(said)
	}
	if err == nil {
		err = f(fmt.Sprintf("/proc/%d/ns", p.Pid))
	}
	hold.Close()
	_, werr := p.Wait()
	return errors.Join(err, werr)
}

// rootOf is the namespace's root: as that, a process keeps what it can do there. The
// mapping of a mount may have none.
func rootOf(maps *IDMappings) *syscall.Credential {
	has := func(m specs.LinuxIDMapping) bool { return m.ContainerID == 0 && m.Size > 0 }
	if slices.ContainsFunc(maps.UID, has) && slices.ContainsFunc(maps.GID, has) {
		return &syscall.Credential{}
	}
	return nil
}

// heldSysctls reads what became of the sysctls: nothing when they are set.
func heldSysctls(said io.Reader) error {
	b, err := io.ReadAll(io.LimitReader(said, maxHeldWords))
	if err != nil {
		return err
	}
	if len(b) > 0 {
		return errors.New(strings.TrimSpace(string(b)))
	}
	return nil
}

// maxHeldWords bounds what the process may have to say.
const maxHeldWords = 4096

func procMaps(in []specs.LinuxIDMapping) []syscall.SysProcIDMap {
	out := make([]syscall.SysProcIDMap, len(in))
	for i, m := range in {
		out[i] = syscall.SysProcIDMap{ContainerID: int(m.ContainerID), HostID: int(m.HostID), Size: int(m.Size)}
	}
	return out
}

// pinFile keeps a namespace alive by a bind mount.
func pinFile(ns, path string) error {
	if err := os.WriteFile(path, nil, 0o400); err != nil {
		return err
	}
	if err := unix.Mount(ns, path, "", unix.MS_BIND, ""); err != nil {
		return fmt.Errorf("pin namespace %q: %w", ns, err)
	}
	return nil
}

// enter joins the namespace behind path with the calling thread.
func enter(path string) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	defer f.Close()
	if err := unix.Setns(int(f.Fd()), 0); err != nil {
		return fmt.Errorf("enter namespace %q: %w", path, err)
	}
	return nil
}
