package container

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"sync"
	"time"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/sampan-dev/sampan/internal/atomicfile"
	"github.com/sampan-dev/sampan/node/container/plan"
)

// Size of a terminal in characters.
type Size struct{ Rows, Cols uint16 }

// ExecConfig describes a process to run in a container. Nil streams are /dev/null.
type ExecConfig struct {
	// Process says what to run. Capabilities left nil are the container's.
	Process *specs.Process
	TTY     bool
	Stdin   io.Reader
	Stdout  io.Writer
	Stderr  io.Writer
	Resize  <-chan Size
	// Timeout kills the process; zero means none. ErrTimeout is returned then.
	Timeout time.Duration
}

// ErrTimeout says that a process was killed because its time was over.
var ErrTimeout = errors.New("time is over")

// execDrain is how long output is still read when the process has ended but a
// child of its own holds the pipe.
const execDrain = 2 * time.Second

// execRest is how much is still taken of what lies in the pipe by then: as much as
// one holds, since whoever has it open may print for ever.
const execRest = 64 << 10

// Exec runs a process in a running container and returns its exit code. When it
// cannot be executed the error says why, and the code is 126 or 127.
func (r *Runtime) Exec(ctx context.Context, id string, cfg ExecConfig) (int, error) {
	c, err := r.find(id)
	if err != nil {
		return -1, err
	}
	if s := c.status().State; s != Running {
		return -1, fmt.Errorf("exec in container %q: is %s: %w", id, s, ErrState)
	}
	if cfg.Timeout > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeoutCause(ctx, cfg.Timeout, ErrTimeout)
		defer cancel()
	}
	code, err := r.exec(ctx, c, cfg)
	if err != nil {
		return code, fmt.Errorf("exec in container %q: %w", id, err)
	}
	return code, nil
}

func (r *Runtime) exec(ctx context.Context, c *container, cfg ExecConfig) (int, error) {
	p, err := c.execPlan(cfg)
	if err != nil {
		return -1, err
	}
	file, err := planFileFor(p)
	if err != nil {
		return -1, err
	}
	defer file.Close()
	target, err := c.pidfd()
	if err != nil {
		return -1, err
	}
	defer unix.Close(target)
	fds := []int{int(file.Fd()), target}
	var streams *stdio
	if !cfg.TTY {
		if streams, err = openStdio(cfg); err != nil {
			return -1, err
		}
		defer streams.close()
		for _, f := range streams.theirs {
			fds = append(fds, int(f.Fd()))
		}
	}
	child := &plan.Child{PIDNS: fmt.Sprintf("/proc/%d/ns/pid", c.status().PID), Cgroup: c.cgroupDir()}
	conn, err := r.keeper.request(plan.Request{Op: plan.ExecIn, ID: c.rec.ID, Child: child}, fds...)
	if err != nil {
		return -1, err
	}
	defer conn.Close()
	stop := context.AfterFunc(ctx, func() { conn.Close() }) // the keeper kills it then
	defer stop()
	code, err := r.converse(conn, cfg, streams)
	if ctx.Err() != nil {
		return -1, context.Cause(ctx)
	}
	return code, err
}

func (c *container) cgroupDir() string {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.rec.Runtime != "" { // its parent, which Child is, is elsewhere
		dir, _ := c.group.Join()
		return dir
	}
	return c.rec.Child.Cgroup
}

// execPlan is the container's plan with another process.
func (c *container) execPlan(cfg ExecConfig) (*plan.Plan, error) {
	base, err := c.basePlan()
	if err != nil {
		return nil, err
	}
	proc, err := c.r.planProcess(cfg.Process, nil)
	if err != nil {
		return nil, err
	}
	if cfg.Process.Capabilities == nil {
		proc.Caps = base.Process.Caps
	}
	proc.Seccomp, proc.SeccompFlags = base.Process.Seccomp, base.Process.SeccompFlags
	proc.TTY = cfg.TTY
	proc.UserNS, proc.RootUID, proc.RootGID = base.Process.UserNS, base.Process.RootUID, base.Process.RootGID
	if proc.OOMScoreAdj == nil {
		proc.OOMScoreAdj = base.Process.OOMScoreAdj
	}
	return &plan.Plan{Version: plan.Version, Kind: plan.Exec, CgroupProcs: base.CgroupProcs, Process: *proc}, nil
}

// basePlan is what an exec takes from its container's plan. A probe asks every few
// seconds, so it is read once.
func (c *container) basePlan() (*execBase, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.base != nil {
		return c.base, nil
	}
	base := &execBase{}
	if err := atomicfile.ReadJSON(c.filePlan, base); err != nil {
		return nil, err
	}
	c.base = base
	return base, nil
}

// execBase is the part of a plan that an exec takes from its container.
type execBase struct {
	CgroupProcs []string
	Process     execProcess
}

type execProcess struct {
	Caps             *plan.Caps
	UserNS           string
	RootUID, RootGID int
	Seccomp          []byte
	SeccompFlags     uintptr
	OOMScoreAdj      *int
}

