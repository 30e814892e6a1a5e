package container

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"

	"github.com/sampan-dev/sampan/node/container/plan"
)

const (
	// keeperGroup is the keeper's own cgroup below Config.Cgroup, so that whoever
	// stops this process's cgroup does not stop the keeper.
	keeperGroup = "keeper"
	// maxRespawn is how often a keeper that dies is replaced before the Runtime
	// waits for respawnPause between tries.
	maxRespawn   = 5
	respawnPause = 10 * time.Second
)

// keeperLink is the way to the keeper: one connection that watches exits, and one
// more for each call.
type keeperLink struct {
	r       *Runtime
	done    chan struct{} // closed when follow has ended
	closing chan struct{} // closed by close

	// ending are the ends of containers that are being noted.
	ending sync.WaitGroup

	mu     sync.Mutex
	watch  *net.UnixConn
	closed bool
	// idle are connections on which terse requests have been answered, for the next.
	idle []*net.UnixConn

	// level is what the keeper has said of itself: see plan.Level.
	level atomic.Int32

	// settling is held while a keeper is replaced: requests wait until its
	// successor knows every container.
	settling sync.RWMutex
}

// connect finds or starts the keeper, reconciles what it knows with what the
// records say, and follows its exits from then on.
func (r *Runtime) connect() (*keeperLink, error) {
	l := &keeperLink{r: r, done: make(chan struct{}), closing: make(chan struct{})}
	r.keeper = l
	if err := l.open(); err != nil {
		return nil, err
	}
	go l.follow()
	return l, nil
}

// open establishes the watch and brings the containers up to date.
func (l *keeperLink) open() error {
	c, known, err := l.r.watchKeeper()
	if err != nil {
		return fmt.Errorf("keeper: %w", err)
	}
	l.mu.Lock()
	l.watch = c
	closed := l.closed
	l.mu.Unlock()
	if closed {
		return c.Close()
	}
	l.r.reconcile(known)
	return nil
}

// watchKeeper watches a keeper. One that dies while we speak to it is replaced.
func (r *Runtime) watchKeeper() (*net.UnixConn, map[string]plan.Answer, error) {
	for try := 1; ; try++ {
		c, err := r.dialOrSpawn()
		if err != nil {
			return nil, nil, err
		}
		known, level, err := watchList(c)
		if err == nil {
			r.keeper.level.Store(int32(level))
			return c, known, nil
		}
		c.Close()
		if errors.Is(err, plan.ErrVersion) {
			err = r.dismiss()
		}
		if gone := errors.Is(err, io.EOF) || errors.Is(err, unix.ECONNRESET) || errors.Is(err, unix.EPIPE); !gone || try == maxRespawn {
			return nil, nil, fmt.Errorf("watch: %w", err)
		}
	}
}

// dismiss tells a keeper of another version to leave, and returns io.EOF when it
// has: its containers go on, and the next keeper adopts them.
func (r *Runtime) dismiss() error {
	c, err := r.dial()
	if err != nil {
		return err
	}
	defer c.Close()
	if err := sendMessage(c, plan.Request{Version: plan.Version, Op: plan.Shutdown}); err != nil {
		return err
	}
	for err == nil {
		var a plan.Answer
		_, err = recvMessage(c, &a)
	}
	return err
}

// watchList subscribes and reads what the keeper knows, and its level.
func watchList(c *net.UnixConn) (known map[string]plan.Answer, level int, err error) {
	if err := sendMessage(c, plan.Request{Version: plan.Version, Op: plan.Watch}); err != nil {
		return nil, 0, err
	}
	known = map[string]plan.Answer{}
	for {
		var a plan.Answer
		if _, err := recvMessage(c, &a); err != nil {
			return nil, 0, err
		}
		if a.Version != plan.Version && a.ID == "" {
			return nil, 0, plan.ErrVersion
		}
		if a.Error != "" {
			return nil, 0, errors.New(a.Error)
		}
		if a.Done {
			return known, a.Level, nil
		}
		known[a.ID] = a
	}
}

// follow handles exits, and starts a successor when the keeper dies.
func (l *keeperLink) follow() {
	defer close(l.done)
	for failures := 0; ; {
		var a plan.Answer
		_, err := recvMessage(l.conn(), &a)
		if err == nil {
			failures = 0
			if a.Exit != nil { // each is written to the disk: together they take no longer
				l.ending.Go(func() { l.r.exited(*a.Exit) })
			}
			continue
		}
		if l.isClosed() {
			return
		}
		l.r.log.Warn("keeper is gone, starting its successor", "err", err)
		for err = l.replace(); err != nil; err = l.replace() {
			l.r.log.Error("keeper not started", "err", err)
			if failures++; failures >= maxRespawn {
				select {
				case <-l.closing:
				case <-time.After(respawnPause):
				}
			}
			if l.isClosed() {
				return
			}
		}
	}
}

func (l *keeperLink) replace() error {
	l.settling.Lock()
	defer l.settling.Unlock()
	return l.open()
}

