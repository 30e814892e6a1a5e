package main

import (
	"errors"
	"fmt"
	"io"
	"os"
	"strconv"
	"strings"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/sampan-dev/sampan/node/container/plan"
)

// child is a container's first process.
type child struct {
	id      string
	c       plan.Child
	pid     int
	started uint64
	pidfd   *os.File
	// control leads to the stage until it has executed the program.
	control *conn
	// goAhead is what a little program is started with; nil is for a stage.
	goAhead []byte
	created atomic.Bool
	out     *output
	exit    *plan.Exit // guarded by keeper.mu
	// settled says that it has been made, or adopted; guarded by keeper.mu.
	settled bool
}

func (ch *child) answer() plan.Answer {
	return plan.Answer{ID: ch.id, PID: ch.pid, Started: ch.started, Created: ch.created.Load(), Exit: ch.exit}
}

// create forks a stage and waits until it is ready to be started.
func (k *keeper) create(r *plan.Request, fds []int) (plan.Answer, error) {
	if r.Child == nil || len(fds) != 1 {
		return plan.Answer{}, errors.New("create takes a child and the descriptor of its plan")
	}
	ch := &child{id: r.ID, c: *r.Child}
	if err := k.add(ch); err != nil {
		return plan.Answer{}, err
	}
	a, err := k.launch(ch, fds[0])
	if err != nil {
		k.drop(ch)
		ch.release()
		return a, err
	}
	k.settle(ch)
	return a, nil
}

func (k *keeper) settle(ch *child) {
	k.mu.Lock()
	defer k.mu.Unlock()
	ch.settled = true
}

// abandon ends a child whose creator died before it could hear of it: nobody
// else was told of it, and nobody could start it.
func (k *keeper) abandon(id string) {
	ch := k.find(id)
	if ch == nil {
		return
	}
	k.drop(ch)
	ch.release()
	if startTime(ch.pid) == ch.started {
		_ = syscall.Kill(ch.pid, syscall.SIGKILL) // fails when it has ended
	}
}

func (k *keeper) launch(ch *child, planFD int) (plan.Answer, error) {
	out, stdio, err := openOutput(&ch.c)
	ch.out = out
	defer func() { closeFiles(stdio) }()
	if err != nil {
		return plan.Answer{}, err
	}
	if err = ch.quickLaunch(planFD, stdio); err == nil {
		ch.started = startTime(ch.pid)
		return k.launched(ch, nil), nil
	}
	noteSlow(err)
	control, theirs, err := pair()
	if err != nil {
		return plan.Answer{}, err
	}
	ch.control = control
	files := []uintptr{stdio[0].Fd(), stdio[1].Fd(), stdio[2].Fd(), uintptr(planFD), theirs.Fd()}
	pid, pidfd, err := fork(&ch.c, stageOf(ch.id), files)
	theirs.Close()
	if err != nil {
		return plan.Answer{}, err
	}
	ch.pid, ch.started, ch.pidfd = pid, startTime(pid), pidfd
	var rep plan.Report
	got, err := control.recv(&rep)
	if err == nil && rep.Hooks {
		rep, got, err = ch.creatorHooks(rep.Notes)
	}
	if err == nil && rep.Error == "" && rep.Ready && rep.PID > 0 {
		err = ch.standIn(rep.PID)
	}
	if err == nil && rep.Error == "" && rep.Ready {
		if len(got) == 1 {
			ch.out.setMaster(got[0])
		}
		return k.launched(ch, rep.Notes), nil
	}
	closeAll(got)
	killAndReap(pidfd)
	if rep.Error == "" {
		return plan.Answer{}, fmt.Errorf("container %q ended before it was ready: %w%s", ch.id, err, ch.out.lastWords())
	}
	return plan.Answer{Code: rep.Code, Notes: rep.Notes}, errors.New(rep.Error)
}

// launched follows a child that is ready to be started.
func (k *keeper) launched(ch *child, notes []string) plan.Answer {
	ch.created.Store(true)
	ch.out.pump()
	go k.wait(ch)
	a := ch.answer()
	a.Notes = notes
	return a
}

// program is what a fork executes.
type program struct {
	path string
	argv []string
	// target is the pidfd of a process in whose pid namespace it is born; 0 is for
	// whatever the child says.
	target int
}

// stageOf is this very program as a stage.
func stageOf(name string) program {
	return program{path: "/proc/self/exe", argv: []string{"keeper", "stage", name}}
}

