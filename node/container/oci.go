package container

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strconv"
	"syscall"
	"time"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/sampan-dev/sampan/internal/atomicfile"
	"github.com/sampan-dev/sampan/internal/selinux"
	"github.com/sampan-dev/sampan/node/container/cgroup"
	"github.com/sampan-dev/sampan/node/container/plan"
	"github.com/sampan-dev/sampan/node/container/plan/overlay"
	"github.com/sampan-dev/sampan/node/container/plan/steps"
)

// OCI is the core of an OCI runtime's command line (runtime-spec 1.3, runtime.md):
// each method is one command, over a directory of state and no daemon. Containers
// are children of the caller, as containerd's and Podman's monitors expect, and
// not of the keeper.
//
// Nothing orders the commands of one container: whoever gives them waits for each.
type OCI struct {
	// Root holds one directory a container.
	Root string
	// Keeper opens the keeper program, which also plays a container's first process.
	Keeper func() (*os.File, error)
	// Cgroup is the parent of containers whose spec names none.
	Cgroup string
	Log    *slog.Logger

	// made is the container that this very process has made last.
	made *madeContainer
}

// madeContainer spares the process that has made a container to read about it.
type madeContainer struct {
	rec   *ociRecord
	group *cgroup.Group
}

// OCICreate are the options of create.
type OCICreate struct {
	Bundle string
	// PidFile is written with the pid when not empty.
	PidFile string
	// Console receives the tty's master, and owns it. See ConsoleSocket.
	Console func(master *os.File) error
	// PidFD, when there is one, hears of the process. See PidFDSocket.
	PidFD func(pid int) error
	// Stdio are the container's streams when it has no tty; nil is /dev/null.
	Stdio [3]*os.File
	// Preserved are descriptors that the program inherits after stderr.
	Preserved []*os.File
	// KeepKeyring leaves it the session keyring of whoever calls.
	KeepKeyring bool
	// Begin, when there is one, hears of the specification before anything is made.
	Begin func(spec *specs.Spec)
	// start starts it as well.
	start bool
}

// ociRecord is what is kept between commands.
type ociRecord struct {
	ID, Bundle string
	PID        int
	Ticks      uint64
	Boot       string
	// Maker is the process that creates it, while PID is none.
	Maker   int `json:",omitempty"`
	Created time.Time
	Cgroup  string
	// SharedPID says that it has no pid namespace of its own, whose end would be that of its
	// other processes.
	SharedPID bool `json:",omitempty"`
	// Born is the directory of the unified hierarchy that its processes are born in.
	Born        string
	Annotations map[string]string
	// HooksJSON are the hooks on disk: most containers have none, and the
	// description of the type would be all the work.
	HooksJSON json.RawMessage `json:",omitempty"`
	Hooks     *specs.Hooks    `json:"-"`
}

const startFIFO = "start"

func (o *OCI) runtime() *Runtime {
	log := o.Log
	if log == nil {
		log = slog.New(slog.DiscardHandler)
	}
	return &Runtime{cfg: Config{Root: o.Root, Run: o.Root, Keeper: o.Keeper, Cgroup: o.Cgroup, Log: log}, log: log, named: !overlay.Appends(), labels: labels, labelsFiles: selinux.Enabled}
}

// Create is `create`: the container is ready, and its program has not begun.
func (o *OCI) Create(ctx context.Context, id string, opt OCICreate) (err error) {
	if err := checkID(id); err != nil {
		return err
	}
	config, err := readFile(filepath.Join(opt.Bundle, "config.json"))
	if err != nil {
		return fmt.Errorf("create container %q: %w", id, err)
	}
	spec, err := decodeSpec(config)
	if err != nil {
		return fmt.Errorf("create container %q: %w", id, err)
	}
	if spec.Root == nil || spec.Linux == nil || spec.Process == nil {
		return fmt.Errorf("create container %q: config.json has no root, linux or process", id)
	}
	if err := checkSpec(spec); err != nil {
		return fmt.Errorf("create container %q: config.json: %w", id, err)
	}
	bundle, err := filepath.Abs(opt.Bundle)
	if err != nil {
		return fmt.Errorf("create container %q: %w", id, err)
	}
	opt.Bundle = bundle
	if opt.Begin != nil {
		opt.Begin(spec)
	}
	r := o.runtime()
	err = os.Mkdir(r.dir(id), 0o700)
	if errors.Is(err, os.ErrNotExist) {
		if err = os.MkdirAll(o.Root, 0o700); err == nil {
			err = os.Mkdir(r.dir(id), 0o700)
		}
	}
	if errors.Is(err, os.ErrExist) {
		return fmt.Errorf("create container %q: %w", id, ErrExists)
	}
	if err != nil {
		return err
	}
	rec := &ociRecord{ID: id, Bundle: opt.Bundle, Boot: bootID(), Maker: os.Getpid(), Created: now(), Annotations: spec.Annotations, Hooks: spec.Hooks}
	if spec.Hooks != nil {
		if rec.HooksJSON, err = json.Marshal(spec.Hooks); err != nil {
			return fmt.Errorf("create container %q: %w", id, err)
		}
	}
	if err := o.create(ctx, r, rec, spec, opt); err != nil {
		return fmt.Errorf("create container %q: %w", id, errors.Join(err, o.undo(ctx, r, rec)))
	}
	return nil
}

