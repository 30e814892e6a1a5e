package container

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"

	"golang.org/x/sys/unix"

	"github.com/sampan-dev/sampan/internal/atomicfile"
	"github.com/sampan-dev/sampan/node/container/criu"
	"github.com/sampan-dev/sampan/node/container/plan"
)

var (
	// ErrUnsupported says that a container is of a kind that cannot be written down.
	ErrUnsupported = errors.New("cannot be checkpointed")
	// ErrNoCRIU says that the machine lacks the program that does it.
	ErrNoCRIU = criu.ErrAbsent
	// ErrBusy says that a checkpoint of the container is being written already.
	ErrBusy = errors.New("a checkpoint of it is being written")
)

// frozenFile is there while a container stands still for a checkpoint: whoever finds it
// after a crash lets the container go on.
const frozenFile = "frozen"

// CheckpointConfig says how a running container is written down.
type CheckpointConfig struct {
	// Images is the directory of criu's images, Work that of its log; both are made.
	Images, Work string
	// Begin is called before anything is written, when nothing else is in the way of it
	// any more. It may be nil.
	Begin func() error
	// Then is called when the processes have been written down, while they still stand:
	// for the files that belong to what they had in memory. It may be nil.
	Then func() error
}

// Checkpoint writes down the processes of a running container, which goes on running
// whether that worked or not. It stands still meanwhile. Checkpoint returns when criu has
// ended: a context that ends before does not end criu, which holds the processes.
func (r *Runtime) Checkpoint(ctx context.Context, id string, cfg CheckpointConfig) error {
	c, err := r.find(id)
	if err != nil {
		return fmt.Errorf("checkpoint container: %w", err)
	}
	if !c.dumping.CompareAndSwap(false, true) {
		return fmt.Errorf("checkpoint container %q: %w", id, ErrBusy)
	}
	defer c.dumping.Store(false)
	if err := r.checkpoint(ctx, c, cfg); err != nil {
		return fmt.Errorf("checkpoint container %q: %w", id, err)
	}
	return nil
}

func (r *Runtime) checkpoint(ctx context.Context, c *container, cfg CheckpointConfig) (failed error) {
	if _, err := criu.Find(); err != nil {
		return err
	}
	c.mu.Lock()
	rec := c.rec
	c.mu.Unlock()
	if rec.State != Running || !rec.alive() {
		return fmt.Errorf("is %s, not running: %w", rec.State, ErrState)
	}
	p := &plan.Plan{}
	if err := atomicfile.ReadJSON(c.filePlan, p); err != nil {
		return err
	}
	if why := undumpable(&rec, p); why != "" {
		return fmt.Errorf("%w: %s", ErrUnsupported, why)
	}
	d, err := dumpOf(&rec, p)
	if err != nil {
		return err
	}
	d.Images, d.Work, d.Freezer = cfg.Images, cfg.Work, c.group.FreezerDir()
	if c.group.Frozen() {
		return fmt.Errorf("is paused: %w", ErrState)
	}
	if cfg.Begin != nil {
		if err := cfg.Begin(); err != nil {
			return err
		}
	}
	thaw, err := c.standStill()
	defer func() { failed = errors.Join(failed, thaw()) }()
	if err != nil {
		return err
	}
	if err := d.Do(ctx); err != nil {
		return err
	}
	if cfg.Then == nil {
		return nil
	}
	return cfg.Then()
}

// undumpable says what about a container criu could not bring back, or not alone.
func undumpable(rec *record, p *plan.Plan) string {
	switch {
	case rec.Runtime != "":
		return "another runtime, " + rec.Runtime + ", runs it"
	case p.Process.UserNS != "":
		return "it has a user namespace"
	case rec.SharedPID:
		return "it shares its process namespace with other containers, or with the host"
	case rec.Child.TTY:
		return "it has a terminal, whose other end is outside"
	case slices.ContainsFunc(p.Mounts, func(m plan.Mount) bool { return m.Type == "overlay" }):
		return "it mounts an image as a volume"
	}
	return ""
}

// dumpOf says what criu must know of a container. Connections are left out: those of the
// container stand on, untouched, and those of what is restored, with another address, could not.
func dumpOf(rec *record, p *plan.Plan) (*criu.Dump, error) {
	d := &criu.Dump{PID: rec.PID, LeaveRunning: true, Common: criu.Common{FileLocks: true, Close: true}}
	var err error
	if d.External, err = outsideMounts(rec.PID, p.Mounts); err != nil {
		return nil, err
	}
	fds, err := outsideDescriptors(rec.PID)
	if err != nil {
		return nil, err
	}
	known := map[string]bool{}
	for i, path := range []string{rec.Child.Stdin, rec.Child.Stdout, rec.Child.Stderr} {
		// One that the first process has closed may be another's.
		if fds[i].name == "" && path != "" {
			if fds[i], err = pathDescriptor(path); err != nil {
				return nil, err
			}
		}
		d.Descriptors = append(d.Descriptors, fds[i].name)
		if fds[i].file && !known[fds[i].name] {
			known[fds[i].name] = true
			d.External = append(d.External, fds[i].name)
		}
	}
	number, own, err := ownNamespace(rec.PID, "net")
	if err != nil {
		return nil, err
	}
	if own && rec.SandboxID != "" {
		d.External = append(d.External, fmt.Sprintf("net[%d]:%s", number, criu.NetLabel))
	}
	return d, nil
}

// pathDescriptor is what criu calls a file of ours.
func pathDescriptor(path string) (descriptor, error) {
	fd, err := unix.Open(path, unix.O_PATH|unix.O_CLOEXEC, 0)
	if err != nil {
		return descriptor{}, &os.PathError{Op: "open", Path: path, Err: err}
	}
	defer unix.Close(fd)
	mount, err := mountOf("self", fd)
	if err != nil {
		return descriptor{}, err
	}
	return fileAt(path, mount)
}

// standStill freezes a container, and says how it goes on, also after an error. That is
// written down before: a container must not stand for ever because its runtime has died.
func (c *container) standStill() (thaw func() error, err error) {
	note := c.r.file(c.rec.ID, frozenFile)
	thaw = func() error {
		if err := c.group.Freeze(false); err != nil && c.status().State != Exited {
			return fmt.Errorf("let it go on: %w", err)
		}
		if err := os.Remove(note); err != nil && !errors.Is(err, os.ErrNotExist) {
			return err
		}
		return nil
	}
	if err := atomicfile.WriteVolatile(note, nil, 0o600); err != nil {
		return thaw, err
	}
	if c.group.Frozen() { // to freeze is to thaw now and then, where it does not succeed at once
		return thaw, nil
	}
	if err := c.group.Freeze(true); err != nil {
		return thaw, fmt.Errorf("freeze: %w", err)
	}
	return thaw, nil
}

// goOn lets a container go on that was left standing by a runtime that died; or ends it,
// if that had not come to judge it.
func (c *container) goOn() {
	note := c.r.file(c.rec.ID, frozenFile)
	if c.rec.Unjudged {
		if err := c.group.Signal(unix.SIGKILL); err != nil {
			c.r.log.Warn("container out of a checkpoint not ended", "id", c.rec.ID, "err", err)
			return
		}
	}
	if _, err := os.Lstat(note); err != nil {
		return
	}
	if err := c.group.Freeze(false); err != nil {
		c.r.log.Warn("container stands still", "id", c.rec.ID, "err", err)
		return
	}
	_ = os.Remove(note) // found again, it does no harm
}
