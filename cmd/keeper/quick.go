package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"slices"
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
	c := ch.c
	l := little{child: &c, argv: []string{"sampan-init", ch.id}, stdio: []uintptr{stdio[0].Fd(), stdio[1].Fd(), stdio[2].Fd()}}
	if fd := bare(); fd >= 0 && steps.Bare(p) {
		l.mounts = fd
		c.Flags &^= syscall.CLONE_NEWNS
	}
	list, err := firstList(p, l.mounts > 0)
	if err != nil {
		return err
	}
	control, pid, pidfd, err := l.list(list)
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

func firstList(p *plan.Plan, bare bool) ([]byte, error) {
	if p.Kind == plan.Pause {
		return steps.Pause(p)
	}
	return steps.Init(p, bare)
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
	l := little{child: r.Child, argv: []string{execName}, stdio: stdio, target: fds[1], brief: r.Brief}
	if r.List {
		l.groups = fds[maxFDs:]
		return l.file(fds[0])
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
	list, err := steps.Exec(p, program, 0)
	if err != nil {
		return nil, 0, nil, err
	}
	return l.list(list)
}

// execName is what ps shows of an exec before its program.
const execName = "sampan-exec"

// little is a little program to be forked in the namespaces that must exist before it
// does. It finds control after its stdio, itself, and then the target.
type little struct {
	child *plan.Child
	argv  []string
	stdio []uintptr
	// target is the pidfd of a process in whose pid namespace it is born, and whose
	// others it enters by itself; 0 is for none.
	target int
	// mounts is a mount namespace that it enters by itself; 0 is for none.
	mounts int
	// groups are the files of its cgroups, behind the target.
	groups []int
	// brief says that control is read when it has ended, and not before.
	brief bool
}

// list forks a list.
func (l little) list(list []byte) (*conn, int, *os.File, error) {
	exe, err := memfd(l.argv[0], list)
	if err != nil {
		return nil, 0, nil, err
	}
	defer syscall.Close(exe)
	return l.file(exe)
}

// file forks a list that has been written.
func (l little) file(exe int) (*conn, int, *os.File, error) {
	connect := pair
	if l.brief {
		connect = quietPair
	}
	control, theirs, err := connect()
	if err != nil {
		return nil, 0, nil, err
	}
	defer theirs.Close()
	files := slices.Concat(l.stdio[:3], []uintptr{theirs.Fd(), uintptr(exe)})
	if other := max(l.target, l.mounts); other > 0 { // never both
		files = append(files, uintptr(other))
	}
	for _, fd := range l.groups {
		files = append(files, uintptr(fd))
	}
	pid, pidfd, err := fork(l.child, program{selfPath, l.argv, l.target}, files)
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
