package main

import (
	"errors"
	"io"
	"os"
	"sync"
	"syscall"

	"github.com/sampan-dev/sampan/node/container/plan"
)

// exec runs a process in a container for as long as the connection stands, or, one that
// is kept, until it ends: it answers once when the program runs, unless that is not
// asked for, and again when it has ended. A terse one may be followed by another order.
func (k *keeper) exec(c *conn, o *order) *order {
	r, l := &o.r, &leash{}
	if r.Kept {
		followExec(c, l, o) // nobody watches, and so nobody pulls the leash
		return nil
	}
	next := make(chan *order, 1)
	go func() { next <- l.watch(c) }()
	if r.Brief && r.Child != nil && (len(o.fds) == maxFDs || r.List && len(o.fds) > maxFDs) {
		code, err := briefExec(l, o)
		if err == nil || r.List {
			o.close() // first: the end of its output comes with the news, not after it
			if c.send(briefAnswer(r, code, err)) != nil || !r.Terse {
				return nil
			}
			return <-next
		}
		noteSlow(err)
	}
	followExec(c, l, o)
	return nil
}

func briefAnswer(r *plan.Request, code int, err error) plan.Answer {
	a := plan.Answer{Version: plan.Version, Terse: r.Terse}
	if err != nil {
		noteSlow(err)
		a.Stage, a.Error = true, err.Error()
		return a
	}
	a.Exit = &plan.Exit{ID: r.ID, Code: code}
	return a
}

// followExec is exec of what takes a stage, or a second answer.
func followExec(c *conn, l *leash, o *order) {
	r := &o.r
	p, a, master, err := launchExec(r, o.fds)
	if err != nil {
		a.Error = err.Error()
	}
	a.Version = plan.Version
	if p == nil {
		_ = c.send(a)
		return
	}
	l.hold(p)
	if !r.Brief {
		var passed []int
		if master >= 0 {
			passed = []int{master}
		}
		if c.send(a, passed...) != nil {
			_ = pidfdKill(int(p.Fd()), syscall.SIGKILL)
		}
		closeAll(passed)
	}
	status, _ := awaitExit(p, a.PID)
	reapNow(p)
	_ = c.send(plan.Answer{Exit: &plan.Exit{ID: r.ID, Code: exitCode(status)}})
	l.release()
	p.Close()
}

// leash ends a process when whoever has asked for it goes.
type leash struct {
	mu   sync.Mutex
	p    *os.File // the pidfd, while there is a process
	gone bool
}

// watch returns when either side has closed the connection, or with the order that
// follows. Nobody orders more while a process is on the leash.
func (l *leash) watch(c *conn) *order {
	o := receive(c)
	l.mu.Lock()
	defer l.mu.Unlock()
	if o.err == nil && l.p == nil {
		return o
	}
	o.close()
	l.gone = true
	l.pull()
	return nil
}

// hold puts a process on the leash until release: its pidfd stays open meanwhile.
func (l *leash) hold(p *os.File) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.p = p; l.gone {
		l.pull()
	}
}

func (l *leash) pull() {
	if l.p != nil {
		_ = pidfdKill(int(l.p.Fd()), syscall.SIGKILL) // fails when it has ended
	}
}

func (l *leash) release() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.p = nil
}

// briefExec runs a process to its end without a stage, and gives its exit code. An
// error says that its program did not run.
func briefExec(l *leash, o *order) (int, error) {
	control, pid, p, err := forkExec(&o.r, o.fds, stdioOf(o.fds))
	if err != nil {
		return -1, err
	}
	defer control.close()
	defer p.Close()
	if o.r.List { // nothing else is tried with them: its output ends when it does
		o.close()
	}
	l.hold(p)
	defer l.release()
	status, _ := awaitExit(p, pid)
	reapNow(p)
	// With its end, the socket has been closed or has the reason.
	if _, _, _, err := execReports(control); err != nil {
		return -1, err
	}
	return exitCode(status), nil
}

func stdioOf(fds []int) []uintptr {
	return []uintptr{uintptr(fds[2]), uintptr(fds[3]), uintptr(fds[4])}
}

// launchExec starts a process, with a stage if need be, and waits until it has
// executed the program.
func launchExec(r *plan.Request, fds []int) (*os.File, plan.Answer, int, error) {
	none := plan.Answer{}
	if r.List || r.Child == nil || len(fds) != 2 && len(fds) != maxFDs {
		return nil, none, -1, errors.New("exec takes a child, its plan, a pidfd and three streams unless it has a tty")
	}
	var files []uintptr
	if len(fds) == maxFDs {
		files = stdioOf(fds)
	} else {
		null, err := os.OpenFile(os.DevNull, os.O_RDWR, 0)
		if err != nil {
			return nil, none, -1, err
		}
		defer null.Close()
		files = []uintptr{null.Fd(), null.Fd(), null.Fd()}
	}
	if !r.Brief { // else it has been tried
		p, a, err := quickExec(r, fds, files)
		if err == nil {
			return p, a, -1, nil
		}
		noteSlow(err)
	}
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
