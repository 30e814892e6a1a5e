package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/sampan-dev/sampan/cli"
	"github.com/sampan-dev/sampan/node/agent"
	"github.com/sampan-dev/sampan/node/build"
	"github.com/sampan-dev/sampan/node/container/cgroup"
	"github.com/sampan-dev/sampan/node/engine"
	"github.com/sampan-dev/sampan/node/network"
	"github.com/sampan-dev/sampan/node/peers"
	"github.com/sampan-dev/sampan/node/proxy"
	"github.com/sampan-dev/sampan/node/segment"
)

// down removes what a cluster has left on the machine: containers, network,
// mounts, cgroups and everything that a reboot would void. It wants the process
// that ran the cluster gone, and succeeds when there was none.
func down(ctx context.Context, o cli.DownOptions) error {
	log := slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: slog.LevelError}))
	var errs []error
	var orderly error // why things could not be taken apart one by one
	if exists(filepath.Join(o.DataDir, "engine")) {
		orderly = removePods(ctx, o.Settings, log)
	} else if exists(o.RunDir) {
		orderly = fmt.Errorf("%q is gone", filepath.Join(o.DataDir, "engine"))
	}
	if orderly != nil {
		errs = append(errs, removeByForce(ctx, o.Settings, log))
	}
	errs = append(errs, network.Unanswer(loopbackRecord(o.Settings)))
	errs = append(errs, clearRunners(o.Settings), build.Clear(filepath.Join(o.DataDir, "build", "cache")))
	errs = append(errs, proxy.Cleanup(""), segment.Cleanup(), peers.Cleanup(""), agent.Purge(podDirs(o.Settings)))
	if o.Purge {
		errs = append(errs, agent.PurgeImages(podDirs(o.Settings)))
	}
	errs = append(errs, unmountBelow(o.DataDir, o.RunDir))
	errs = append(errs, removeCgroups(o.Cgroup()))
	for _, dir := range []string{o.RunDir, filepath.Join(o.DataDir, "pods"), filepath.Join(o.DataDir, "engine")} {
		errs = append(errs, os.RemoveAll(dir))
	}
	if err := errors.Join(errs...); err != nil {
		return fmt.Errorf("something could not be removed: %w", errors.Join(err, orderly))
	}
	return nil
}

// forceTime bounds how long the kernel may take to end what was killed.
const forceTime = 30 * time.Second

// removeByForce kills whatever is in the cluster's cgroup, and takes its network away:
// for when there are no records to go by, or they or the images can't be read. What is
// in the directories goes with them.
func removeByForce(ctx context.Context, s cli.Settings, log *slog.Logger) error {
	ctx, cancel := context.WithTimeout(ctx, forceTime)
	defer cancel()
	group, err := cgroup.Open(s.Cgroup(), nil, log)
	if err != nil {
		return err
	}
	if err := errors.Join(group.Signal(unix.SIGKILL), group.Remove(ctx)); err != nil {
		return err
	}
	state := filepath.Join(s.DataDir, "network")
	if !exists(state) {
		state = filepath.Join(s.RunDir, "network")
	}
	pods, err := network.Open(network.Config{State: state, Log: log})
	if err != nil {
		return fmt.Errorf("pod network: %w", err)
	}
	return errors.Join(pods.Cleanup(ctx), pods.Close())
}

func exists(path string) bool {
	_, err := os.Lstat(path)
	return err == nil
}

// removePods opens the engine once more to end every container and free what
// each has.
func removePods(ctx context.Context, s cli.Settings, log *slog.Logger) error {
	p, err := openParts(partsConfig{Settings: s, log: log})
	if err != nil {
		return errors.Join(err, p.close())
	}
	e, err := engine.New(p.cfg)
	if err != nil {
		return errors.Join(err, p.cfg.Runtime.Shutdown(ctx), p.close())
	}
	return errors.Join(e.Purge(ctx), e.Close(), p.cfg.Runtime.Shutdown(ctx), p.close())
}

// unmountBelow detaches every mount below the directories, the last made first.
func unmountBelow(dirs ...string) error {
	f, err := os.Open("/proc/self/mountinfo")
	if err != nil {
		return err
	}
	defer f.Close()
	var points []string
	for lines := bufio.NewScanner(f); lines.Scan(); {
		fields := strings.Fields(lines.Text())
		point := strings.NewReplacer(`\040`, " ", `\011`, "\t", `\134`, `\`).Replace(fields[4])
		if slices.ContainsFunc(dirs, func(d string) bool { return strings.HasPrefix(point, d+"/") }) {
			points = append(points, point)
		}
	}
	var errs []error
	for _, point := range slices.Backward(points) {
		if err := unix.Unmount(point, unix.MNT_DETACH|unix.UMOUNT_NOFOLLOW); err != nil && !errors.Is(err, unix.EINVAL) {
			errs = append(errs, fmt.Errorf("unmount %q: %w", point, err))
		}
	}
	return errors.Join(errs...)
}

// removeCgroups ends what is left in a group, and removes it and those below it, in every
// hierarchy. The kernel lets a group go a moment after its last process.
func removeCgroups(below string) error {
	ctx, cancel := context.WithTimeout(context.Background(), forceTime)
	defer cancel()
	group, err := cgroup.Open(below, nil, slog.New(slog.DiscardHandler))
	if err == nil {
		err = errors.Join(group.Signal(unix.SIGKILL), group.Remove(ctx))
	}
	return errors.Join(err, removeGroups(below))
}

// removeGroups is removeCgroups of hierarchies that have no controller too.
func removeGroups(below string) error {
	roots, err := filepath.Glob("/sys/fs/cgroup/*" + below)
	if err != nil {
		return err
	}
	var errs []error
	for _, root := range append(roots, "/sys/fs/cgroup"+below) {
		var groups []string
		_ = filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
			if err == nil && d.IsDir() {
				groups = append(groups, path)
			}
			return nil // gone meanwhile, or never there
		})
		for _, g := range slices.Backward(groups) {
			if err := unix.Rmdir(g); err != nil && !errors.Is(err, unix.ENOENT) {
				errs = append(errs, fmt.Errorf("remove cgroup %q: %w", g, err))
			}
		}
	}
	return errors.Join(errs...)
}
