// Package container runs containers: namespaces, cgroups, mounts, seccomp, out of
// an OCI runtime spec. It knows no CRI and no Pod.
//
// Containers are children of the keeper (cmd/keeper), not of this process: a
// Runtime may be closed or die at any moment and another one opened on the same
// directories; containers do not notice, and exits that nobody saw are known to
// the successor.
//
// The kernel must be Linux 5.12 or later (mount_setattr, openat2, pidfd), as KernelFits tells.
package container

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/sampan-dev/sampan/internal/atomicfile"
	"github.com/sampan-dev/sampan/internal/keylock"
	"github.com/sampan-dev/sampan/internal/selinux"
	"github.com/sampan-dev/sampan/node/container/cgroup"
	"github.com/sampan-dev/sampan/node/container/plan"
	"github.com/sampan-dev/sampan/node/container/plan/overlay"
	"github.com/sampan-dev/sampan/node/container/seccomp"
)

// The kinds of errors that a caller may want to tell apart.
var (
	ErrNotFound = errors.New("not found")
	ErrExists   = errors.New("exists already")
	// ErrState says that a container is not in the state that the call needs.
	ErrState = errors.New("wrong state")
)

// Config says where a Runtime lives.
type Config struct {
	// Root is the durable state directory, one directory a container.
	Root string
	// Run is the volatile directory: sockets, FIFOs, pinned namespaces.
	// A unix socket's path is 107 bytes at most: keep it short.
	Run string
	// Keeper opens the keeper program, a static executable, in a way in which
	// nobody can write to it: see Sealed.
	Keeper func() (*os.File, error)
	// Cgroup is the parent of containers that name no cgroup of their own, and
	// of the keeper's; an absolute path below the root of each hierarchy.
	Cgroup string
	Log    *slog.Logger
}

// maxSocketPath is what the kernel takes for the name of a unix socket.
const maxSocketPath = 107

// Runtime runs containers. Its methods may be called concurrently.
type Runtime struct {
	cfg     Config
	log     *slog.Logger
	filters seccomp.Cache
	// labels are those of a process; tests have others where there is no AppArmor.
	labels func(*specs.Process) []plan.Label
	// labelsFiles says that this kernel gives files SELinux labels.
	labelsFiles func() bool
	// named is plan.Root.Named of every container.
	named  bool
	keeper *keeperLink

	mu         sync.Mutex
	containers map[string]*container
	sandboxes  map[string]*Sandbox
	// creating are ids of containers and sandboxes that are being made.
	creating map[string]bool
	// ended is set once the keeper has been told to stop.
	ended bool
	// parents counts the sandboxes of each cgroup that is one's parent.
	parents map[string]int
	// parentBusy serialises making and removing such a cgroup. Order: before mu.
	parentBusy keylock.Locks

	// prepared is how many containers have something prepared: see preparable.
	prepared atomic.Int32

	exits feed
}

// Open starts the keeper, or finds it running, and takes over every container
// that an earlier Runtime has left.
func Open(cfg Config) (*Runtime, error) {
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	if !filepath.IsAbs(cfg.Root) || !filepath.IsAbs(cfg.Run) || !filepath.IsAbs(cfg.Cgroup) {
		return nil, fmt.Errorf("container runtime: root %q, run %q and cgroup %q must be absolute paths", cfg.Root, cfg.Run, cfg.Cgroup)
	}
	if n := len(filepath.Join(cfg.Run, "keeper.sock")); n > maxSocketPath {
		return nil, fmt.Errorf("container runtime: run %q is too long for a socket's path of %d bytes", cfg.Run, maxSocketPath)
	}
	r := &Runtime{
		cfg: cfg, log: cfg.Log, named: !overlay.Appends(), labels: labels, labelsFiles: selinux.Enabled,
		containers: map[string]*container{}, sandboxes: map[string]*Sandbox{}, creating: map[string]bool{}, parents: map[string]int{},
	}
	for _, dir := range []string{cfg.Root, cfg.Run, r.sandboxRoot()} {
		if err := os.MkdirAll(dir, 0o700); err != nil {
			return nil, fmt.Errorf("container runtime: %w", err)
		}
	}
	if err := cgroup.MakeRoom(); err != nil {
		return nil, fmt.Errorf("container runtime: %w", err)
	}
	if err := r.load(); err != nil {
		return nil, err
	}
	link, err := r.connect()
	if err != nil {
		return nil, err
	}
	r.keeper = link
	return r, nil
}

// Close lets go. The keeper and the containers live on.
func (r *Runtime) Close() error {
	r.keeper.close()
	r.exits.close()
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, c := range r.containers {
		c.mu.Lock()
		c.unprepare()
		c.mu.Unlock()
	}
	return nil
}

// leaveWait bounds how long Leave waits for an idle keeper to end.
const leaveWait = 5 * time.Second

// Leave is Close, but ends a keeper that keeps nothing: it has nobody to wait for,
// and the next Open starts another.
func (r *Runtime) Leave() error {
	r.mu.Lock()
	idle := len(r.containers)+len(r.sandboxes)+len(r.creating) == 0
	r.mu.Unlock()
	if !idle {
		return r.Close()
	}
	ctx, cancel := context.WithTimeout(context.Background(), leaveWait)
	defer cancel()
	return r.Shutdown(ctx)
}

