package container

import (
	"fmt"
	"maps"
	"os"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/sampan-dev/sampan/node/container/plan"
)

// planSysctls puts the kernel parameters of a spec into the plan, by their paths below
// /proc/sys. One that is not of a namespace of the container's own would change the whole
// machine, and is refused as runc and crun refuse it. users says that it has users of its
// own; the other namespaces are in the plan already.
func planSysctls(p *plan.Plan, sysctls map[string]string, users bool) error {
	for _, name := range slices.Sorted(maps.Keys(sysctls)) {
		path := sysctlPath(name)
		if path == "kernel/hostname" || path == "kernel/domainname" && p.Domainname != "" {
			return fmt.Errorf("sysctl %q is not allowed: the spec has a field for it", name)
		}
		flag, kind := sysctlNamespace(path)
		if kind == "" || strings.Contains("/"+path+"/", "/../") {
			return fmt.Errorf("sysctl %q is not in a separate kernel namespace", name)
		}
		if own := users && flag == unix.CLONE_NEWUSER || apart(p, flag, kind); !own {
			return fmt.Errorf("sysctl %q is not allowed in the host's %s namespace", name, kind)
		}
		if p.Sysctls == nil {
			p.Sysctls = make(map[string]string, len(sysctls))
		}
		p.Sysctls[path] = sysctls[name]
	}
	return nil
}

// sysctlPath is where a kernel parameter is below /proc/sys. As with sysctl(8), the first
// separator in a name says which of . and / separates; the other one is part of the words
// between, where it stands for a dot.
func sysctlPath(name string) string {
	if i := strings.IndexAny(name, "./"); i < 0 || name[i] == '/' {
		return name
	}
	return strings.NewReplacer(".", "/", "/", ".").Replace(name)
}

// sysctlNamespace is the namespace that has a parameter of its own, and its name in /proc.
func sysctlNamespace(path string) (flag uintptr, kind string) {
	switch path {
	case "kernel/msgmax", "kernel/msgmnb", "kernel/msgmni", "kernel/sem",
		"kernel/shmall", "kernel/shmmax", "kernel/shmmni", "kernel/shm_rmid_forced":
		return unix.CLONE_NEWIPC, "ipc"
	case "kernel/domainname":
		return unix.CLONE_NEWUTS, "uts"
	}
	top, _, _ := strings.Cut(path, "/")
	switch {
	case strings.HasPrefix(path, "fs/mqueue/"):
		return unix.CLONE_NEWIPC, "ipc"
	case top == "net":
		return unix.CLONE_NEWNET, "net"
	case top == "user":
		return unix.CLONE_NEWUSER, "user"
	}
	return 0, ""
}

// apart says that a container makes a namespace, or joins one that is not ours.
func apart(p *plan.Plan, flag uintptr, kind string) bool {
	if p.Unshare&flag != 0 {
		return true
	}
	for _, j := range p.Joins {
		if j.Flag != flag {
			continue
		}
		theirs, err := os.Stat(j.Path)
		ours, oerr := os.Stat(ourNamespaces + kind)
		return err != nil || oerr != nil || !os.SameFile(theirs, ours) // where there is none the join says so
	}
	return false
}
