package main

import (
	"errors"
	"io"
	"os"
	"syscall"

	"github.com/sampan-dev/sampan/node/container/plan"
)

// exec runs a process in a container for as long as the connection stands: it
// answers once when the program runs, and again when it has ended.
func (k *keeper) exec(c *conn, r *plan.Request, fds []int) {
	p, a, master, err := launchExec(r, fds)
	if err != nil {
		a.Error = err.Error()
	}
	a.Version = plan.Version
	var passed []int
	if master >= 0 {
		passed = []int{master}
	}
	serr := c.send(a, passed...)
	closeAll(passed)
	if p == nil {
		return
	}
	if serr != nil {
		_ = pidfdKill(int(p.Fd()), syscall.SIGKILL)
	}
	gone := make(chan struct{})
	go func() {
		defer close(gone)
		killWhenGone(c, p)
	}()
	status, _ := awaitExit(p, a.PID)
	reapNow(p)
	// p stays open until killWhenGone has come back: its number must not be reused.
	_ = c.send(plan.Answer{Exit: &plan.Exit{ID: r.ID, Code: exitCode(status)}})
	c.close()
	<-gone
	p.Close()
}

// killWhenGone ends a process that nobody waits for any more.
func killWhenGone(c *conn, pidfd *os.File) {
	var more plan.Request
	_, _ = c.recv(&more) // returns when either side has closed
	_ = pidfdKill(int(pidfd.Fd()), syscall.SIGKILL)
}

// launchExec forks the stage and waits until it has executed the program.
func launchExec(r *plan.Request, fds []int) (*os.File, plan.Answer, int, error) {
	none := plan.Answer{}
	if r.Child == nil || len(fds) != 2 && len(fds) != maxFDs {
		return nil, none, -1, errors.New("exec takes a child, its plan, a pidfd and three streams unless it has a tty")
	}
	null, err := os.OpenFile(os.DevNull, os.O_RDWR, 0)
	if err != nil {
		return nil, none, -1, err
	}
	defer null.Close()
	files := []uintptr{null.Fd(), null.Fd(), null.Fd()}
	if len(fds) == maxFDs {
		files = []uintptr{uintptr(fds[2]), uintptr(fds[3]), uintptr(fds[4])}
	}
	p, a, err := quickExec(r, fds, files)
	if err == nil {
		return p, a, -1, nil
	}
	noteSlow(err)
	control, theirs, err := pair()
	if err != nil {
		return nil, none, -1, err
	}
	defer control.close()
	files = append(files, uintptr(fds[0]), theirs.Fd(), uintptr(fds[1]))
	pid, pidfd, err := fork(r.Child, stageOf(r.ID), files)
	theirs.Close()
	if err != nil {
		return nil, none, -1, err
	}
	master, notes, code, err := execReports(control)
	if err != nil {
		killAndReap(pidfd)
		return nil, plan.Answer{Code: code}, -1, err
	}
	return pidfd, plan.Answer{PID: pid, Notes: notes}, master, nil
}

// execReports reads what the stage has to say until it has become the program.
func execReports(control *conn) (master int, notes []string, code int, err error) {
	master = -1
	for {
		var rep plan.Report
		got, err := control.recv(&rep)
		if errors.Is(err, io.EOF) {
			return master, notes, 0, nil
		}
		if err == nil && rep.Error != "" {
			err = errors.New(rep.Error)
		}
		if err != nil {
			closeAll(got)
			if master >= 0 {
				syscall.Close(master)
			}
			return -1, notes, rep.Code, err
		}
		notes = append(notes, rep.Notes...)
		if len(got) == 1 {
			master = got[0]
		}
	}
}
