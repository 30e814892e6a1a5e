package container

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"strings"
	"time"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/sampan-dev/sampan/internal/atomicfile"
	"github.com/sampan-dev/sampan/node/container/plan"
	"github.com/sampan-dev/sampan/node/container/plan/steps"
)

// Size of a terminal in characters.
type Size struct{ Rows, Cols uint16 }

// ExecConfig describes a process to run in a container. Nil streams are /dev/null.
type ExecConfig struct {
	// Process says what to run. Capabilities left nil are the container's. Nobody changes
	// it any more: it may be kept, for the next of the same to be told by.
	Process *specs.Process
	TTY     bool
	Stdin   io.Reader
	Stdout  io.Writer
	Stderr  io.Writer
	Resize  <-chan Size
	// Timeout kills the process; zero means none. ErrTimeout is returned then.
	Timeout time.Duration
	// Kept leaves a process that has begun alone when the context ends, or this program.
	Kept bool
	// Started is called once the process runs, and never for one that can't be executed;
	// nil for nobody who waits for that.
	Started func()
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
	// Nobody waits for the beginning of what has no input.
	brief := !cfg.TTY && cfg.Stdin == nil && cfg.Started == nil && !cfg.Kept
	var p *plan.Plan
	if brief {
		p = c.preparedPlan(cfg.Process)
	}
	if p == nil {
		var err error
		if p, err = c.execPlan(cfg); err != nil {
			return -1, err
		}
	}
	target, err := c.target()
	if err != nil {
		return -1, err
	}
	defer unix.Close(target)
	x := execution{c: c, cfg: cfg, target: target, brief: brief}
	x.child = &plan.Child{PIDNS: fmt.Sprintf("/proc/%d/ns/pid", c.status().PID), Cgroup: c.cgroupDir()}
	if x.brief && r.keeper.level.Load() >= plan.LevelLists {
		if r.keeper.level.Load() >= plan.LevelGroups {
			x.groups = c.groupFiles(p.CgroupProcs)
			defer closeFDs(x.groups)
		}
		if list, err := x.list(p); err == nil {
			code, err := r.execute(ctx, &x, list, true)
			if unix.Close(list); !errors.Is(err, errStage) {
				return code, err
			}
		}
	}
	file, err := planFileFor(p)
	if err != nil {
		return -1, err
	}
	defer file.Close()
	return r.execute(ctx, &x, int(file.Fd()), false)
}

// execution is an exec under way.
type execution struct {
	c      *container
	cfg    ExecConfig
	child  *plan.Child
	target int // the pidfd of the container
	groups []int
	brief  bool
}

// maxLookups bounds how many threads containers can keep waiting by files that do not
// answer.
const maxLookups = 32

// lookups has a place for each look at a container's files.
var lookups = make(chan struct{}, maxLookups) //nolint:gochecknoglobals // threads are the process's

// list is the executable of a list of calls that does what p says, for the caller to
// close. It spares the keeper to decode a plan that has just been encoded for it.
func (x *execution) list(p *plan.Plan) (int, error) {
	select {
	case lookups <- struct{}{}:
		defer func() { <-lookups }()
	default:
		return -1, steps.ErrStage
	}
	proc, ok := strings.CutSuffix(x.child.PIDNS, "ns/pid")
	if !ok {
		return -1, steps.ErrStage
	}
	program, home, err := look(proc+"root", &p.Process)
	if err != nil {
		return -1, err
	}
	// Had it ended before, the files might have been those of another.
	if err := unix.PidfdSendSignal(x.target, 0, nil, 0); err != nil {
		return -1, err
	}
	seen := found{program, home, len(x.groups)}
	if fd := x.c.preparedList(p, seen); fd >= 0 {
		return fd, nil
	}
	b, err := execList(p, seen)
	if err != nil {
		return -1, err
	}
	f, err := inMemory("sampan-exec", b)
	if err != nil {
		return -1, err
	}
	if fd := x.c.keepList(f, p, seen, x.cfg.Process); fd >= 0 {
		return fd, nil
	}
	return -1, unix.EMFILE
}

// errStage says that a list has failed before its program.
var errStage = errors.New("a list of calls failed")

