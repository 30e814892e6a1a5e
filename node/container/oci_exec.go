package container

import (
	"context"
	"fmt"
	"os"

	specs "github.com/opencontainers/runtime-spec/specs-go"

	"github.com/sampan-dev/sampan/node/container/cgroup"
	"github.com/sampan-dev/sampan/node/container/plan"
)

// OCIExec are the options of exec.
type OCIExec struct {
	Process *specs.Process
	PidFile string
	Console func(master *os.File) error
	// PidFD, when there is one, hears of the process. See PidFDSocket.
	PidFD func(pid int) error
	// Cgroups are groups below the container's that it runs in: a path, or with cgroup v1
	// controllers, a colon and a path.
	Cgroups []string
	// Detach returns as soon as the process runs; the code is 0 then.
	Detach bool
	// Started hears of the process, when there is somebody to pass signals on, and may
	// stay until it has ended. The number is the process's own until Exec returns.
	Started func(pid int)
	Stdio   [3]*os.File
	// Frozen allows an exec in a paused container: it begins when that goes on.
	Frozen    bool
	Preserved []*os.File
}

// Exec is `exec`: it returns the exit code of the process. As with runc, the container
// may also be created alone, as hooks of others want it.
func (o *OCI) Exec(ctx context.Context, id string, opt OCIExec) (int, error) {
	rec, err := o.load(id)
	if err != nil {
		return -1, err
	}
	switch s := o.state(rec).Status; {
	case s == Paused && !opt.Frozen: // in runc's words
		return -1, fmt.Errorf("cannot exec in a paused container (use --ignore-paused to override): container %q: %w", id, ErrState)
	case s == specs.StateStopped:
		return -1, fmt.Errorf("exec in container %q: is %s: %w", id, s, ErrState)
	}
	r := o.runtime()
	c := &container{r: r, filePlan: r.file(id, planFile)}
	c.rec = record{ID: id, State: Running, PID: rec.PID, Ticks: rec.Ticks, Boot: rec.Boot}
	p, err := c.execPlan(ExecConfig{Process: opt.Process, TTY: opt.Process.Terminal})
	if err != nil {
		return -1, fmt.Errorf("exec in container %q: %w", id, err)
	}
	target, err := c.pidfd()
	if err != nil {
		return -1, fmt.Errorf("exec in container %q: %w", id, err)
	}
	t := os.NewFile(uintptr(target), "pidfd")
	defer t.Close()
	child := &plan.Child{PIDNS: fmt.Sprintf("/proc/%d/ns/pid", rec.PID), Cgroup: rec.Born}
	if len(opt.Cgroups) > 0 {
		g, err := cgroup.Open(rec.Cgroup, nil, r.log)
		if err != nil {
			return -1, err
		}
		if child.Cgroup, p.CgroupProcs, err = g.JoinBelow(opt.Cgroups); err != nil {
			return -1, fmt.Errorf("exec in container %q: %w", id, err)
		}
	}
	p.Process.Preserved = len(opt.Preserved)
	pid, err := o.launch(ctx, p, child, stage{stdio: opt.Stdio, console: opt.Console, target: t, preserved: opt.Preserved})
	if err != nil {
		return codeOf(err), fmt.Errorf("exec in container %q: %w", id, err)
	}
	if err := (&OCICreate{PidFile: opt.PidFile, PidFD: opt.PidFD}).made(pid); err != nil {
		return -1, err
	}
	if opt.Detach {
		return 0, nil
	}
	if opt.Started != nil {
		opt.Started(pid)
	}
	return waitChild(pid)
}
