package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync"

	"golang.org/x/sys/unix"

	"github.com/sampan-dev/sampan/cli"
	"github.com/sampan-dev/sampan/node/build"
	"github.com/sampan-dev/sampan/node/container"
	"github.com/sampan-dev/sampan/node/engine/cdi"
)

// runner executes the RUNs of one build, with a keeper of the build's own: a
// cluster that runs beside it is not touched, and none is needed. The keeper
// starts with the first RUN.
func runner(s cli.Settings) (build.Runner, func() error, error) {
	if err := clearRunners(s); err != nil {
		return nil, nil, err
	}
	l := &lazyRunner{settings: s, name: fmt.Sprint(os.Getpid())}
	return l, l.close, nil
}

// clearRunners ends what builds have left that were killed: the RUN that went on,
// its keeper, its cgroup. A build that lives holds its lock.
func clearRunners(s cli.Settings) error {
	locks, err := filepath.Glob(filepath.Join(s.DataDir, "build", "*.lock"))
	if err != nil {
		return err
	}
	for _, path := range locks {
		lock, err := lockRunner(path)
		if err != nil {
			continue // it lives, or has just gone
		}
		l := &lazyRunner{settings: s, name: strings.TrimSuffix(filepath.Base(path), ".lock"), lock: lock}
		if err := l.clear(); err != nil {
			return fmt.Errorf("clear what a killed build has left: %w", err)
		}
	}
	return nil
}

// lockRunner takes a build's lock, or says that somebody has it.
func lockRunner(path string) (*os.File, error) {
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return nil, err
	}
	f, err := os.OpenFile(path, os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return nil, err
	}
	if err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		f.Close()
		return nil, err
	}
	return f, nil
}

type lazyRunner struct {
	settings cli.Settings
	name     string

	opening sync.Once
	failed  error
	lock    *os.File
	runtime *container.Runtime
}

// Run implements build.Runner. Stages run beside each other.
func (l *lazyRunner) Run(ctx context.Context, r build.Run) error {
	l.opening.Do(func() { l.failed = l.open() })
	if l.failed != nil {
		return l.failed
	}
	return build.Sandbox{Runtime: l.runtime, Devices: cdi.Read(cdi.DefaultDirs).Apply}.Run(ctx, r)
}

// FindDevices implements build.Devices.
func (l *lazyRunner) FindDevices(pattern string) []build.Device {
	known := cdi.Read(cdi.DefaultDirs)
	var found []build.Device
	for _, name := range known.Match(pattern) {
		found = append(found, build.Device{Name: name, Free: known.Free(name)})
	}
	return found
}

func (l *lazyRunner) dirs() (root, run string) {
	return filepath.Join(l.settings.DataDir, "build", "run-"+l.name), filepath.Join(l.settings.RunDir, "b"+l.name)
}

func (l *lazyRunner) cgroup() string { return l.settings.Cgroup() + "/build-" + l.name }

func (l *lazyRunner) lockPath() string {
	return filepath.Join(l.settings.DataDir, "build", l.name+".lock")
}

func (l *lazyRunner) open() (err error) {
	if l.lock, err = lockRunner(l.lockPath()); err != nil {
		return fmt.Errorf("build's lock: %w", err)
	}
	return l.connect()
}

// connect starts the build's keeper, or finds it.
func (l *lazyRunner) connect() error {
	root, run := l.dirs()
	var err error
	l.runtime, err = container.Open(container.Config{
		Root: root, Run: run, Keeper: container.Sealed(keeper), Cgroup: l.cgroup(), Log: slog.New(slog.DiscardHandler),
	})
	return err
}

// clear ends what another process has begun here.
func (l *lazyRunner) clear() error {
	if err := l.connect(); err != nil {
		return errors.Join(err, l.lock.Close())
	}
	var errs []error
	for _, c := range l.runtime.List() {
		errs = append(errs, l.runtime.Remove(context.Background(), c.ID))
	}
	return errors.Join(append(errs, l.close())...)
}

// close ends the keeper and removes its state.
func (l *lazyRunner) close() error {
	if l.runtime == nil {
		if l.lock != nil { // it could not be opened
			return errors.Join(os.Remove(l.lockPath()), l.lock.Close())
		}
		return nil
	}
	root, run := l.dirs()
	return errors.Join(l.runtime.Shutdown(context.Background()), l.runtime.Close(), removeCgroups(l.cgroup()), l.leaveParent(),
		os.RemoveAll(root), os.RemoveAll(run), os.Remove(l.lockPath()), l.lock.Close())
}

// leaveParent removes the group above the build's own. It is the cluster's too, and
// other builds': with something in it, it stays.
func (l *lazyRunner) leaveParent() error {
	others, err := filepath.Glob(filepath.Join(l.settings.DataDir, "build", "*.lock"))
	if err != nil || len(others) > 1 { // ours is one of them
		return err
	}
	above := l.settings.Cgroup()
	groups, err := filepath.Glob("/sys/fs/cgroup/*" + above)
	for _, g := range append(groups, "/sys/fs/cgroup"+above) {
		if e := unix.Rmdir(g); e != nil && !errors.Is(e, unix.ENOENT) && !errors.Is(e, unix.EBUSY) && !errors.Is(e, unix.ENOTEMPTY) {
			err = errors.Join(err, fmt.Errorf("remove cgroup %q: %w", g, e))
		}
	}
	return err
}