// fork starts a program in the namespaces that must exist before it does.
func fork(c *plan.Child, p program, files []uintptr) (pid int, pidfd *os.File, err error) {
	fd := -1
	attr := &syscall.ProcAttr{
		// A stage lives for a millisecond: it need not collect garbage.
		Env:   []string{"GOGC=off", "GOMAXPROCS=1", "GODEBUG=containermaxprocs=0,updatemaxprocs=0"},
		Files: files,
		Sys:   &syscall.SysProcAttr{Cloneflags: c.Flags, Setsid: true, PidFD: &fd},
	}
	start := func() (err error) {
		pid, err = forkInto(c.Cgroup, p, attr)
		return err
	}
	switch {
	case p.target > 0:
		err = inPIDNS(func() error { return os.NewSyscallError("setns", setns(p.target, syscall.CLONE_NEWPID)) }, start)
	case c.PIDNS != "":
		err = inPIDNS(func() error { return enter(c.PIDNS, syscall.CLONE_NEWPID) }, start)
	default:
		err = start()
	}
	if err != nil {
		return 0, nil, fmt.Errorf("fork: %w", err)
	}
	if fd < 0 {
		if fd, err = pidfdOpen(pid); err != nil {
			return 0, nil, fmt.Errorf("pidfd of %d: %w", pid, err)
		}
	}
	return pid, pollFile(fd, "pidfd"), nil
}

// forkInto forks into a cgroup. Where the kernel cannot (before Linux 5.7, or with
// clone3 forbidden) the child is moved there, which takes longer.
func forkInto(cgroup string, p program, attr *syscall.ProcAttr) (int, error) {
	if cgroup == "" {
		return spawn(p.path, p.argv, attr)
	}
	dir, err := openFD(cgroup, oPath|syscall.O_DIRECTORY)
	if err != nil {
		return 0, err
	}
	defer syscall.Close(dir)
	attr.Sys.UseCgroupFD, attr.Sys.CgroupFD = true, dir
	pid, err := spawn(p.path, p.argv, attr)
	if err == nil {
		return pid, nil
	}
	attr.Sys.UseCgroupFD = false
	if pid, err = spawn(p.path, p.argv, attr); err != nil {
		return 0, err
	}
	if err := writeFile(cgroup+"/cgroup.procs", strconv.Itoa(pid)); err != nil {
		_ = syscall.Kill(pid, syscall.SIGKILL)
		var ws syscall.WaitStatus
		_, _ = syscall.Wait4(pid, &ws, 0, nil)
		return 0, err
	}
	return pid, nil
}

// enter joins the namespace behind path with the calling thread.
func enter(path string, flag uintptr) error {
	fd, err := openFD(path, syscall.O_RDONLY)
	if err != nil {
		return err
	}
	defer syscall.Close(fd)
	if err := setns(fd, flag); err != nil {
		return &os.PathError{Op: "setns", Path: path, Err: err}
	}
	return nil
}

// pollFile makes a file of fd that waits in the runtime's poller instead of a thread.
func pollFile(fd int, name string) *os.File {
	syscall.CloseOnExec(fd)
	_ = syscall.SetNonblock(fd, true) // of a valid descriptor it cannot fail
	return os.NewFile(uintptr(fd), name)
}

// start lets a created container execute its program.
func (ch *child) start() (plan.Answer, error) {
	if !ch.created.CompareAndSwap(true, false) {
		return plan.Answer{}, fmt.Errorf("container %q is not in the created state", ch.id)
	}
	defer ch.control.close()
	if err := ch.sayGo(); err != nil {
		return plan.Answer{}, fmt.Errorf("container %q ended before it was started: %w", ch.id, err)
	}
	var rep plan.Report
	_, err := ch.control.recv(&rep)
	if errors.Is(err, io.EOF) || errors.Is(err, syscall.ECONNRESET) {
		return plan.Answer{PID: ch.pid, Started: ch.started}, nil // close-on-exec: the program runs
	}
	if err != nil {
		return plan.Answer{}, err
	}
	return plan.Answer{Code: rep.Code}, errors.New(rep.Error)
}

func (ch *child) sayGo() error {
	if ch.goAhead == nil {
		return ch.control.send(plan.Report{Ready: true})
	}
	b := ch.goAhead
	ch.goAhead = nil
	return ch.control.write(b)
}

// adopt takes over a container whose keeper has died.
func (k *keeper) adopt(r *plan.Request) (plan.Answer, error) {
	if r.Child == nil || r.Child.PID <= 0 {
		return plan.Answer{}, errors.New("adopt takes a child with a pid")
	}
	fd, err := pidfdOpen(r.Child.PID)
	if err != nil {
		return plan.Answer{}, fmt.Errorf("pidfd of %d: %w", r.Child.PID, err)
	}
	ch := &child{id: r.ID, c: *r.Child, pid: r.Child.PID, started: startTime(r.Child.PID), pidfd: pollFile(fd, "pidfd")}
	if ch.started != r.Child.Started {
		ch.pidfd.Close()
		return plan.Answer{}, fmt.Errorf("process %d is another one now", ch.pid)
	}
	if err := k.add(ch); err != nil {
		ch.pidfd.Close()
		return plan.Answer{}, err
	}
	if ch.out, err = reopenOutput(&ch.c); err != nil {
		note("adopt "+ch.id, err.Error())
	}
	ch.out.pump()
	go k.wait(ch)
	k.settle(ch)
	return ch.answer(), nil
}

