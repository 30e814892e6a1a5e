package container

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/sampan-dev/sampan/node/container/cgroup"
	"github.com/sampan-dev/sampan/node/container/criu"
	"github.com/sampan-dev/sampan/node/container/plan"
)

// OCICheckpoint are the options of checkpoint: those of criu's that callers have.
type OCICheckpoint struct {
	criu.Dump
}

// Checkpoint is `checkpoint`: unless it is left running, the container is deleted when
// its processes have been written down.
func (o *OCI) Checkpoint(ctx context.Context, id string, opt OCICheckpoint) error {
	rec, err := o.load(id)
	if err != nil {
		return err
	}
	if s := o.state(rec).Status; s != specs.StateRunning && s != Paused {
		return fmt.Errorf("checkpoint container %q: is %s: %w", id, s, ErrState)
	}
	if err := o.checkpoint(ctx, rec, &opt.Dump); err != nil {
		return fmt.Errorf("checkpoint container %q: %w", id, err)
	}
	if opt.LeaveRunning || opt.Pre {
		return nil
	}
	return o.Delete(ctx, id, true)
}

func (o *OCI) checkpoint(ctx context.Context, rec *ociRecord, d *criu.Dump) error {
	if d.Work == "" {
		d.Work = d.Images
	}
	if d.Cgroups == "" {
		d.Cgroups = "soft" // runc's default: it finds no way into groups that are not written down
	}
	r := o.runtime()
	cfg, p, child, err := o.planOf(r, rec.ID, rec.Bundle)
	if err != nil {
		return err
	}
	group, err := o.group(r, rec)
	if err != nil {
		return err
	}
	d.PID, d.Freezer = rec.PID, group.FreezerDir()
	if d.Pre {
		return d.Do(ctx)
	}
	if p.Process.UserNS != "" {
		return fmt.Errorf("%w: it has a user namespace", ErrUnsupported)
	}
	if cfg.TTY && !d.ShellJob {
		return fmt.Errorf("%w: it has a terminal, whose other end is outside", ErrUnsupported)
	}
	if d.External, err = outsideMounts(rec.PID, p.Mounts); err != nil {
		return err
	}
	fds, err := outsideDescriptors(rec.PID)
	if err != nil {
		return err
	}
	d.Descriptors = nil
	for _, fd := range fds {
		d.Descriptors = append(d.Descriptors, fd.name)
		if fd.file {
			d.External = append(d.External, fd.name)
		}
	}
	for _, ns := range []string{"net", "pid"} {
		if !kept(p, child, ns) {
			continue
		}
		number, _, err := ownNamespace(rec.PID, ns)
		if err != nil {
			return err
		}
		d.External = append(d.External, fmt.Sprintf("%s[%d]:%s", ns, number, labelOf[ns]))
	}
	return d.Do(ctx)
}

// labelOf are the labels of namespaces that others keep, as runc has them.
var labelOf = map[string]string{"net": criu.NetLabel, "pid": "extRootPidNS"} //nolint:gochecknoglobals // a constant

// kept says whether a plan joins a namespace that somebody else keeps.
func kept(p *plan.Plan, child *plan.Child, ns string) bool {
	if ns == "pid" {
		return child.PIDNS != ""
	}
	for _, j := range p.Joins {
		if j.Flag == unix.CLONE_NEWNET {
			return true
		}
	}
	return false
}

// planOf is the plan of what a bundle describes.
func (o *OCI) planOf(r *Runtime, id, bundle string) (*CreateConfig, *plan.Plan, *plan.Child, error) {
	config, err := readFile(filepath.Join(bundle, "config.json"))
	if err != nil {
		return nil, nil, nil, err
	}
	spec, err := decodeSpec(config)
	if err != nil {
		return nil, nil, nil, err
	}
	if spec.Root == nil || spec.Linux == nil || spec.Process == nil {
		return nil, nil, nil, errors.New("config.json has no root, linux or process")
	}
	root := spec.Root.Path
	if !filepath.IsAbs(root) {
		root = filepath.Join(bundle, root)
	}
	absoluteSources(spec, bundle)
	seenFromRoot(spec, root)
	cfg := &CreateConfig{ID: id, Spec: spec, Rootfs: Rootfs{Path: root}, TTY: spec.Process.Terminal}
	p, child, err := r.translate(cfg, nil)
	return cfg, p, child, err
}

// OCIRestore are the options of restore.
type OCIRestore struct {
	criu.Restore
	Bundle, PidFile string
	Stdio           [3]*os.File
}

// Restore is `restore`: the container's processes come out of images, and run. They are
// left to whoever parents the orphans of this process. Images are the caller's, as the
// whole bundle is: nothing is judged.
func (o *OCI) Restore(ctx context.Context, id string, opt OCIRestore) (failed error) {
	if err := checkID(id); err != nil {
		return err
	}
	bundle, err := filepath.Abs(opt.Bundle)
	if err != nil {
		return err
	}
	r := o.runtime()
	if err := os.MkdirAll(o.Root, 0o700); err != nil {
		return err
	}
	err = os.Mkdir(r.dir(id), 0o700)
	if errors.Is(err, os.ErrExist) {
		err = ErrExists
	}
	if err != nil {
		return fmt.Errorf("restore container %q: %w", id, err)
	}
	rec := &ociRecord{ID: id, Bundle: bundle, Boot: bootID(), Created: now()}
	if err := o.restore(ctx, r, rec, &opt); err != nil {
		err = errors.Join(err, o.remove(context.WithoutCancel(ctx), r, rec))
		return fmt.Errorf("restore container %q: %w", id, err)
	}
	return nil
}

