package container

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/sampan-dev/sampan/internal/apparmor"
	"github.com/sampan-dev/sampan/node/container/criu"
	"github.com/sampan-dev/sampan/node/container/plan"
)

// Restoration is a checkpoint that a container comes out of.
type Restoration struct {
	// Images is the directory of criu's images, which are anybody's: what they make is
	// judged before any of it runs. Work is the directory of logs, and is made.
	Images, Work string
}

// wordsFile has what criu says that is in no log.
const wordsFile = "criu.words"

// explain adds criu's own words to a failure.
func (x *Restoration) explain(err error) error {
	if x == nil {
		return err
	}
	said, _ := os.ReadFile(filepath.Join(x.Work, wordsFile)) // there may be none
	return criu.Failure("restore", filepath.Join(x.Work, criu.RestoreLog), string(said[:min(len(said), maxSmall)]), err)
}

// restoring makes the plan one for the parent of processes that criu brings back.
func (c *container) restoring(cfg *CreateConfig, sb *Sandbox, p *plan.Plan) error {
	path, err := criu.Find()
	if err != nil {
		return err
	}
	if why := unrestorable(cfg, sb, p, &c.rec); why != "" {
		return fmt.Errorf("restore: %w: %s", ErrUnsupported, why)
	}
	if c.r.keeper.level.Load() < plan.LevelHalt {
		return errors.New("restore: the keeper that runs is older than this program: it is replaced when the node has been without containers, or with sampan down and up")
	}
	if err := os.MkdirAll(cfg.Restore.Work, 0o700); err != nil {
		return err
	}
	x, open, err := c.restoreOf(cfg, sb, p)
	if err != nil {
		return err
	}
	halt, err := c.halting(p.CgroupProcs)
	if err != nil {
		return err
	}
	dir := c.r.runDir(c.rec.ID)
	p.Kind, p.Hooks = plan.Foreign, nil
	p.Foreign = &plan.ForeignRuntime{Bundle: dir, ID: c.rec.ID, Restore: &plan.Restore{
		Path: path, Args: x.Args(), Env: criu.Environ(), Open: open, PidFile: x.PidFile, Words: filepath.Join(cfg.Restore.Work, wordsFile),
		Cgroup: c.rec.Child.Cgroup, CgroupNS: p.Unshare&unix.CLONE_NEWCGROUP != 0,
		Halt: halt,
	}}
	// The parent is not in the container's cgroup, nor in any namespace of its.
	c.rec.Child.Flags, c.rec.Child.PIDNS, c.rec.Child.Cgroup = unix.CLONE_NEWNS, "", ""
	c.rec.Restored, c.rec.Unjudged = true, true
	return nil
}

// halting says how the container stands still before criu lets go of it: stopped is not
// enough, since a timer or a signal of the images would have it go on before it is judged.
func (c *container) halting(tasks []string) (*plan.Halt, error) {
	h := &plan.Halt{Option: criu.ActionOption}
	if h.Freezer, h.Frozen = c.group.Freezer(); h.Freezer == "" {
		return nil, fmt.Errorf("restore: %w: this machine has no freezer", ErrUnsupported)
	}
	for _, file := range tasks { // of v1, whose first group takes anybody
		h.Homes = append(h.Homes, filepath.Join(strings.TrimSuffix(filepath.Dir(file), c.rec.Cgroup), "cgroup.procs"))
	}
	if dir := c.rec.Child.Cgroup; dir != "" {
		text, err := os.ReadFile("/proc/self/cgroup")
		if err != nil {
			return nil, err
		}
		h.Homes = append(h.Homes, filepath.Join(strings.TrimSuffix(dir, c.rec.Cgroup), unifiedOf(string(text)), "cgroup.procs"))
	}
	return h, nil
}

// unifiedOf is the group of the unified hierarchy in a /proc/PID/cgroup. A group with
// processes takes more of them, as one between others does not.
func unifiedOf(groups string) string {
	for line := range strings.Lines(groups) {
		if path, ok := strings.CutPrefix(line, "0::"); ok {
			return strings.TrimSpace(path)
		}
	}
	return "/"
}

// rename gives a sandbox its own name again: criu has brought the checkpoint's along.
func (s *Sandbox) rename() error {
	if s.Config.HostNetwork || s.Config.Hostname == "" {
		return nil
	}
	return onLostThread(func() error {
		if err := enter(filepath.Join(s.dir, "uts")); err != nil {
			return err
		}
		if err := unix.Sethostname([]byte(s.Config.Hostname)); err != nil {
			return fmt.Errorf("set hostname %q: %w", s.Config.Hostname, err)
		}
		return nil
	})
}