// wait records the end of a child before it is reaped, and then tells it.
func (k *keeper) wait(ch *child) {
	status, known := awaitExit(ch.pidfd, ch.pid)
	e := plan.Exit{ID: ch.id, Code: exitCode(status), At: time.Now().UnixNano()}
	if !known {
		e.Code, e.Unknown = 255, true
	}
	if err := record(ch.c.ExitFile, e); err != nil {
		note("record exit of "+ch.id, err.Error())
	}
	reapNow(ch.pidfd)
	ch.pidfd.Close()
	ch.created.Store(false)
	ch.out.drained(drainWait)
	k.tell(ch, e)
}

// awaitExit waits until the process behind pidfd has ended and tells how. A child
// stays a zombie for its record to be written.
func awaitExit(pidfd *os.File, pid int) (syscall.WaitStatus, bool) {
	raw, err := pidfd.SyscallConn()
	if err != nil {
		return 0, false
	}
	reaped := false
	_ = raw.Read(func(fd uintptr) bool { // fails only when p is closed, and then nothing was reaped
		var ended bool
		ended, reaped = pidfdState(int(fd))
		return ended
	})
	fd := int(pidfd.Fd())
	if code, status, err := waitPidfd(fd, waitNowait); err == nil {
		const exited, dumped = 1, 3
		switch code {
		case exited:
			return syscall.WaitStatus(status << 8), true
		case dumped:
			return syscall.WaitStatus(status | 0x80), true
		}
		return syscall.WaitStatus(status), true
	}
	return adoptedExit(fd, pid, reaped)
}

// adoptedExit reads the status of a process that is not our child: from its
// zombie, and when its new parent was quicker, from what the kernel remembers
// for the sake of our pidfd (Linux 6.15).
func adoptedExit(fd, pid int, reaped bool) (syscall.WaitStatus, bool) {
	const tries, pause = 20, 5 * time.Millisecond
	for range tries {
		if !reaped {
			if status, ok := zombieStatus(pid); ok {
				return status, true
			}
		}
		if status, ok := pidfdExit(fd); ok || reaped {
			return status, ok
		}
		time.Sleep(pause)
		_, reaped = pidfdState(fd)
	}
	return 0, false
}

// zombieStatus is the last field of a zombie's /proc/PID/stat. The process is not
// reaped, so the pid is still its own.
func zombieStatus(pid int) (syscall.WaitStatus, bool) {
	f := statFields(pid)
	if len(f) < 50 || f[0] != "Z" {
		return 0, false
	}
	n, err := strconv.Atoi(f[49])
	return syscall.WaitStatus(n), err == nil
}

// killAndReap ends a stage that has failed. A zombie left behind would keep its
// pid namespace, and so the container's first process, from ever ending.
func killAndReap(pidfd *os.File) {
	_ = pidfdKill(int(pidfd.Fd()), syscall.SIGKILL) // fails when it has ended
	awaitExit(pidfd, 0)
	reapNow(pidfd)
	pidfd.Close()
}

func reapNow(pidfd *os.File) {
	_, _, _ = waitPidfd(int(pidfd.Fd()), 0) // fails when somebody has been faster
}

// exitCode follows the shell: 128 and the signal for one that was killed.
func exitCode(s syscall.WaitStatus) int {
	if s.Signaled() {
		return 128 + int(s.Signal())
	}
	return s.ExitStatus()
}

// release lets go of everything that belongs to the child, which goes on living.
func (ch *child) release() {
	if ch.control != nil {
		ch.control.close()
	}
	if ch.out != nil {
		ch.out.close()
	}
}

// startTime is field 22 of /proc/PID/stat: with the pid it names a process for
// as long as the machine is up. Zero when there is none.
func startTime(pid int) uint64 {
	f := statFields(pid)
	if len(f) < 20 {
		return 0
	}
	n, _ := strconv.ParseUint(f[19], 10, 64)
	return n
}

// statFields are the fields of /proc/PID/stat from the third, the state, on.
func statFields(pid int) []string {
	b, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/stat")
	if err != nil {
		return nil
	}
	s := string(b)
	return strings.Fields(s[strings.LastIndexByte(s, ')')+1:])
}
