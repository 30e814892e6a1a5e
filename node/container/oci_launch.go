package container

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/sampan-dev/sampan/node/container/plan"
)

// stage is what launch needs besides the plan.
type stage struct {
	stdio   [3]*os.File
	console func(master *os.File) error
	target  *os.File // exec: the pidfd of the container
	// preserved are further descriptors of the program.
	preserved []*os.File
	// hooks runs those of the creator, and gives the state that the container's read.
	hooks func(pid int) ([]byte, error)
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

// launch starts a stage as a child of this process. It returns when a container
// is ready to be started, and an exec when its program runs.
func (o *OCI) launch(ctx context.Context, p *plan.Plan, child *plan.Child, s stage) (*os.Process, error) {
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_SEQPACKET|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, os.NewSyscallError("socketpair", err)
	}
	ours, theirs := os.NewFile(uintptr(fds[0]), "control"), os.NewFile(uintptr(fds[1]), "control")
	defer ours.Close()
	conn, err := net.FileConn(ours)
	if err != nil {
		theirs.Close()
		return nil, err
	}
	control := conn.(*net.UnixConn)
	defer control.Close()
	defer context.AfterFunc(ctx, func() { control.Close() })()
	proc, err := o.fork(p, child, s, theirs)
	theirs.Close()
	if err != nil {
		return nil, err
	}
	if err := o.reports(control, p, &s, proc.Pid); err != nil {
		_ = proc.Kill() // it may have ended
		_, _ = proc.Wait()
		return nil, err
	}
	return proc, nil
}

func (o *OCI) fork(p *plan.Plan, child *plan.Child, s stage, control *os.File) (*os.Process, error) {
	exe, err := o.Keeper()
	if err != nil {
		return nil, fmt.Errorf("keeper program: %w", err)
	}
	defer exe.Close()
	file, err := planFileFor(p)
	if err != nil {
		return nil, err
	}
	defer file.Close()
	null, err := os.OpenFile(os.DevNull, os.O_RDWR, 0)
	if err != nil {
		return nil, err
	}
	defer null.Close()
	files := s.stdio[:]
	for i := range files {
		if files[i] == nil || p.Process.TTY {
			files[i] = null
		}
	}
	files = append(files[:3:3], file, control)
	if s.target == nil {
		s.target = null
	}
	files = append(append(files, s.target), s.preserved...)
	attr := &os.ProcAttr{
		Dir: "/", Env: []string{"GOGC=off", "GOMAXPROCS=2"}, Files: files,
		Sys: &syscall.SysProcAttr{Cloneflags: child.Flags, Setsid: true},
	}
	var proc *os.Process
	start := func() (err error) {
		proc, err = os.StartProcess(fmt.Sprintf("/proc/self/fd/%d", exe.Fd()), []string{"sampan-keeper", "stage"}, attr)
		return err
	}
	if child.PIDNS == "" {
		err := start()
		return proc, err
	}
	err = onLostThread(func() error {
		ns, err := os.Open(child.PIDNS)
		if err != nil {
			return err
		}
		defer ns.Close()
		if err := unix.Setns(int(ns.Fd()), unix.CLONE_NEWPID); err != nil {
			return fmt.Errorf("enter pid namespace: %w", err)
		}
		return start()
	})
	return proc, err
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
			return nil
		}
	}
}

// ConsoleSocket hands the tty's master to whoever listens on a unix socket, as
// runtimes do with --console-socket.
func ConsoleSocket(path string) func(master *os.File) error {
	return func(master *os.File) error {
		defer master.Close()
		c, err := net.Dial("unix", path)
		if err != nil {
			return fmt.Errorf("console socket: %w", err)
		}
		defer c.Close()
		if _, _, err := c.(*net.UnixConn).WriteMsgUnix([]byte(master.Name()), unix.UnixRights(int(master.Fd())), nil); err != nil {
			return fmt.Errorf("console socket: %w", err)
		}
		return nil
	}
}
