package container

import (
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/sampan-dev/sampan/internal/sealed"
	"github.com/sampan-dev/sampan/node/container/cgroup"
)

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
	exe, err := r.cfg.Keeper()
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
	go func() { _, _ = p.Wait() }() // nobody else reaps it while we live
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

// Sealed is a Config.Keeper out of a program's bytes, which are read each time it
// is wanted, and not kept: it puts them into memory where nobody can write to them
// any more, so that no container that gets hold of it changes what the host runs.
func Sealed(read func() ([]byte, error)) func() (*os.File, error) {
	return func() (*os.File, error) {
		program, err := read()
		if err != nil {
			return nil, err
		}
		return inMemory("sampan-keeper", program)
	}
}

// inMemory is a program in a sealed file.
func inMemory(name string, program []byte) (*os.File, error) {
	if len(program) == 0 {
		return nil, errors.New("is empty")
	}
	return sealed.Program(name, func(w io.Writer) error {
		_, err := w.Write(program)
		return err
	})
}