// undo is what is left to do of a container whose hooks have failed, by runtime.md from
// step 12 of a life on: it goes, and the hooks that clean up after it run. They are not
// run for one that no hook has seen, since there was no process.
func (o *OCI) undo(ctx context.Context, r *Runtime, rec *ociRecord) error {
	ctx = context.WithoutCancel(ctx)
	err := o.remove(ctx, r, rec)
	if rec.PID == 0 {
		return err
	}
	return errors.Join(err, o.runHooks(ctx, rec, "poststop", false))
}

func (o *OCI) create(ctx context.Context, r *Runtime, rec *ociRecord, spec *specs.Spec, opt OCICreate) error {
	root := rootPath(spec, opt.Bundle)
	absoluteSources(spec, opt.Bundle)
	seenFromRoot(spec, root)
	cfg := &CreateConfig{ID: rec.ID, Spec: spec, bundle: opt.Bundle, Rootfs: Rootfs{Path: root}, TTY: spec.Process.Terminal}
	group, err := r.vacantGroup(cfg)
	if err != nil {
		return err
	}
	rec.Cgroup = group.Path() // ours from here on, to remove as well
	p, child, err := r.translate(cfg, nil)
	if err != nil {
		return err
	}
	if len(p.Process.Seccomp) > 0 { // in runc's words, which its users look for
		r.log.Debug(fmt.Sprintf("seccomp filter flags: %d", p.Process.SeccompFlags))
	}
	rec.SharedPID = child.Flags&unix.CLONE_NEWPID == 0
	if err := bindSourcesExist(p, root); err != nil {
		return err
	}
	// The record names the cgroup before it holds anything that must be found again.
	record := func() error { return writeVolatile(r.file(rec.ID, stateFile), rec) }
	if p.CgroupsLate, err = group.Prepare(record); err != nil {
		return err
	}
	if seesHostGroups(p, spec) {
		if err := showOwnGroups(p, group); err != nil {
			return err
		}
	}
	child.Cgroup, p.CgroupProcs = group.Join()
	rec.Born = child.Cgroup
	// The root is attached where it is, which is where hooks look for it; its owners
	// are the caller's business.
	p.Root.Mountpoint, p.Root.Mapped = root, true
	p.Hooks = planHooks(spec.Hooks)
	if p.Hooks == nil && len(spec.Linux.NetDevices) > 0 { // they are moved when the namespaces are there
		p.Hooks = &plan.Hooks{}
	}
	p.Process.Preserved, p.Process.Keyring.Keep = len(opt.Preserved), opt.KeepKeyring
	p.Process.Null = nulls(opt.Stdio, p.Process.TTY)
	if !opt.start {
		p.StartFIFO = filepath.Join(r.dir(rec.ID), startFIFO)
		if err := unix.Mkfifo(p.StartFIFO, 0o600); err != nil {
			return &os.PathError{Op: "mkfifo", Path: p.StartFIFO, Err: err}
		}
	}
	release, err := r.pinUsers(rec.ID, spec, nil, p)
	if err != nil {
		return err
	}
	defer release()
	s := stage{stdio: opt.Stdio, console: opt.Console, preserved: opt.Preserved, limit: func() error { return limitLate(group, p) }}
	s.hooks = func(pid int) ([]byte, error) {
		return o.creatorHooks(ctx, rec, pid, spec.Linux.NetDevices)
	}
	s.forked = func(pid int, told func() error) error {
		rec.PID, rec.Ticks = pid, startTicks(pid)
		if err := firstOf(record, s.limit, told); err != nil {
			return err
		}
		return writeVolatile(r.file(rec.ID, planFile), execBaseOf(p))
	}
	if opt.start {
		s.ready = opt.made
	}
	pid, err := o.launch(ctx, p, child, s)
	if err != nil {
		return wantOfMemory(group, err)
	}
	o.made = &madeContainer{rec: rec, group: group}
	if opt.start {
		if err := o.runHooks(ctx, rec, "poststart", true); err != nil {
			killChild(pid) // the hooks that clean up find it stopped
			return err
		}
		return nil
	}
	if err = opt.made(pid); err != nil {
		killChild(pid)
	}
	return err
}

