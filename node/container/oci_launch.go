package container

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/sampan-dev/sampan/node/container/plan"
	"github.com/sampan-dev/sampan/node/container/plan/steps"
)

// stage is what launch needs besides the plan.
type stage struct {
	stdio   [3]*os.File
	console func(master *os.File) error
	target  *os.File // exec: the pidfd of the container
	// preserved are further descriptors of the program.
	preserved []*os.File
	// forked, when there is one, is called when the process is there, and does its work
	// while that does its own. It calls told when the cgroups are there.
	forked func(pid int, told func() error) error
	// limit, when there is one, makes the cgroups, or waits for nothing when they are there.
	limit func() error
	// hooks runs those of the creator, and gives the state that the container's read.
	hooks func(pid int) ([]byte, error)
	// ready, when there is one, is called when the container is ready to be started,
	// and then it is.
	ready func(pid int) error
}

// launchError is what a stage has reported.
type launchError struct {
	code int
	text string
}

func (e *launchError) Error() string { return e.text }

// codeOf is the exit code that goes with a failed launch.
func codeOf(err error) int {
	var e *launchError
	if errors.As(err, &e) {
		return e.code
	}
	return startFailed
}

// launch starts the first process of a container, or an exec, as a child of this
// process: a list of system calls where that will do, else a stage. It returns when
// a container is ready to be started, or with stage.ready when its program runs,
// and an exec when its program runs.
func (o *OCI) launch(ctx context.Context, p *plan.Plan, child *plan.Child, s stage) (int, error) {
	fd, err := unix.Open(os.DevNull, unix.O_RDWR|unix.O_CLOEXEC, 0)
	if err != nil {
		return 0, &os.PathError{Op: "open", Path: os.DevNull, Err: err}
	}
	null := os.NewFile(uintptr(fd), os.DevNull)
	defer null.Close()
	for i := range s.stdio {
		if s.stdio[i] == nil || p.Process.TTY {
			s.stdio[i] = null
		}
	}
	if s.target == nil {
		s.target = null
	}
	pid, started, err := o.launchList(p, child, &s)
	if err == nil && o.Log != nil {
		o.Log.Debug("a list of calls has begun", "what", p.Kind, "pid", pid)
	}
	if err == nil || started {
		return pid, err
	}
	if s.limit != nil {
		if err := s.limit(); err != nil && !errors.Is(err, steps.ErrStage) {
			return 0, err
		}
	}
	p.CgroupsLate = false
	o.runtime().log.Debug("a stage does what a list of calls cannot", "why", err)
	return o.launchStage(ctx, p, child, s)
}

func (o *OCI) launchStage(ctx context.Context, p *plan.Plan, child *plan.Child, s stage) (int, error) {
	control, theirs, err := controlPair()
	if err != nil {
		return 0, err
	}
	defer control.Close()
	defer context.AfterFunc(ctx, func() { control.Close() })()
	pid, err := o.forkStage(p, child, s, theirs)
	theirs.Close()
	if err != nil {
		return 0, err
	}
	if s.forked != nil {
		err = s.forked(pid, func() error { return nil })
	}
	if err == nil {
		err = o.reports(control, p, &s, pid)
	}
	if err != nil {
		killChild(pid)
		return 0, err
	}
	return pid, nil
}

// controlPair is a control socket, and its other end for a stage.
func controlPair() (control *net.UnixConn, theirs *os.File, err error) {
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_SEQPACKET|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, nil, os.NewSyscallError("socketpair", err)
	}
	ours, theirs := os.NewFile(uintptr(fds[0]), "control"), os.NewFile(uintptr(fds[1]), "control")
	defer ours.Close()
	conn, err := net.FileConn(ours)
	if err != nil {
		theirs.Close()
		return nil, nil, err
	}
	return conn.(*net.UnixConn), theirs, nil
}

// killChild ends and reaps a child of ours; its number is its own until then.
func killChild(pid int) {
	_ = unix.Kill(pid, unix.SIGKILL) // it may have ended
	_, _ = waitChild(pid)
}

