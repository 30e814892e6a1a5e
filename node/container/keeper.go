package container

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/sampan-dev/sampan/node/container/cgroup"
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
	r    *Runtime
	done chan struct{}

	mu     sync.Mutex
	watch  *net.UnixConn
	closed bool
}

// connect finds or starts the keeper, reconciles what it knows with what the
// records say, and follows its exits from then on.
func (r *Runtime) connect() (*keeperLink, error) {
	l := &keeperLink{r: r, done: make(chan struct{})}
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
		known, err := watchList(c)
		if err == nil {
			return c, known, nil
		}
		c.Close()
		if gone := errors.Is(err, io.EOF) || errors.Is(err, unix.ECONNRESET) || errors.Is(err, unix.EPIPE); !gone || try == maxRespawn {
			return nil, nil, fmt.Errorf("watch: %w", err)
		}
	}
}

// watchList subscribes and reads what the keeper knows.
func watchList(c *net.UnixConn) (map[string]plan.Answer, error) {
	if err := sendMessage(c, plan.Request{Version: plan.Version, Op: plan.Watch}); err != nil {
		return nil, err
	}
	known := map[string]plan.Answer{}
	for {
		var a plan.Answer
		if _, err := recvMessage(c, &a); err != nil {
			return nil, err
		}
		if a.Error != "" {
			return nil, errors.New(a.Error)
		}
		if a.Done {
			return known, nil
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
			if a.Exit != nil {
				l.r.exited(*a.Exit)
			}
			continue
		}
		if l.isClosed() {
			return
		}
		l.r.log.Warn("keeper is gone, starting its successor", "err", err)
		for err = l.open(); err != nil; err = l.open() {
			l.r.log.Error("keeper not started", "err", err)
			if failures++; failures >= maxRespawn {
				time.Sleep(respawnPause)
			}
			if l.isClosed() {
				return
			}
		}
	}
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
	l.closed = true
	if l.watch != nil {
		l.watch.Close()
	}
	l.mu.Unlock()
	<-l.done
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

func (r *Runtime) dial() (*net.UnixConn, error) {
	return net.DialUnix("unixpacket", nil, &net.UnixAddr{Name: r.socketPath(), Net: "unixpacket"})
}

// dialOrSpawn connects to the keeper and starts one when nobody answers. The lock
// keeps two Runtimes from starting two.
func (r *Runtime) dialOrSpawn() (*net.UnixConn, error) {
	lock, err := os.OpenFile(filepath.Join(r.cfg.Run, "keeper.lock"), os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return nil, err
	}
	defer lock.Close()
	if err := unix.Flock(int(lock.Fd()), unix.LOCK_EX); err != nil {
		return nil, fmt.Errorf("lock %q: %w", lock.Name(), err)
	}
	if c, err := r.dial(); err == nil {
		return c, nil
	}
	if err := r.spawn(); err != nil {
		return nil, err
	}
	return r.dial()
}

// spawn starts the keeper from a sealed memfd, in a session and a cgroup of its
// own, with its listening socket as descriptor 3: it can be dialled at once.
func (r *Runtime) spawn() error {
	exe, err := sealed("sampan-keeper", r.cfg.Keeper)
	if err != nil {
		return fmt.Errorf("keeper program: %w", err)
	}
	defer exe.Close()
	socket, err := r.listen()
	if err != nil {
		return err
	}
	defer socket.Close()
	null, err := os.OpenFile(os.DevNull, os.O_RDWR, 0)
	if err != nil {
		return err
	}
	defer null.Close()
	log, err := os.OpenFile(filepath.Join(r.cfg.Run, "keeper.log"), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	defer log.Close()
	p, err := os.StartProcess(fmt.Sprintf("/proc/self/fd/%d", exe.Fd()), []string{"sampan-keeper"}, &os.ProcAttr{
		Dir: "/", Env: []string{"GOMAXPROCS=1", "GODEBUG=containermaxprocs=0,updatemaxprocs=0"},
		Files: []*os.File{null, null, log, socket},
		Sys:   &syscall.SysProcAttr{Setsid: true},
	})
	if err != nil {
		return fmt.Errorf("start keeper: %w", err)
	}
	if g, err := cgroup.Open(filepath.Join(r.cfg.Cgroup, keeperGroup), allDevices(), r.log); err != nil {
		r.log.Warn("keeper stays in our cgroup", "err", err)
	} else if err := errors.Join(g.Create(), g.Add(p.Pid)); err != nil {
		r.log.Warn("keeper stays in our cgroup", "err", err)
	}
	go p.Wait() // nobody else reaps it while we live
	return nil
}

// listen binds the socket before the keeper exists.
func (r *Runtime) listen() (*os.File, error) {
	if err := os.Remove(r.socketPath()); err != nil && !errors.Is(err, os.ErrNotExist) {
		return nil, err
	}
	l, err := net.ListenUnix("unixpacket", &net.UnixAddr{Name: r.socketPath(), Net: "unixpacket"})
	if err != nil {
		return nil, err
	}
	defer l.Close()
	l.SetUnlinkOnClose(false)
	if err := os.Chmod(r.socketPath(), 0o600); err != nil {
		return nil, err
	}
	return l.File()
}

// sealed puts a program into memory where nobody can write to it any more, so
// that no container that gets hold of it changes what the host runs.
func sealed(name string, program []byte) (*os.File, error) {
	if len(program) == 0 {
		return nil, errors.New("is empty")
	}
	fd, err := unix.MemfdCreate(name, unix.MFD_CLOEXEC|unix.MFD_ALLOW_SEALING|unix.MFD_EXEC)
	if errors.Is(err, unix.EINVAL) { // before Linux 6.3
		fd, err = unix.MemfdCreate(name, unix.MFD_CLOEXEC|unix.MFD_ALLOW_SEALING)
	}
	if err != nil {
		return nil, fmt.Errorf("memfd: %w", err)
	}
	f := os.NewFile(uintptr(fd), name)
	if _, err := f.Write(program); err != nil {
		f.Close()
		return nil, err
	}
	const seals = unix.F_SEAL_SEAL | unix.F_SEAL_SHRINK | unix.F_SEAL_GROW | unix.F_SEAL_WRITE
	if _, err := unix.FcntlInt(f.Fd(), unix.F_ADD_SEALS, seals); err != nil {
		f.Close()
		return nil, fmt.Errorf("seal: %w", err)
	}
	return f, nil
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

// recvMessage reads one message and at most one descriptor (-1 for none).
func recvMessage(c *net.UnixConn, v any) (int, error) {
	b := make([]byte, plan.MaxMessage)
	oob := make([]byte, unix.CmsgSpace(4))
	n, oobn, _, _, err := c.ReadMsgUnix(b, oob)
	if err != nil {
		return -1, err
	}
	fd := -1
	if messages, err := unix.ParseSocketControlMessage(oob[:oobn]); err == nil && len(messages) == 1 {
		if fds, err := unix.ParseUnixRights(&messages[0]); err == nil && len(fds) == 1 {
			fd = fds[0]
			unix.CloseOnExec(fd)
		}
	}
	if n == 0 {
		return fd, io.EOF
	}
	return fd, plan.Decode(b[:n], v)
}