// Shutdown stops the keeper itself. Containers that still run are left alone:
// remove them first. A second Shutdown, or Leave after it, does nothing.
func (r *Runtime) Shutdown(ctx context.Context) error {
	r.mu.Lock()
	again := r.ended
	r.ended = true
	r.mu.Unlock()
	if again {
		return nil
	}
	err := r.keeper.shutdown(ctx)
	_ = r.Close() // never fails
	os.Remove(r.socketPath())
	os.Remove(filepath.Join(r.cfg.Run, "keeper.lock"))
	os.Remove(filepath.Join(r.cfg.Run, "keeper.log"))
	os.Remove(r.sandboxRoot())
	if g, gerr := cgroup.Open(filepath.Join(r.cfg.Cgroup, keeperGroup), nil, r.log); gerr == nil {
		// A child of the keeper's may outlive it a moment, or be one that it has forked in vain.
		err = errors.Join(err, g.Signal(unix.SIGKILL), g.Remove(ctx))
	}
	cgroup.RemoveEmpty(r.cfg.Cgroup)
	return err
}

func (r *Runtime) dir(id string) string        { return filepath.Join(r.cfg.Root, id) }
func (r *Runtime) runDir(id string) string     { return filepath.Join(r.cfg.Run, id) }
func (r *Runtime) sandboxRoot() string         { return filepath.Join(r.cfg.Run, "sandboxes") }
func (r *Runtime) socketPath() string          { return filepath.Join(r.cfg.Run, "keeper.sock") }
func (r *Runtime) file(id, name string) string { return filepath.Join(r.cfg.Root, id, name) }

// maxID is the longest id that is taken.
const maxID = 128

// checkID keeps ids from being paths.
func checkID(id string) error {
	bad := func(c rune) bool {
		return !strings.ContainsRune("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_.-", c)
	}
	if id == "" || len(id) > maxID || id[0] == '.' || id == "sandboxes" || strings.ContainsFunc(id, bad) {
		return fmt.Errorf("id %q: want up to %d letters, digits, and _ . -", id, maxID)
	}
	return nil
}

// reserve claims an id until the returned function is called.
func (r *Runtime) reserve(id string) (func(), error) {
	if err := checkID(id); err != nil {
		return nil, err
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.containers[id] != nil || r.sandboxes[id] != nil || r.creating[id] {
		return nil, fmt.Errorf("id %q: %w", id, ErrExists)
	}
	r.creating[id] = true
	return func() {
		r.mu.Lock()
		delete(r.creating, id)
		r.mu.Unlock()
	}, nil
}

func (r *Runtime) find(id string) (*container, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	c := r.containers[id]
	if c == nil {
		return nil, fmt.Errorf("container %q: %w", id, ErrNotFound)
	}
	return c, nil
}

// load reads the records of an earlier Runtime. One that cannot be read was cut
// off by a power cut, which its container has not survived either: it goes.
func (r *Runtime) load() error {
	entries, err := os.ReadDir(r.cfg.Root)
	if err != nil {
		return fmt.Errorf("container runtime: %w", err)
	}
	for _, e := range entries {
		if !e.IsDir() {
			continue
		}
		c := &container{r: r, ended: make(chan struct{})}
		if err := atomicfile.ReadJSON(r.file(e.Name(), stateFile), &c.rec); err != nil || c.rec.ID != e.Name() {
			r.log.Warn("container record cannot be read and is dropped", "id", e.Name(), "err", err)
			if err := r.removeDirs(e.Name()); err != nil {
				r.log.Error("container not dropped", "id", e.Name(), "err", err)
			}
			continue
		}
		c.filePlan = r.file(c.rec.ID, planFile)
		if c.group, err = cgroup.Open(c.rec.Cgroup, c.rec.Resources, r.log); err != nil {
			r.log.Warn("container cgroup cannot be opened", "id", e.Name(), "err", err)
			continue
		}
		if c.rec.State == Exited {
			close(c.ended)
		}
		c.goOn()
		r.containers[c.rec.ID] = c
	}
	return r.loadSandboxes()
}

// Status tells a container's state.
func (r *Runtime) Status(id string) (Status, error) {
	c, err := r.find(id)
	if err != nil {
		return Status{}, err
	}
	return c.status(), nil
}

// List tells the state of every container, by id.
func (r *Runtime) List() []Status {
	r.mu.Lock()
	all := make([]*container, 0, len(r.containers))
	for _, c := range r.containers {
		all = append(all, c)
	}
	r.mu.Unlock()
	out := make([]Status, len(all))
	for i, c := range all {
		out[i] = c.status()
	}
	slices.SortFunc(out, func(a, b Status) int { return strings.Compare(a.ID, b.ID) })
	return out
}

// Wait returns once the container has ended, with its last status.
func (r *Runtime) Wait(ctx context.Context, id string) (Status, error) {
	c, err := r.find(id)
	if err != nil {
		return Status{}, err
	}
	select {
	case <-c.ended:
		return c.status(), nil
	case <-ctx.Done():
		return Status{}, context.Cause(ctx)
	}
}

// Exits delivers the exit of every container from now on, until ctx ends or the
// Runtime is closed; then the channel is closed. A slow receiver loses nothing.
// Exits from before are in Status: subscribe first, then list.
func (r *Runtime) Exits(ctx context.Context) <-chan Exit { return r.exits.subscribe(ctx) }

// ReopenLog opens the log file anew, after a rotation has moved it away, or for who
// reads it: the lines that it has are then not given to the one client again that a
// container with StdinOnce is made for.
func (r *Runtime) ReopenLog(ctx context.Context, id string) error {
	if _, err := r.find(id); err != nil {
		return err
	}
	_, err := r.keeper.call(ctx, plan.Request{Op: plan.Reopen, ID: id})
	return err
}

// now is the wall clock as files keep it: UTC, without a monotonic reading.
func now() time.Time { return time.Now().UTC().Round(0) }