func (o *OCI) restore(ctx context.Context, r *Runtime, rec *ociRecord, opt *OCIRestore) error {
	path, err := criu.Find()
	if err != nil {
		return err
	}
	cfg, p, child, err := o.planOf(r, rec.ID, rec.Bundle)
	if err != nil {
		return err
	}
	switch {
	case p.Process.UserNS != "":
		return fmt.Errorf("%w: it has a user namespace", ErrUnsupported)
	case cfg.TTY:
		return fmt.Errorf("%w: it has a terminal", ErrUnsupported)
	}
	if err := bindSourcesExist(p, ""); err != nil {
		return err
	}
	if rec.Cgroup, err = r.cgroupPath(cfg, nil); err != nil {
		return err
	}
	rec.Annotations = cfg.Spec.Annotations
	group, err := cgroup.Open(rec.Cgroup, cfg.Spec.Linux.Resources, r.log)
	if err != nil {
		return err
	}
	record := func() error { return writeVolatile(r.file(rec.ID, stateFile), rec) }
	if err := firstOf(record, group.Create, group.Throttle); err != nil {
		return err
	}
	rec.Born, p.CgroupProcs = group.Join()
	if err := o.restorePlan(rec, cfg, p, child, opt); err != nil {
		return err
	}
	p.Foreign.Restore.Path = path
	if rec.PID, err = o.bringBack(ctx, p, opt); err != nil {
		return (&Restoration{Images: opt.Images, Work: opt.Work}).explain(err)
	}
	rec.Ticks = startTicks(rec.PID)
	base := func() error { return writeVolatile(r.file(rec.ID, planFile), execBaseOf(p)) }
	return firstOf(record, base, func() error { return writePid(opt.PidFile, rec.PID) })
}

// restorePlan makes the plan one of a stage that has criu do it.
func (o *OCI) restorePlan(rec *ociRecord, cfg *CreateConfig, p *plan.Plan, child *plan.Child, opt *OCIRestore) error {
	x := &opt.Restore
	if x.Work == "" {
		x.Work = x.Images
	}
	if err := os.MkdirAll(x.Work, 0o700); err != nil {
		return err
	}
	dir := o.runtime().dir(rec.ID)
	p.Root.Mountpoint, p.Root.Mapped = filepath.Join(dir, "rootfs"), true
	if err := os.MkdirAll(p.Root.Mountpoint, 0o700); err != nil {
		return err
	}
	c := &container{r: o.runtime(), rec: record{ID: rec.ID, Cgroup: rec.Cgroup}}
	cfg.Restore = &Restoration{Images: x.Images, Work: x.Work}
	found, open, err := c.restoreOf(cfg, nil, p)
	if err != nil {
		return err
	}
	if child.PIDNS != "" {
		found.Inherit = append(found.Inherit, fmt.Sprintf("fd[%d]:%s", plan.RestoreOpen+len(open), labelOf["pid"]))
		open = append(open, child.PIDNS)
	}
	x.Root, x.PidFile = p.Root.Mountpoint, filepath.Join(dir, "pid")
	x.External, x.Inherit, x.Join = found.External, found.Inherit, found.Join
	if x.LSM == "" {
		x.LSM = found.LSM
	}
	p.Kind = plan.Foreign
	p.Foreign = &plan.ForeignRuntime{Bundle: dir, ID: rec.ID, Restore: &plan.Restore{
		Args: x.Args(), Env: criu.Environ(), Open: open, PidFile: x.PidFile, Words: filepath.Join(x.Work, wordsFile),
		Cgroup: rec.Born, CgroupNS: p.Unshare&unix.CLONE_NEWCGROUP != 0, Leave: true,
	}}
	return nil
}

// bringBack has a stage do it, and waits for the stage's end: its orphans are the
// caller's then.
func (o *OCI) bringBack(ctx context.Context, p *plan.Plan, opt *OCIRestore) (int, error) {
	null, err := os.OpenFile(os.DevNull, os.O_RDWR, 0)
	if err != nil {
		return 0, err
	}
	defer null.Close()
	s := stage{stdio: opt.Stdio, target: null}
	for i := range s.stdio {
		if s.stdio[i] == nil {
			s.stdio[i] = null
		}
	}
	control, theirs, err := controlPair()
	if err != nil {
		return 0, err
	}
	defer control.Close()
	defer context.AfterFunc(ctx, func() { control.Close() })()
	pid, err := o.forkStage(p, &plan.Child{Flags: unix.CLONE_NEWNS}, s, theirs)
	theirs.Close()
	if err != nil {
		return 0, err
	}
	var rep plan.Report
	_, err = recvMessage(control, &rep)
	if err == nil && rep.Error != "" {
		err = errors.New(rep.Error)
	}
	if err != nil {
		killChild(pid)
		return 0, err
	}
	if _, err := waitChild(pid); err != nil {
		return 0, err
	}
	return rep.PID, nil
}
