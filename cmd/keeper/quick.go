package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"
	"sync"
	"syscall"

	"github.com/sampan-dev/sampan/node/container/plan"
	"github.com/sampan-dev/sampan/node/container/plan/steps"
)

// A stage costs a container, and each probe that executes a program in one, the
// start of a Go program. What the ordinary ones have to do is a list of system
// calls that is known beforehand: see package steps. Whatever such a list cannot
// do, or fails at before its program, a stage does again, and says in words what
// is wrong.

// maxLookups bounds how many threads a container can keep waiting by files that do
// not answer.
const maxLookups = 32

// lookups has a place for each look at a container's files.
var lookups = make(chan struct{}, maxLookups) //nolint:gochecknoglobals // the keeper is one process

// selfPath is what a little program is executed as.
var selfPath = "/proc/self/fd/" + strconv.Itoa(steps.Self) //nolint:gochecknoglobals // a constant

// quickLaunch makes a container's first process without a stage.
func (ch *child) quickLaunch(planFD int, stdio []*os.File) error {
	p, err := planOf(planFD)
	if err != nil {
		return err
	}
	build := steps.Init
	if p.Kind == plan.Pause {
		build = steps.Pause
	}
	list, err := build(p)
	if err != nil {
		return err
	}
	files := []uintptr{stdio[0].Fd(), stdio[1].Fd(), stdio[2].Fd()}
	control, pid, pidfd, err := forkList(&ch.c, list, []string{"sampan-init", ch.id}, files)
	if err != nil {
		return err
	}
	var rep plan.Report
	_, err = control.recv(&rep)
	if err == nil && !rep.Ready {
		err = errors.New(rep.Error)
	}
	if err == nil && p.Kind == plan.Init {
		ch.goAhead, err = goAhead(pid, &p.Process)
	}
	if err != nil {
		control.close()
		killAndReap(pidfd)
		return err
	}
	ch.control, ch.pid, ch.pidfd = control, pid, pidfd
	return nil
}

// noteSlow says once why something that a list should do took a stage: that may be
// an old kernel, and then it is so each time.
func noteSlow(err error) {
	if !errors.Is(err, steps.ErrStage) {
		slowNoted.Do(func() { note("a list of calls failed, and a stage does it", err.Error()) })
	}
}

var slowNoted sync.Once //nolint:gochecknoglobals // the keeper is one process

// goAhead is what a first process is started with: it has made its root, where its
// program can be looked up.
func goAhead(pid int, p *plan.Process) ([]byte, error) {
	program, home, err := look("/proc/"+strconv.Itoa(pid)+"/root", p)
	if err != nil {
		return nil, err
	}
	return steps.Go(program, home)
}

func look(root string, p *plan.Process) (program, home string, err error) {
	select {
	case lookups <- struct{}{}:
		defer func() { <-lookups }()
	default:
		return "", "", steps.ErrStage
	}
	fd, err := syscall.Open(root, oPath|syscall.O_DIRECTORY|syscall.O_CLOEXEC, 0)
	if err != nil {
		return "", "", err
	}
	defer syscall.Close(fd)
	return steps.Look(fd, p)
}

// quickExec runs a process in a container without a stage.
func quickExec(r *plan.Request, fds []int, stdio []uintptr) (*os.File, plan.Answer, error) {
	control, pid, pidfd, err := forkExec(r, fds, stdio)
	if err != nil {
		return nil, plan.Answer{}, err
	}
	defer control.close()
	if _, _, _, err := execReports(control); err != nil {
		killAndReap(pidfd)
		return nil, plan.Answer{}, err
	}
	return pidfd, plan.Answer{PID: pid}, nil
}

// forkExec forks a list that becomes a further process of a container.
func forkExec(r *plan.Request, fds []int, stdio []uintptr) (*conn, int, *os.File, error) {
	if r.List {
		return forkFile(r.Child, fds[0], []string{execName}, stdio, uintptr(fds[1]))
	}
	p, err := planOf(fds[0])
	if err != nil {
		return nil, 0, nil, err
	}
	proc, ok := strings.CutSuffix(r.Child.PIDNS, "ns/pid")
	if !ok {
		return nil, 0, nil, steps.ErrStage
	}
	program, home, err := look(proc+"root", &p.Process)
	if err != nil {
		return nil, 0, nil, err
	}
	if ended, _ := pidfdState(fds[1]); ended { // and the number may have been another's
		return nil, 0, nil, steps.ErrStage
	}
	if home != "" {
		p.Process.Env = append(p.Process.Env, "HOME="+home)
	}
	list, err := steps.Exec(p, program)
	if err != nil {
		return nil, 0, nil, err
	}
	return forkList(r.Child, list, []string{execName}, stdio, uintptr(fds[1]))
}

// execName is what ps shows of an exec before its program.
const execName = "sampan-exec"

// forkList executes a list in the namespaces that must exist before it does. It
// finds control after its stdio, itself, and then more.
func forkList(c *plan.Child, list []byte, argv []string, stdio []uintptr, more ...uintptr) (*conn, int, *os.File, error) {
	exe, err := memfd(argv[0], list)
	if err != nil {
		return nil, 0, nil, err
	}
	defer syscall.Close(exe)
	return forkFile(c, exe, argv, stdio, more...)
}

// forkFile is forkList of one that has been written.
func forkFile(c *plan.Child, exe int, argv []string, stdio []uintptr, more ...uintptr) (*conn, int, *os.File, error) {
	control, theirs, err := pair()
	if err != nil {
		return nil, 0, nil, err
	}
	defer theirs.Close()
	files := append(append(stdio[:3:3], theirs.Fd(), uintptr(exe)), more...)
	pid, pidfd, err := fork(c, program{selfPath, argv}, files)
	if err != nil {
		control.close()
		return nil, 0, nil, err
	}
	return control, pid, pidfd, nil
}

func planOf(fd int) (*plan.Plan, error) {
	var st syscall.Stat_t
	if err := syscall.Fstat(fd, &st); err != nil {
		return nil, err
	}
	if st.Size > maxPlan {
		return nil, fmt.Errorf("a plan of %d bytes", st.Size)
	}
	b := make([]byte, st.Size)
	n, err := syscall.Pread(fd, b, 0)
	if err != nil {
		return nil, err
	}
	p := &plan.Plan{}
	return p, json.Unmarshal(b[:n], p)
}
