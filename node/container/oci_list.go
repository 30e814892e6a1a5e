package container

import (
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/sampan-dev/sampan/node/container/plan"
	"github.com/sampan-dev/sampan/node/container/plan/steps"
)

// launchList is launch with a list of system calls instead of a stage. Unless it
// has got so far that the container was started, or could not be noted, whatever
// goes wrong can be tried again with a stage.
func (o *OCI) launchList(p *plan.Plan, child *plan.Child, s *stage) (pid int, started bool, err error) {
	list, err := listFor(p, child)
	if err != nil {
		return 0, false, err
	}
	exe, err := unix.MemfdCreate("sampan-init", unix.MFD_CLOEXEC)
	if err != nil {
		return 0, false, os.NewSyscallError("memfd_create", err)
	}
	defer unix.Close(exe)
	if n, err := unix.Write(exe, list); err != nil || n != len(list) {
		return 0, false, fmt.Errorf("write a list of calls: %w", errors.Join(err, unix.EIO))
	}
	control, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_SEQPACKET|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return 0, false, os.NewSyscallError("socketpair", err)
	}
	defer unix.Close(control[0])
	files := []uintptr{s.stdio[0].Fd(), s.stdio[1].Fd(), s.stdio[2].Fd(), uintptr(control[1]), uintptr(exe)}
	if p.Kind == plan.Exec {
		files = append(files, s.target.Fd())
	}
	pid, err = forkChild(child, "/proc/self/fd/"+strconv.Itoa(steps.Self), []string{"sampan-init"}, files)
	unix.Close(control[1])
	if err != nil {
		return 0, false, err
	}
	if s.forked != nil {
		told := func() error {
			if !p.CgroupsLate {
				return nil
			}
			_, err := unix.Write(control[0], []byte{1})
			if errors.Is(err, unix.EPIPE) { // it has ended, and what it has said is read next
				return nil
			}
			return err
		}
		if err := s.forked(pid, told); err != nil {
			killChild(pid)
			return 0, !errors.Is(err, steps.ErrStage), err
		}
	}
	if started, err = followList(p, pid, control[0], s); err != nil {
		killChild(pid)
		return 0, started, err
	}
	return pid, started, nil
}

func listFor(p *plan.Plan, child *plan.Child) ([]byte, error) {
	if p.Kind == plan.Init {
		return steps.Init(p, false)
	}
	proc, ok := strings.CutSuffix(child.PIDNS, "ns/pid")
	if !ok || p.Kind != plan.Exec {
		return nil, steps.ErrStage
	}
	program, home, err := look(proc+"root", &p.Process)
	if err != nil {
		return nil, err
	}
	return execList(p, found{program: program, home: home})
}

// execList is a list for a further process, of which that has been found.
func execList(p *plan.Plan, look found) ([]byte, error) {
	copied := *p
	if look.home != "" {
		copied.Process.Env = append(copied.Process.Env[:len(p.Process.Env):len(p.Process.Env)], "HOME="+look.home)
	}
	return steps.Exec(&copied, look.program, look.groups)
}

// look finds the program and the home directory of a process in a container.
func look(root string, p *plan.Process) (program, home string, err error) {
	fd, err := unix.Open(root, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return "", "", &os.PathError{Op: "open", Path: root, Err: err}
	}
	defer unix.Close(fd)
	return steps.Look(fd, p)
}

// followList tells a first process that is ready what it becomes, and when it is
// to be started now waits until it has.
func followList(p *plan.Plan, pid, control int, s *stage) (started bool, err error) {
	if p.Kind == plan.Exec {
		return false, endOfList(control)
	}
	var rep plan.Report
	if ended, err := report(control, &rep); err != nil || ended || !rep.Ready {
		return false, fmt.Errorf("a list of calls: %s%w", rep.Error, errors.Join(err, unix.EPROTO))
	}
	program, home, err := look("/proc/"+strconv.Itoa(pid)+"/root", &p.Process)
	if err != nil {
		return false, err
	}
	message, err := steps.Go(program, home)
	if err != nil {
		return false, err
	}
	if s.ready != nil {
		if err := s.ready(pid); err != nil {
			return true, err
		}
	}
	if _, err := unix.Write(control, message); err != nil {
		return true, fmt.Errorf("the first process ended before it was started: %w", err)
	}
	if s.ready == nil {
		return true, nil // it waits at its FIFO
	}
	return true, endOfList(control)
}

// endOfList waits until the program runs.
func endOfList(control int) error {
	var rep plan.Report
	if ended, err := report(control, &rep); err != nil || ended {
		return err
	}
	return &launchError{rep.Code, rep.Error}
}

// report reads one message; ended says that there will be none, because the
// program runs.
func report(control int, rep *plan.Report) (ended bool, err error) {
	b := make([]byte, 4096)
	n, err := unix.Read(control, b)
	for errors.Is(err, unix.EINTR) {
		n, err = unix.Read(control, b)
	}
	if err == nil && n == 0 || errors.Is(err, unix.ECONNRESET) {
		return true, nil
	}
	if err != nil {
		return false, err
	}
	return false, plan.Decode(b[:n], rep)
}
