// Package cgroup gives a container its resource limits: one interface over the
// mounted controllers of cgroup v1 and over the unified hierarchy of v2, chosen
// by what the machine has at /sys/fs/cgroup.
//
// Limits that the machine has no controller for are left out, and said so.
package cgroup

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"sync"
	"syscall"
	"time"

	"github.com/opencontainers/cgroups"
	_ "github.com/opencontainers/cgroups/devices" // the library's own switch for its device rules
	"github.com/opencontainers/cgroups/fs"
	"github.com/opencontainers/cgroups/fs2"
	specs "github.com/opencontainers/runtime-spec/specs-go"
)

// Group is a control group of one container. Methods may be called concurrently
// with each other, Remove excepted.
type Group struct {
	path string
	mu   sync.Mutex // guards the CPU quota in res
	res  *cgroups.Resources
	m    cgroups.Manager
	log  *slog.Logger
	// paths are its directories where hierarchies of v1 are known; m has the same.
	paths map[string]string
}

// Open describes the group at path, an absolute path below the root of every
// hierarchy. It makes nothing: Create does.
func Open(path string, r *specs.LinuxResources, log *slog.Logger) (*Group, error) {
	if !filepath.IsAbs(path) || filepath.Clean(path) != path || path == "/" {
		return nil, fmt.Errorf("cgroup path %q: must be absolute, clean and below the root", path)
	}
	unified := cgroups.IsCgroup2UnifiedMode()
	res, err := convert(r, unified, log)
	if err != nil {
		return nil, fmt.Errorf("cgroup %q: %w", path, err)
	}
	cfg := &cgroups.Cgroup{Path: path, Resources: res}
	g := &Group{path: path, res: res, log: log}
	if unified {
		g.m, err = fs2.NewManager(cfg, filepath.Join("/sys/fs/cgroup", path))
	} else {
		g.paths = pathsOf(path)
		g.m, err = fs.NewManager(cfg, g.paths)
	}
	if err != nil {
		return nil, fmt.Errorf("cgroup %q: %w", path, err)
	}
	return g, nil
}

// Path is the group's path below the root of each hierarchy.
func (g *Group) Path() string { return g.path }

// Create makes the group and applies every limit but the CPU quota: a container
// must not be throttled while it is still being put together.
func (g *Group) Create() error {
	first := *g.res
	first.CpuQuota, first.CpuPeriod, first.CpuBurst = 0, 0, nil
	if g.paths != nil {
		if err := g.createV1(&first); err != nil {
			return fmt.Errorf("create cgroup %q: %w", g.path, err)
		}
		return nil
	}
	if err := g.m.Apply(-1); err != nil {
		return fmt.Errorf("create cgroup %q: %w", g.path, err)
	}
	if err := g.m.Set(&first); err != nil {
		return fmt.Errorf("limit cgroup %q: %w", g.path, err)
	}
	return nil
}

// defaultPeriod is how often the kernel looks at a quota, in microseconds.
const defaultPeriod = 100_000

// Throttle applies the CPU quota that Create has left out.
func (g *Group) Throttle() error {
	g.mu.Lock()
	cpu := cgroups.Resources{CpuQuota: g.res.CpuQuota, CpuPeriod: g.res.CpuPeriod, CpuBurst: g.res.CpuBurst, SkipDevices: true}
	g.mu.Unlock()
	if cpu.CpuQuota <= 0 && (cpu.CpuPeriod == 0 || cpu.CpuPeriod == defaultPeriod) {
		return nil // as the kernel makes a group
	}
	return g.set(&cpu)
}

// Update applies the limits in r that are set, and leaves the others alone.
func (g *Group) Update(r *specs.LinuxResources) error {
	res, err := convert(r, cgroups.IsCgroup2UnifiedMode(), g.log)
	if err != nil {
		return fmt.Errorf("cgroup %q: %w", g.path, err)
	}
	res.SkipDevices, res.Devices = true, nil
	if res.CpuQuota != 0 { // also for a Throttle that is still to come
		g.mu.Lock()
		g.res.CpuQuota = res.CpuQuota
		if res.CpuPeriod != 0 {
			g.res.CpuPeriod = res.CpuPeriod
		}
		g.mu.Unlock()
	}
	return g.set(res)
}

func (g *Group) set(r *cgroups.Resources) error {
	if err := g.m.Set(r); err != nil {
		return fmt.Errorf("limit cgroup %q: %w", g.path, err)
	}
	return nil
}

// Procs are the files that a process joins the group through by writing "0".
func (g *Group) Procs() []string {
	var out []string
	for _, dir := range g.m.GetPaths() {
		if dir != "" {
			out = append(out, filepath.Join(dir, cgroups.CgroupProcesses))
		}
	}
	return out
}

// Join is the quick way in for a process that is just being forked: it is born in
// dir, in the unified hierarchy (empty when the machine has none), and its first
// thread writes "0" to each of tasks. Moving a whole process makes the kernel
// wait for a grace period, some milliseconds; neither of these does.
func (g *Group) Join() (dir string, tasks []string) {
	if g.paths != nil {
		return g.joinV1()
	}
	for _, p := range g.m.GetPaths() {
		if p == "" {
			continue
		}
		v1 := filepath.Join(p, "tasks")
		if _, err := os.Stat(v1); err == nil {
			tasks = append(tasks, v1)
		} else {
			dir = p
		}
	}
	return dir, tasks
}