// waitChild waits for a child of ours and gives its exit code as a shell does.
func waitChild(pid int) (int, error) {
	var ws unix.WaitStatus
	_, err := unix.Wait4(pid, &ws, 0, nil)
	for errors.Is(err, unix.EINTR) {
		_, err = unix.Wait4(pid, &ws, 0, nil)
	}
	if err != nil {
		return -1, os.NewSyscallError("wait4", err)
	}
	if ws.Signaled() {
		return 128 + int(ws.Signal()), nil
	}
	return ws.ExitStatus(), nil
}

func (o *OCI) forkStage(p *plan.Plan, child *plan.Child, s stage, control *os.File) (int, error) {
	exe, err := o.Keeper()
	if err != nil {
		return 0, fmt.Errorf("keeper program: %w", err)
	}
	defer exe.Close()
	file, err := planFileFor(p)
	if err != nil {
		return 0, err
	}
	defer file.Close()
	files := []uintptr{s.stdio[0].Fd(), s.stdio[1].Fd(), s.stdio[2].Fd(), file.Fd(), control.Fd(), s.target.Fd()}
	for _, f := range s.preserved {
		files = append(files, f.Fd())
	}
	self, err := outOfTheWay(exe, files)
	if err != nil {
		return 0, err
	}
	defer unix.Close(self)
	return forkChild(child, fmt.Sprintf("/proc/self/fd/%d", self), []string{"sampan-keeper", "stage"}, files)
}

// outOfTheWay duplicates the descriptor of a program to a number that a child which gets
// files has nothing at, neither in the end nor while they are moved: a fork puts some of
// them, and its own pipe, right above the highest first.
func outOfTheWay(exe *os.File, files []uintptr) (int, error) {
	highest := uintptr(len(files))
	for _, f := range files {
		highest = max(highest, f)
	}
	self, err := unix.FcntlInt(exe.Fd(), unix.F_DUPFD_CLOEXEC, int(highest)+len(files)+2)
	if err != nil {
		return -1, fmt.Errorf("duplicate the descriptor of %q: %w", exe.Name(), err)
	}
	return self, nil
}

// forkChild starts a program in the namespaces, and in the cgroup of the unified
// hierarchy, that must be there before it.
func forkChild(c *plan.Child, path string, argv []string, files []uintptr) (pid int, err error) {
	attr := &syscall.ProcAttr{
		Dir: "/", Env: []string{"GOGC=off", "GOMAXPROCS=2", "GODEBUG=containermaxprocs=0,updatemaxprocs=0"}, Files: files,
		Sys: &syscall.SysProcAttr{Cloneflags: c.Flags, Setsid: true},
	}
	fork := func() error {
		pid, err = forkInto(c.Cgroup, path, argv, attr)
		return err
	}
	if c.PIDNS == "" {
		return pid, fork()
	}
	return pid, onLostThread(func() error {
		ns, err := os.Open(c.PIDNS)
		if err != nil {
			return err
		}
		defer ns.Close()
		if err := unix.Setns(int(ns.Fd()), unix.CLONE_NEWPID); err != nil {
			return fmt.Errorf("enter pid namespace: %w", err)
		}
		return fork()
	})
}

// forkInto forks into a cgroup. Where the kernel cannot (before Linux 5.7, or with
// clone3 forbidden) the child is moved there, which takes longer.
func forkInto(group, path string, argv []string, attr *syscall.ProcAttr) (int, error) {
	if group == "" {
		return syscall.ForkExec(path, argv, attr)
	}
	dir, err := unix.Open(group, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return 0, &os.PathError{Op: "open", Path: group, Err: err}
	}
	defer unix.Close(dir)
	attr.Sys.UseCgroupFD, attr.Sys.CgroupFD = true, dir
	pid, err := syscall.ForkExec(path, argv, attr)
	if err == nil {
		return pid, nil
	}
	attr.Sys.UseCgroupFD = false
	if pid, err = syscall.ForkExec(path, argv, attr); err != nil {
		return 0, err
	}
	if err := os.WriteFile(filepath.Join(group, "cgroup.procs"), []byte(strconv.Itoa(pid)), 0); err != nil {
		killChild(pid)
		return 0, err
	}
	return pid, nil
}