func (l *keeperLink) conn() *net.UnixConn {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.watch
}

func (l *keeperLink) isClosed() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.closed
}

func (l *keeperLink) close() {
	l.mu.Lock()
	select {
	case <-l.closing:
	default:
		close(l.closing)
	}
	l.closed = true
	if l.watch != nil {
		l.watch.Close()
	}
	for _, c := range l.idle {
		c.Close()
	}
	l.idle = nil
	l.mu.Unlock()
	<-l.done
	l.ending.Wait()
}

// shutdown asks the keeper to leave and waits until its process has ended, so
// that its cgroup can be removed.
func (l *keeperLink) shutdown(ctx context.Context) error {
	hello, err := l.call(ctx, plan.Request{Op: plan.Hello})
	if err != nil {
		return err
	}
	fd, err := unix.PidfdOpen(hello.PID, unix.PIDFD_NONBLOCK)
	if err != nil {
		return fmt.Errorf("keeper: pidfd: %w", err)
	}
	f := os.NewFile(uintptr(fd), "pidfd")
	defer f.Close()
	l.mu.Lock()
	l.closed = true // its end is no reason to start another
	l.mu.Unlock()
	if _, err := l.call(ctx, plan.Request{Op: plan.Shutdown}); err != nil {
		return err
	}
	defer context.AfterFunc(ctx, func() { f.Close() })()
	raw, err := f.SyscallConn()
	if err != nil {
		return err
	}
	if err := raw.Read(func(fd uintptr) bool {
		p := []unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}
		n, err := unix.Poll(p, 0)
		return err == nil && n > 0
	}); err != nil {
		return fmt.Errorf("keeper: wait for its end: %w", errors.Join(err, ctx.Err()))
	}
	return nil
}

// call makes a request that takes one answer.
func (l *keeperLink) call(ctx context.Context, req plan.Request, fds ...int) (plan.Answer, error) {
	c, err := l.request(req, fds...)
	if err != nil {
		return plan.Answer{}, err
	}
	return l.answer(ctx, c, req)
}

// answer reads the one answer to a request.
func (l *keeperLink) answer(ctx context.Context, c *net.UnixConn, req plan.Request) (plan.Answer, error) {
	defer c.Close()
	stop := context.AfterFunc(ctx, func() { c.Close() })
	defer stop()
	var a plan.Answer
	if _, err := recvMessage(c, &a); err != nil {
		if ctx.Err() != nil {
			err = context.Cause(ctx)
		}
		return a, fmt.Errorf("keeper: %s %q: %w", req.Op, req.ID, err)
	}
	for _, n := range a.Notes {
		l.r.log.Warn("tolerated", "id", req.ID, "what", n)
	}
	if a.Error != "" {
		return a, errors.New(a.Error)
	}
	return a, nil
}

// request opens a connection and sends a request on it.
func (l *keeperLink) request(req plan.Request, fds ...int) (*net.UnixConn, error) {
	l.settling.RLock()
	defer l.settling.RUnlock()
	return l.requestNow(req, fds...)
}

// requestNow is request for whoever settles things.
func (l *keeperLink) requestNow(req plan.Request, fds ...int) (*net.UnixConn, error) {
	c, err := l.r.dial()
	if err != nil {
		return nil, fmt.Errorf("keeper: %w", err)
	}
	req.Version = plan.Version
	if err := sendMessage(c, req, fds...); err != nil {
		c.Close()
		return nil, fmt.Errorf("keeper: %s %q: %w", req.Op, req.ID, err)
	}
	return c, nil
}

func sendMessage(c *net.UnixConn, v any, fds ...int) error {
	b, err := plan.Encode(v)
	if err != nil {
		return err
	}
	var oob []byte
	if len(fds) > 0 {
		oob = unix.UnixRights(fds...)
	}
	_, _, err = c.WriteMsgUnix(b, oob, nil)
	return err
}

// messages are buffers for what the keeper says, which is decoded at once: one for
// each call would be most of a probe's garbage.
var messages = sync.Pool{New: func() any { return new([plan.MaxMessage]byte) }} //nolint:gochecknoglobals // holds nothing

// recvMessage reads one message and at most one descriptor (-1 for none).
func recvMessage(c *net.UnixConn, v any) (int, error) {
	buffer := messages.Get().(*[plan.MaxMessage]byte)
	defer messages.Put(buffer)
	b := buffer[:]
	oob := make([]byte, unix.CmsgSpace(4))
	n, oobn, _, _, err := c.ReadMsgUnix(b, oob)
	if err != nil {
		return -1, err
	}
	fd := -1
	if control, err := unix.ParseSocketControlMessage(oob[:oobn]); err == nil && len(control) == 1 {
		if fds, err := unix.ParseUnixRights(&control[0]); err == nil && len(fds) == 1 {
			fd = fds[0]
			unix.CloseOnExec(fd)
		}
	}
	if n == 0 {
		return fd, io.EOF
	}
	return fd, plan.Decode(b[:n], v)
}