// Add moves a process into the group.
func (g *Group) Add(pid int) error { return g.m.AddPid("", pid) }

// Pids are the processes in the group and below.
func (g *Group) Pids() ([]int, error) {
	pids, err := g.m.GetAllPids()
	if errors.Is(err, os.ErrNotExist) {
		return nil, nil
	}
	return pids, err
}

// OOMKills is how many processes the kernel has killed for want of memory.
func (g *Group) OOMKills() uint64 {
	n, err := g.m.OOMKillCount()
	if err != nil {
		return 0
	}
	return n
}

// Freeze stops (or with false continues) every process of the group.
func (g *Group) Freeze(frozen bool) error {
	state := cgroups.Thawed
	if frozen {
		state = cgroups.Frozen
	}
	return g.m.Freeze(state)
}

// FreezerDir is the directory through which the group is frozen; empty where the machine
// has no freezer.
func (g *Group) FreezerDir() string {
	if g.paths == nil {
		return g.m.Path("freezer")
	}
	return g.paths["freezer"]
}

// Freezer is the file through which the group is frozen, and what is written to it for
// that; empty where the machine has no freezer.
func (g *Group) Freezer() (file, word string) {
	dir := g.FreezerDir()
	switch {
	case dir == "":
		return "", ""
	case cgroups.IsCgroup2UnifiedMode():
		return filepath.Join(dir, "cgroup.freeze"), "1"
	}
	return filepath.Join(dir, "freezer.state"), string(cgroups.Frozen)
}

// Frozen reports whether Freeze has stopped the group. One that is not there is
// not frozen.
func (g *Group) Frozen() bool {
	state, err := g.m.GetFreezerState()
	return err == nil && state == cgroups.Frozen
}

// Signal sends sig to every process of the group. For SIGKILL the group is
// frozen first (or killed by the kernel, where it can), so that no fork escapes.
func (g *Group) Signal(sig syscall.Signal) error {
	if sig == syscall.SIGKILL && g.killAll() == nil {
		return nil
	}
	if sig == syscall.SIGKILL {
		if pids, err := g.Pids(); err == nil && len(pids) == 0 {
			return nil // nobody is there to fork
		}
		if err := g.Freeze(true); err == nil {
			defer func() { _ = g.Freeze(false) }() // Remove tells when nothing has died
		}
	}
	pids, err := g.Pids()
	if err != nil {
		return fmt.Errorf("processes of cgroup %q: %w", g.path, err)
	}
	for _, pid := range pids {
		if err := syscall.Kill(pid, sig); err != nil && !errors.Is(err, syscall.ESRCH) {
			return fmt.Errorf("signal process %d of cgroup %q: %w", pid, g.path, err)
		}
	}
	return nil
}

// killAll uses cgroup.kill (v2, Linux 5.14).
func (g *Group) killAll() error {
	if !cgroups.IsCgroup2UnifiedMode() {
		return errors.ErrUnsupported
	}
	return os.WriteFile(filepath.Join(g.m.Path(""), "cgroup.kill"), []byte("1"), 0)
}

// removePause is how long Remove waits between tries: the kernel lets a group go
// a moment after its last process.
const removePause = 2 * time.Millisecond

// Remove removes the group, which must have no processes any more, and everything
// below it. A group that is gone already is no error.
func (g *Group) Remove(ctx context.Context) error {
	for {
		err := errors.Join(removeTrees(g.m.GetPaths()))
		if err == nil {
			return nil
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("remove cgroup %q: %w", g.path, err)
		case <-time.After(removePause):
		}
	}
}

func removeTrees(paths map[string]string) error {
	var all error
	for _, dir := range paths {
		if dir != "" {
			all = errors.Join(all, removeTree(dir))
		}
	}
	return all
}

// removeTree removes directories only: a cgroup's files go with it.
func removeTree(dir string) error {
	err := syscall.Rmdir(dir)
	if err == nil || errors.Is(err, syscall.ENOENT) {
		return nil
	}
	entries, rerr := os.ReadDir(dir)
	if rerr != nil {
		return nil
	}
	for _, e := range entries {
		if e.IsDir() {
			_ = removeTree(filepath.Join(dir, e.Name())) // the next Rmdir tells
		}
	}
	if err := syscall.Rmdir(dir); err != nil && !errors.Is(err, syscall.ENOENT) {
		return &os.PathError{Op: "rmdir", Path: dir, Err: err}
	}
	return nil
}

// RemoveEmpty removes the group at path in every hierarchy where it is empty.
func RemoveEmpty(path string) {
	if filepath.Clean(path) == "/" || !filepath.IsAbs(path) {
		return
	}
	_ = syscall.Rmdir(filepath.Join("/sys/fs/cgroup", path)) // it fails where it is not empty
	controllers, err := os.ReadDir("/sys/fs/cgroup")
	if err != nil || cgroups.IsCgroup2UnifiedMode() {
		return
	}
	for _, c := range controllers {
		if c.IsDir() {
			_ = syscall.Rmdir(filepath.Join("/sys/fs/cgroup", c.Name(), path))
		}
	}
}