// unrestorable says what about a container criu could not make.
func unrestorable(cfg *CreateConfig, sb *Sandbox, p *plan.Plan, rec *record) string {
	switch {
	case cfg.Runtime != "":
		return "another runtime, " + cfg.Runtime + ", is to run it"
	case cfg.Spec.Hooks != nil:
		return "it has hooks"
	case p.Process.UserNS != "":
		return "it has a user namespace"
	case rec.SharedPID:
		return "it shares its process namespace with other containers, or with the host"
	case cfg.TTY:
		return "it has a terminal"
	case len(p.Process.Labels) > 0 && cfg.Spec.Process.SelinuxLabel != "":
		return "it has an SELinux label"
	case sb == nil:
		return "it is in no sandbox"
	}
	for i := range p.Mounts {
		if m := &p.Mounts[i]; !fromOutside(m) && !m.Remount && !slices.Contains(anybodys, m.Type) {
			return "it mounts " + m.Type + ", of which the checkpoint says what is shown"
		}
	}
	return ""
}

// anybodys are filesystems that show nothing of others, whatever options they are mounted
// with: criu mounts what the images say.
var anybodys = []string{"proc", "sysfs", "tmpfs", "devpts", "mqueue"} //nolint:gochecknoglobals // a constant

// restoreOf says what takes the place of what the container had from outside.
func (c *container) restoreOf(cfg *CreateConfig, sb *Sandbox, p *plan.Plan) (*criu.Restore, []string, error) {
	fds, err := criu.Descriptors(cfg.Restore.Images)
	if err != nil {
		return nil, nil, err
	}
	x := &criu.Restore{Root: p.Root.Mountpoint, PidFile: filepath.Join(cfg.Restore.Work, "pid"), Stopped: true,
		Common: criu.Common{Images: cfg.Restore.Images, Work: cfg.Restore.Work, FileLocks: true, Close: true}}
	for i, name := range fds {
		if name != "" {
			x.Inherit = append(x.Inherit, fmt.Sprintf("fd[%d]:%s", plan.RestoreStdio+i, name))
		}
	}
	for i := range p.Mounts {
		if m := &p.Mounts[i]; fromOutside(m) {
			source, err := c.sourceOf(m, p.Unshare&unix.CLONE_NEWCGROUP != 0)
			if err != nil {
				return nil, nil, err
			}
			if strings.ContainsAny(m.Target, "[]\n") || strings.Contains(source, "\n") {
				return nil, nil, fmt.Errorf("mount on %q: cannot be told to criu", m.Target)
			}
			x.External = append(x.External, fmt.Sprintf("mnt[%s]:%s", m.Target, source))
		}
	}
	x.External = append(x.External, masksOutside(p.Masked)...)
	var open []string
	for _, j := range p.Joins {
		switch j.Flag {
		case unix.CLONE_NEWNET:
			x.Inherit = append(x.Inherit, fmt.Sprintf("fd[%d]:%s", plan.RestoreOpen+len(open), criu.NetLabel))
			open = append(open, j.Path)
		case unix.CLONE_NEWIPC:
			x.Join = append(x.Join, "ipc:"+j.Path)
		case unix.CLONE_NEWUTS:
			x.Join = append(x.Join, "uts:"+j.Path)
		}
	}
	if profile := cfg.Spec.Process.ApparmorProfile; profile != "" && apparmor.Enabled() {
		x.LSM = "apparmor:" + profile
	}
	return x, open, nil
}

// masksOutside says what hides the masked paths that are files. Other runtimes write the
// null device down as something from outside, runc by its own path, crun by those that it
// hides. In a checkpoint of ours it is inside, and criu does not ask.
func masksOutside(masked []string) (all []string) {
	if len(masked) == 0 {
		return nil
	}
	for _, path := range append([]string{os.DevNull}, masked...) {
		if !strings.ContainsAny(path, "[]\n") {
			all = append(all, fmt.Sprintf("mnt[%s]:%s", path, os.DevNull))
		}
	}
	return all
}

// sourceOf is what is mounted, on the host. A cgroup is that of the container, unless it
// sees all of them.
func (c *container) sourceOf(m *plan.Mount, own bool) (string, error) {
	if m.Bind {
		return m.Source, nil
	}
	dir := "/sys/fs/cgroup"
	if m.Type == "cgroup" {
		dir = filepath.Join(dir, filepath.Base(m.Target))
	}
	if own {
		dir = filepath.Join(dir, c.rec.Cgroup)
	}
	_, err := os.Stat(dir)
	return dir, err
}
