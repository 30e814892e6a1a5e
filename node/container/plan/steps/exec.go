package steps

import (
	"fmt"
	"syscall"

	"github.com/sampan-dev/sampan/node/container/plan"
)

// Exec is a further process in a running container, which becomes the program at
// path. Its descriptors are stdio, Control, Self and Target, and behind these, unless
// groups is zero, the files of all its cgroups, open to be written to.
func Exec(p *plan.Plan, path string, groups int) ([]byte, error) {
	if p.Version != plan.Version || p.Kind != plan.Exec || p.Process.TTY || p.Process.Preserved > 0 {
		return nil, fmt.Errorf("%w: plan of version %d for %q, a terminal or descriptors", ErrStage, p.Version, p.Kind)
	}
	if otherTime(p) {
		return nil, fmt.Errorf("%w: a time namespace", ErrStage)
	}
	if scheduled(&p.Process) {
		return nil, fmt.Errorf("%w: a scheduler or a personality", ErrStage)
	}
	if groups != 0 && groups != len(p.CgroupProcs) {
		return nil, fmt.Errorf("%w: %d files of %d cgroups", ErrStage, groups, len(p.CgroupProcs))
	}
	w := newWorld(p)
	w.opened = groups > 0
	w.begin("sampan-exec")
	var user *value
	if ns := p.Process.UserNS; ns != "" { // the first to be opened: its number is Self's
		fd := w.sys(syscall.SYS_OPENAT, u(atFdcwd), w.str(ns), n(syscall.O_RDONLY|syscall.O_CLOEXEC), n(0)).keep()
		user, w.kept = &fd, Self+1
	}
	const all = syscall.CLONE_NEWNET | syscall.CLONE_NEWIPC | syscall.CLONE_NEWUTS | syscall.CLONE_NEWNS | cloneNewcgroup
	w.sys(sysSetns, n(Target), n(all))
	w.closeOthers()
	w.limits(&p.Process)
	w.sys(syscall.SYS_UMASK, n(umask(&p.Process)))
	w.become(&p.Process, user, program{path: w.str(path), args: w.strs(p.Process.Args), env: w.strs(p.Process.Env), name: p.Process.Args[0]})
	return w.file()
}