// execute has the keeper fork what is in the file: a list, or a plan.
func (r *Runtime) execute(ctx context.Context, x *execution, what int, list bool) (int, error) {
	fds := []int{what, x.target}
	var streams *stdio
	if !x.cfg.TTY {
		var err error
		if streams, err = openStdio(x.cfg); err != nil {
			return -1, err
		}
		defer streams.close()
		fds = append(fds, streams.theirs...)
	}
	if list {
		fds = append(fds, x.groups...)
	}
	req := plan.Request{Op: plan.ExecIn, ID: x.c.rec.ID, Child: x.child, Brief: x.brief, List: list, Kept: x.cfg.Kept}
	send := r.keeper.request
	if req.Terse = list && r.keeper.level.Load() >= plan.LevelTerse; req.Terse {
		send = r.keeper.terse
	}
	conn, err := send(req, fds...)
	if err != nil {
		return -1, err
	}
	stop := context.AfterFunc(ctx, func() { conn.Close() }) // the keeper kills it then, unless it is kept
	var code int
	answered := false
	if x.brief {
		code, answered, err = converseBriefly(conn, x.cfg, streams)
	} else {
		code, err = r.converse(conn, x.cfg, streams)
	}
	if stop() && answered && req.Terse {
		r.keeper.keep(conn)
	} else {
		conn.Close()
	}
	if ctx.Err() != nil {
		return -1, context.Cause(ctx)
	}
	return code, err
}

func (c *container) cgroupDir() string {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.rec.Runtime != "" || c.rec.Restored { // its parent, which Child is, is elsewhere
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
	proc, err := c.r.planProcess(cfg.Process, nil, specs.State{})
	if err != nil {
		return nil, err
	}
	if cfg.Process.Capabilities == nil {
		proc.Caps = base.Process.Caps
	}
	proc.Seccomp, proc.SeccompFlags = base.Process.Seccomp, base.Process.SeccompFlags
	proc.TTY, proc.Personality, proc.Memory = cfg.TTY, base.Process.Personality, base.Process.Memory
	if err := planAffinity(proc, cfg.Process.ExecCPUAffinity); err != nil {
		return nil, err
	}
	proc.UserNS, proc.RootUID, proc.RootGID = base.Process.UserNS, base.Process.RootUID, base.Process.RootGID
	if proc.OOMScoreAdj == nil {
		proc.OOMScoreAdj = base.Process.OOMScoreAdj
	}
	if proc.Labels == nil {
		proc.Labels, proc.Keyring.Label = base.Process.Labels, base.Process.Keyring.Label
	}
	proc.Keyring.Keep = base.Process.Keyring.Keep
	out := &plan.Plan{Version: plan.Version, Kind: plan.Exec, CgroupProcs: base.CgroupProcs, Process: *proc}
	c.mu.Lock()
	defer c.mu.Unlock()
	out.Process.Listener = listenerOfExec(base.Process.Listener, c.rec.PID)
	if base.Time {
		out.Joins = []plan.Join{timeOf(c.rec.PID)} // who is joined by its pidfd as well, and so still it
	}
	return out, nil
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
	// Time says that it has a time namespace.
	Time bool `json:",omitempty"`
}

type execProcess struct {
	Caps             *plan.Caps
	UserNS           string
	RootUID, RootGID int
	Seccomp          []byte
	SeccompFlags     uintptr
	OOMScoreAdj      *int
	Labels           []plan.Label
	Keyring          plan.Keyring       `json:",omitzero"`
	Personality      *uint32            `json:",omitempty"`
	Memory           *plan.MemoryPolicy `json:",omitempty"`
	Listener         *plan.Listener     `json:",omitempty"`
}

func execBaseOf(p *plan.Plan) execBase {
	x := &p.Process
	return execBase{Time: hasTime(p), CgroupProcs: p.CgroupProcs, Process: execProcess{
		Caps: x.Caps, UserNS: x.UserNS, RootUID: x.RootUID, RootGID: x.RootGID,
		Seccomp: x.Seccomp, SeccompFlags: x.SeccompFlags, OOMScoreAdj: x.OOMScoreAdj, Labels: x.Labels, Keyring: x.Keyring, Personality: x.Personality, Memory: x.Memory, Listener: x.Listener,
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
	if cfg.Started != nil {
		cfg.Started()
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

// converseBriefly follows an exec that is told of when it has ended, and says whether
// it was told.
func converseBriefly(conn *net.UnixConn, cfg ExecConfig, streams *stdio) (code int, answered bool, err error) {
	finish := streams.run(cfg)
	var a plan.Answer
	_, err = recvMessage(conn, &a)
	if err == nil && a.Error == "" && a.Exit == nil { // a keeper that answers twice
		_, err = recvMessage(conn, &a)
	}
	if err == nil && a.Error == "" && a.Exit == nil {
		err = io.ErrUnexpectedEOF
	}
	finish()
	switch {
	case err != nil:
		return -1, false, fmt.Errorf("keeper: %w", err)
	case a.Stage:
		return -1, true, fmt.Errorf("%w: %s", errStage, a.Error)
	case a.Error != "":
		return a.Code, true, errors.New(a.Error)
	}
	return a.Exit.Code, true, nil
}
