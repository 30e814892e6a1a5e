package main

import (
	"errors"
	"fmt"
	"io"
	"os"
	"runtime/debug"
	"sync"
	"syscall"
	"time"

	"github.com/sampan-dev/sampan/node/container/plan"
)

// maxBacklog is how many exits a watcher may fall behind before it is cut off
// and must watch again.
const maxBacklog = 256

// keeper holds the children. The mutex guards both maps and nothing that waits.
type keeper struct {
	mu       sync.Mutex
	children map[string]*child
	watchers map[chan plan.Exit]struct{}
}

func newKeeper() *keeper {
	return &keeper{children: map[string]*child{}, watchers: map[chan plan.Exit]struct{}{}}
}

// serve answers requests on the listening socket fd until Shutdown.
func (k *keeper) serve(fd int) error {
	syscall.CloseOnExec(fd)
	l, err := newConn(fd)
	if err != nil {
		return err
	}
	for {
		c, err := l.accept()
		if errors.Is(err, syscall.ECONNABORTED) || errors.Is(err, syscall.EINTR) {
			continue
		}
		if short(err) { // whoever connects waits until there is room again
			note("accept", err.Error())
			time.Sleep(shortPause)
			continue
		}
		if err != nil {
			return err
		}
		go k.answer(c)
	}
}

// shortPause is how long the keeper waits when it lacks what a connection takes: the
// kernel does not tell when there is some again.
const shortPause = 100 * time.Millisecond

// short says whether the machine or the process has too little of something now. The
// parent of every container does not end for that.
func short(err error) bool {
	return errors.Is(err, syscall.EMFILE) || errors.Is(err, syscall.ENFILE) || errors.Is(err, syscall.ENOMEM) || errors.Is(err, syscall.ENOBUFS)
}

func (k *keeper) answer(c *conn) {
	defer c.close()
	defer func() { // a bug in one answer must not end the parent of every container
		if p := recover(); p != nil {
			note("bug", fmt.Sprint(p)+"\n"+string(debug.Stack()))
		}
	}()
	for o := receive(c); o != nil; {
		o = k.follow(c, o)
	}
}

// order is a request with its descriptors.
type order struct {
	r   plan.Request
	fds []int
	err error
}

func receive(c *conn) *order {
	o := &order{}
	o.fds, o.err = c.recv(&o.r)
	return o
}

// close lets go of the descriptors, once.
func (o *order) close() {
	closeAll(o.fds)
	o.fds = nil
}

// follow does what is ordered, and gives the order that comes next, if one may.
func (k *keeper) follow(c *conn, o *order) *order {
	defer o.close()
	r := &o.r
	if o.err != nil {
		if !errors.Is(o.err, io.EOF) {
			note("request", o.err.Error())
		}
		return nil
	}
	if r.Version != plan.Version && r.Op != plan.Shutdown { // any version may ask us to leave
		_ = c.send(plan.Answer{Version: plan.Version, Error: plan.ErrVersion.Error()})
		return nil
	}
	switch r.Op {
	case plan.Watch:
		k.watch(c)
	case plan.ExecIn:
		return k.exec(c, o)
	case plan.Attach:
		k.attach(c, r.ID, r.Stdin)
	default:
		a, err := k.do(r, o.fds)
		if err != nil {
			a.Error = err.Error()
		}
		a.Version = plan.Version
		if err := c.send(a); err != nil {
			note("answer "+r.ID, err.Error())
			if r.Op == plan.Create && a.Error == "" {
				k.abandon(r.ID)
			}
		}
		if r.Op == plan.Shutdown {
			os.Exit(0) //nolint:gocritic // with it, all descriptors are closed
		}
	}
	return nil
}

// do answers the requests that take one answer.
func (k *keeper) do(r *plan.Request, fds []int) (plan.Answer, error) {
	switch r.Op {
	case plan.Hello, plan.Shutdown:
		return plan.Answer{PID: os.Getpid()}, nil
	case plan.Create:
		return k.create(r, fds)
	case plan.Adopt:
		return k.adopt(r)
	}
	ch := k.find(r.ID)
	if ch == nil {
		return plan.Answer{}, fmt.Errorf("container %q is not known to the keeper", r.ID)
	}
	switch r.Op {
	case plan.Start:
		return ch.start()
	case plan.Forget:
		k.mu.Lock()
		delete(k.children, r.ID)
		k.mu.Unlock()
		ch.release()
		return plan.Answer{}, nil
	case plan.Reopen:
		if ch.out == nil {
			return plan.Answer{}, fmt.Errorf("container %q is still being created", r.ID)
		}
		ch.out.shown()
		return plan.Answer{}, ch.out.reopen()
	}
	return plan.Answer{}, fmt.Errorf("operation %q is not known to the keeper", r.Op)
}

func (k *keeper) find(id string) *child {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.children[id]
}

// add claims an id.
func (k *keeper) add(ch *child) error {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.children[ch.id] != nil {
		return fmt.Errorf("container %q exists already", ch.id)
	}
	k.children[ch.id] = ch
	return nil
}

func (k *keeper) drop(ch *child) {
	k.mu.Lock()
	delete(k.children, ch.id)
	k.mu.Unlock()
}

// watch sends what is known, then every exit. Subscribing and listing are one
// step, so that no exit falls between. What is still being made is not known yet:
// its creator will be told, and with nobody to tell it goes.
func (k *keeper) watch(c *conn) {
	exits := make(chan plan.Exit, maxBacklog)
	k.mu.Lock()
	known := make([]plan.Answer, 0, len(k.children))
	for _, ch := range k.children {
		if ch.settled {
			known = append(known, ch.answer())
		}
	}
	k.watchers[exits] = struct{}{}
	k.mu.Unlock()
	defer func() {
		k.mu.Lock()
		delete(k.watchers, exits)
		k.mu.Unlock()
	}()
	for _, a := range append(known, plan.Answer{Version: plan.Version, Done: true, PID: os.Getpid(), Level: plan.Level}) {
		if c.send(a) != nil {
			return
		}
	}
	gone := make(chan struct{})
	go func() {
		defer close(gone)
		var r plan.Request
		_, _ = c.recv(&r) // nothing more is expected: this returns when the other side is gone
	}()
	for {
		select {
		case <-gone:
			return
		case e, ok := <-exits:
			if !ok || c.send(plan.Answer{ID: e.ID, Exit: &e}) != nil {
				return
			}
		}
	}
}

// tell hands an exit to every watcher; one that is too slow loses its connection.
func (k *keeper) tell(ch *child, e plan.Exit) {
	k.mu.Lock()
	defer k.mu.Unlock()
	ch.exit = &e
	for w := range k.watchers {
		select {
		case w <- e:
		default:
			close(w)
			delete(k.watchers, w)
		}
	}
}