// reports reads what the stage says: for a container until it is ready, for an
// exec until its socket closes because the program runs.
func (o *OCI) reports(control *net.UnixConn, p *plan.Plan, s *stage, pid int) error {
	for {
		var rep plan.Report
		master, err := recvMessage(control, &rep)
		if errors.Is(err, io.EOF) && p.Kind == plan.Exec {
			return nil
		}
		if err != nil {
			return fmt.Errorf("the first process ended before it was ready: %w", err)
		}
		for _, n := range rep.Notes {
			o.runtime().log.Warn("tolerated", "what", n)
		}
		if rep.Error != "" {
			return &launchError{rep.Code, rep.Error}
		}
		if master >= 0 {
			if s.console == nil {
				unix.Close(master)
				return errors.New("a terminal needs a console socket")
			}
			if err := s.console(os.NewFile(uintptr(master), "/dev/ptmx")); err != nil {
				return err
			}
		}
		if rep.Hooks {
			state, err := s.hooks(pid)
			if err != nil {
				return err
			}
			if _, err := control.Write(state); err != nil {
				return fmt.Errorf("tell the state: %w", err)
			}
		}
		if rep.Ready && p.Kind == plan.Init {
			if s.ready == nil {
				return nil
			}
			if err := s.ready(pid); err != nil {
				return err
			}
			return o.goOn(control)
		}
	}
}

// goOn starts a container that waits at its control socket, and returns when its
// program runs.
func (o *OCI) goOn(control *net.UnixConn) error {
	if err := sendMessage(control, plan.Report{Ready: true}); err != nil {
		return err
	}
	var rep plan.Report
	_, err := recvMessage(control, &rep)
	if errors.Is(err, io.EOF) || errors.Is(err, unix.ECONNRESET) {
		return nil // close-on-exec
	}
	if err != nil {
		return err
	}
	return &launchError{rep.Code, rep.Error}
}

// ConsoleSocket hands the tty's master to whoever listens on a unix socket, as
// runtimes do with --console-socket.
func ConsoleSocket(path string) func(master *os.File) error {
	return func(master *os.File) error {
		defer master.Close()
		return sendFile("console socket", path, master.Name(), master)
	}
}

// PidFDSocket hands a descriptor of a process to whoever listens on a unix socket, as
// runc does with --pidfd-socket. The process need not be a child of who gets it.
func PidFDSocket(path string) func(pid int) error {
	return func(pid int) error {
		fd, err := unix.PidfdOpen(pid, 0)
		if err != nil {
			return fmt.Errorf("pidfd socket: %w", os.NewSyscallError("pidfd_open", err))
		}
		f := os.NewFile(uintptr(fd), "pidfd")
		defer f.Close()
		return sendFile("pidfd socket", path, f.Name(), f)
	}
}

// sendFile sends a descriptor with a text to a unix socket.
func sendFile(what, path, text string, f *os.File) error {
	c, err := net.Dial("unix", path)
	if err != nil {
		return fmt.Errorf("%s: %w", what, err)
	}
	defer c.Close()
	if _, _, err := c.(*net.UnixConn).WriteMsgUnix([]byte(text), unix.UnixRights(int(f.Fd())), nil); err != nil {
		return fmt.Errorf("%s: %w", what, err)
	}
	return nil
}

// nulls says which of the streams are the null device: in the container they are its own,
// as with runc, whose checkpoints know no file of the host's.
func nulls(stdio [3]*os.File, tty bool) (bits uint8) {
	if tty {
		return 0
	}
	for i, f := range stdio {
		var st unix.Stat_t
		if f == nil || unix.Fstat(int(f.Fd()), &st) == nil && st.Mode&unix.S_IFMT == unix.S_IFCHR && st.Rdev == unix.Mkdev(1, 3) {
			bits |= 1 << i
		}
	}
	return bits
}