func execBaseOf(p *plan.Plan) execBase {
	x := &p.Process
	return execBase{p.CgroupProcs, execProcess{
		Caps: x.Caps, UserNS: x.UserNS, RootUID: x.RootUID, RootGID: x.RootGID,
		Seccomp: x.Seccomp, SeccompFlags: x.SeccompFlags, OOMScoreAdj: x.OOMScoreAdj,
	}}
}

// converse follows an exec from its start to its end.
func (r *Runtime) converse(conn *net.UnixConn, cfg ExecConfig, streams *stdio) (int, error) {
	var a plan.Answer
	master, err := recvMessage(conn, &a)
	if err != nil {
		return -1, fmt.Errorf("keeper: %w", err)
	}
	if a.Error != "" {
		return a.Code, errors.New(a.Error)
	}
	finish := func() {}
	if streams != nil {
		finish = streams.run(cfg)
	} else if master >= 0 {
		finish = runTTY(master, cfg)
	}
	var end plan.Answer
	_, err = recvMessage(conn, &end)
	if err == nil && end.Exit == nil {
		err = io.ErrUnexpectedEOF
	}
	finish()
	if err != nil {
		return -1, fmt.Errorf("keeper: %w", err)
	}
	return end.Exit.Code, nil
}

// stdio are the pipes of an exec: ours and the process's.
type stdio struct {
	theirs []*os.File
	ours   [3]*os.File
}

func openStdio(cfg ExecConfig) (*stdio, error) {
	s := &stdio{}
	for i, wanted := range []bool{cfg.Stdin != nil, cfg.Stdout != nil, cfg.Stderr != nil} {
		if !wanted {
			null, err := os.OpenFile(os.DevNull, os.O_RDWR, 0)
			if err != nil {
				s.close()
				return nil, err
			}
			s.theirs = append(s.theirs, null)
			continue
		}
		r, w, err := os.Pipe()
		if err != nil {
			s.close()
			return nil, err
		}
		if i == 0 {
			s.theirs, s.ours[i] = append(s.theirs, r), w
		} else {
			s.theirs, s.ours[i] = append(s.theirs, w), r
		}
	}
	return s, nil
}

// run copies the streams; the returned function waits for the output to end.
func (s *stdio) run(cfg ExecConfig) func() {
	for _, f := range s.theirs {
		f.Close()
	}
	s.theirs = nil
	if in := s.ours[0]; in != nil {
		go func() {
			_, _ = io.Copy(in, cfg.Stdin) // either side may end first
			in.Close()
		}()
	}
	var out sync.WaitGroup
	for i, w := range []io.Writer{nil, cfg.Stdout, cfg.Stderr} {
		if f := s.ours[i]; i > 0 && f != nil {
			out.Go(func() { copyOut(w, f) })
		}
	}
	return func() {
		deadline := time.Now().Add(execDrain)
		for _, f := range s.ours[1:] {
			if f != nil {
				_ = f.SetReadDeadline(deadline)
			}
		}
		out.Wait()
	}
}

// copyOut copies until the end, or until f's deadline. What lies there then is not
// lost: a slow client, or a machine with other work, may have kept us from it.
func copyOut(w io.Writer, f *os.File) {
	if _, err := io.Copy(w, f); !errors.Is(err, os.ErrDeadlineExceeded) {
		return
	}
	raw, err := f.SyscallConn()
	if err != nil {
		return
	}
	b := make([]byte, execRest)
	for left := b; len(left) > 0; {
		n := 0
		_ = raw.Control(func(fd uintptr) { n, err = unix.Read(int(fd), left) }) // never blocks
		if n > 0 {
			if _, err = w.Write(left[:n]); err == nil {
				left = left[n:]
				continue
			}
		}
		if !errors.Is(err, unix.EINTR) {
			return
		}
	}
}

func (s *stdio) close() {
	for _, f := range s.theirs {
		f.Close()
	}
	for _, f := range s.ours {
		if f != nil {
			f.Close()
		}
	}
}

// runTTY copies between the master and the streams.
func runTTY(fd int, cfg ExecConfig) func() {
	_ = unix.SetNonblock(fd, true) // of a valid descriptor it cannot fail
	m := os.NewFile(uintptr(fd), "tty")
	over := make(chan struct{})
	if cfg.Stdin != nil {
		go func() { _, _ = io.Copy(m, cfg.Stdin) }()
	}
	go func() {
		for {
			select {
			case size, ok := <-cfg.Resize:
				if !ok {
					return
				}
				setSize(m, size)
			case <-over:
				return
			}
		}
	}()
	var out sync.WaitGroup
	out.Go(func() {
		w := cfg.Stdout
		if w == nil {
			w = io.Discard
		}
		copyOut(w, m)
	})
	return func() {
		_ = m.SetReadDeadline(time.Now().Add(execDrain))
		out.Wait()
		close(over)
		m.Close()
	}
}

func setSize(m *os.File, s Size) {
	raw, err := m.SyscallConn()
	if err != nil {
		return
	}
	_ = raw.Control(func(fd uintptr) { // a terminal that is gone has no size
		_ = unix.IoctlSetWinsize(int(fd), unix.TIOCSWINSZ, &unix.Winsize{Row: s.Rows, Col: s.Cols})
	})
}