// wantOfMemory names in runc's words what the first process has ended of, if it was that.
func wantOfMemory(group *cgroup.Group, err error) error {
	if group.OOMKills() == 0 {
		return err
	}
	return fmt.Errorf("container init was OOM-killed (memory limit too low?): %w", err)
}

// rootPath is where a bundle's root is, which its configuration may say from the bundle on.
func rootPath(spec *specs.Spec, bundle string) string {
	if filepath.IsAbs(spec.Root.Path) {
		return spec.Root.Path
	}
	return filepath.Join(bundle, spec.Root.Path)
}

// vacantGroup is the cgroup that a container is to have, which nobody else is in.
func (r *Runtime) vacantGroup(cfg *CreateConfig) (*cgroup.Group, error) {
	path, err := r.cgroupPath(cfg, nil)
	if err != nil {
		return nil, err
	}
	group, err := cgroup.Open(path, cfg.Spec.Linux.Resources, r.log)
	if err != nil {
		return nil, err
	}
	return group, vacant(group, cfg.Spec.Linux.Resources)
}

// vacant refuses a cgroup that others are in, whom delete would kill and limits would
// meet, one that stands still, where nothing would begin, and limits that this machine's
// cgroups can't have (config-linux.md, "unified"). The words are those that runc's
// callers know.
func vacant(group *cgroup.Group, r *specs.LinuxResources) error {
	if pids, err := group.Pids(); err == nil && len(pids) > 0 {
		return fmt.Errorf("container's cgroup is not empty: %d process(es) in %q: %w", len(pids), group.Path(), ErrState)
	}
	if group.Frozen() {
		return fmt.Errorf("container's cgroup unexpectedly frozen: %q: %w", group.Path(), ErrState)
	}
	if r == nil || cgroup.Mounted() == nil {
		return nil
	}
	for name := range r.Unified {
		if name != cgroup.PidsMax {
			return fmt.Errorf("invalid configuration: unified resource %q: this machine has cgroup v1", name)
		}
	}
	return nil
}

// firstOf does one thing after the other, up to the first that fails.
func firstOf(all ...func() error) error {
	for _, do := range all {
		if err := do(); err != nil {
			return err
		}
	}
	return nil
}

// limitLate makes a container's groups, unless they have been made, and throttles it.
func limitLate(group *cgroup.Group, p *plan.Plan) error {
	if !p.CgroupsLate {
		return group.Throttle()
	}
	if err := errors.Join(group.Create(), group.Throttle()); err != nil {
		return err
	}
	if _, tasks := group.Join(); len(tasks) != len(p.CgroupProcs) {
		p.CgroupProcs = tasks
		return fmt.Errorf("%w: not all cgroups could be made", steps.ErrStage)
	}
	return nil
}

// made tells of the process those who want to know.
func (c *OCICreate) made(pid int) error {
	if err := writePid(c.PidFile, pid); err != nil || c.PidFD == nil {
		return err
	}
	return c.PidFD(pid)
}

func writePid(path string, pid int) error {
	if path == "" {
		return nil
	}
	return atomicfile.WriteVolatile(path, strconv.AppendInt(nil, int64(pid), 10), 0o644)
}

func (o *OCI) load(id string) (*ociRecord, error) {
	if err := checkID(id); err != nil {
		return nil, err
	}
	rec := &ociRecord{}
	err := atomicfile.ReadJSON(filepath.Join(o.Root, id, stateFile), rec)
	if errors.Is(err, os.ErrNotExist) {
		return nil, fmt.Errorf("container %q does not exist: %w", id, ErrNotFound) // containerd looks for these words
	}
	if err == nil && len(rec.HooksJSON) > 0 {
		err = json.Unmarshal(rec.HooksJSON, &rec.Hooks)
	}
	if err != nil {
		return nil, fmt.Errorf("container %q: %w", id, err)
	}
	return rec, nil
}

// loadMade is load for a container that this process may have made.
func (o *OCI) loadMade(id string) (*ociRecord, error) {
	if o.made != nil && o.made.rec.ID == id {
		if _, err := os.Lstat(filepath.Join(o.Root, id, stateFile)); err == nil {
			return o.made.rec, nil
		}
	}
	return o.load(id)
}

// State is `state`.
func (o *OCI) State(id string) (specs.State, error) {
	rec, err := o.load(id)
	if err != nil {
		return specs.State{}, err
	}
	return o.state(rec), nil
}

func (o *OCI) state(rec *ociRecord) specs.State {
	s := specs.State{Version: specs.Version, ID: rec.ID, Bundle: rec.Bundle, Annotations: rec.Annotations, Status: specs.StateStopped}
	if rec.PID == 0 && rec.Boot == bootID() && rec.Maker > 0 && unix.Kill(rec.Maker, 0) == nil {
		s.Status = specs.StateCreating
		return s
	}
	if alive := (&record{PID: rec.PID, Ticks: rec.Ticks, Boot: rec.Boot}).alive(); !alive {
		return s
	}
	s.Status, s.Pid = specs.StateRunning, rec.PID
	if _, err := os.Lstat(filepath.Join(o.Root, rec.ID, startFIFO)); err == nil {
		s.Status = specs.StateCreated
	} else if g, err := cgroup.Open(rec.Cgroup, nil, o.runtime().log); err == nil && g.Frozen() {
		s.Status = Paused
	}
	return s
}

// Origin says when a container was made, and whose its state is.
func (o *OCI) Origin(id string) (created time.Time, owner int, err error) {
	rec, err := o.load(id)
	if err != nil {
		return time.Time{}, 0, err
	}
	var st unix.Stat_t
	if err := unix.Stat(filepath.Join(o.Root, id), &st); err != nil {
		return time.Time{}, 0, fmt.Errorf("container %q: %w", id, err)
	}
	return rec.Created, int(st.Uid), nil
}

// Paused is the status of a container whose processes Pause has stopped. The
// specification leaves room for states of a runtime's own; runc and crun have it.
const Paused specs.ContainerState = "paused"

// Start is `start`.
func (o *OCI) Start(ctx context.Context, id string) error {
	rec, err := o.load(id)
	if err != nil {
		return err
	}
	if s := o.state(rec).Status; s != specs.StateCreated {
		return fmt.Errorf("start container %q: is %s: %w", id, s, ErrState)
	}
	path := filepath.Join(o.Root, id, startFIFO)
	fd, err := unix.Open(path, unix.O_WRONLY|unix.O_NONBLOCK|unix.O_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("start container %q: %w", id, err)
	}
	defer unix.Close(fd)
	if _, err := unix.Write(fd, []byte{1}); err != nil {
		return fmt.Errorf("start container %q: %w", id, err)
	}
	if err := os.Remove(path); err != nil {
		return err
	}
	if err := o.runHooks(ctx, rec, "poststart", true); err != nil {
		return fmt.Errorf("start container %q: %w", id, errors.Join(err, o.undo(ctx, o.runtime(), rec)))
	}
	return nil
}

// Kill is `kill`; with all it goes to every process of the container, and so does SIGKILL
// where these do not end with the first.
func (o *OCI) Kill(ctx context.Context, id string, sig syscall.Signal, all bool) error {
	rec, err := o.load(id)
	if err != nil {
		return err
	}
	if all || sig == syscall.SIGKILL && rec.SharedPID { // the kernel does not end the others for us
		g, err := cgroup.Open(rec.Cgroup, nil, o.runtime().log)
		if err != nil {
			return err
		}
		return g.Signal(sig)
	}
	// The descriptor first: what is asked about then cannot become another process.
	fd, err := unix.PidfdOpen(rec.PID, 0)
	if err == nil {
		defer unix.Close(fd)
	}
	if err != nil || o.state(rec).Status == specs.StateStopped {
		return fmt.Errorf("kill container %q: container not running: %w", id, ErrState)
	}
	if err := unix.PidfdSendSignal(fd, sig, nil, 0); err != nil {
		return fmt.Errorf("kill container %q: %w", id, err)
	}
	return nil
}

// Delete is `delete`; force kills a container that is not stopped, and makes one
// that is not there no error.
func (o *OCI) Delete(ctx context.Context, id string, force bool) error {
	rec, err := o.loadMade(id)
	if force && errors.Is(err, ErrNotFound) { // there may be a directory without a record, from a create that was killed
		return os.RemoveAll(filepath.Join(o.Root, id))
	}
	if err != nil {
		return err
	}
	if !force {
		if s := o.state(rec).Status; s != specs.StateStopped {
			return fmt.Errorf("delete container %q: is %s: %w", id, s, ErrState)
		}
	}
	if err := o.remove(ctx, o.runtime(), rec); err != nil {
		return fmt.Errorf("delete container %q: %w", id, err)
	}
	return o.runHooks(ctx, rec, "poststop", false)
}

func (o *OCI) group(r *Runtime, rec *ociRecord) (*cgroup.Group, error) {
	if o.made != nil && o.made.rec == rec {
		return o.made.group, nil
	}
	return cgroup.Open(rec.Cgroup, nil, r.log)
}

func (o *OCI) remove(ctx context.Context, r *Runtime, rec *ociRecord) error {
	if rec.Cgroup != "" {
		g, err := o.group(r, rec)
		if err != nil {
			return err
		}
		if err := removeGroup(ctx, g); err != nil {
			return err
		}
	}
	return removeState(r.dir(rec.ID))
}
