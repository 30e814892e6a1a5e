package agent

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"

	"github.com/sampan-dev/sampan/node/agent/device"
	"github.com/sampan-dev/sampan/node/agent/pulled"
	"github.com/sampan-dev/sampan/node/agent/roster"
	"github.com/sampan-dev/sampan/node/volume"
)

// cgroupMount is where machines have cgroup hierarchies: version 2 itself, or a
// directory a controller.
const cgroupMount = "/sys/fs/cgroup"

// Purge removes all that an agent with this configuration keeps on the node:
// pods' volumes and directories, their logs, and the cgroups above the pods'
// own. It is for after the engine has removed every container; what is still in
// use stays, and is told of. No agent may be running.
func Purge(cfg Config) error {
	or(&cfg.Root, filepath.Join(defaultData, "pods"))
	or(&cfg.CgroupRoot, defaultCgroup)
	volumes := volume.New(volume.Config{Root: cfg.Root})
	uids, err := volumes.Orphans(func(string) bool { return false })
	for _, uid := range uids {
		err = errors.Join(err, volumes.Remove(uid))
	}
	err = errors.Join(err, purgeCgroups(cfg.CgroupRoot))
	if err != nil {
		return fmt.Errorf("purge the agent's state: %w", err)
	}
	or(&cfg.KubeletRoot, kubeletRoot(cfg.Root))
	return errors.Join(removeDir(cfg.Root), purgeLogs(logRoot(cfg.Root), uids), purgePlugins(cfg.KubeletRoot))
}

// PurgeImages removes what is remembered of who has pulled which image: for when the
// images go as well.
func PurgeImages(cfg Config) error {
	or(&cfg.Root, filepath.Join(defaultData, "pods"))
	or(&cfg.KubeletRoot, kubeletRoot(cfg.Root))
	err := os.RemoveAll(filepath.Join(cfg.KubeletRoot, pulled.Directory))
	_ = os.Remove(cfg.KubeletRoot) // others may have something there
	return err
}

// purgePlugins removes our files from where plugins look for a kubelet, and the
// directories that are empty then. What plugins keep there is theirs.
func purgePlugins(root string) error {
	var failed error
	for _, name := range []string{
		"device-plugins/" + device.Socket, "device-plugins/" + device.StateFile, claimState, "pod-resources/kubelet.sock",
		roster.Socket,
		cpuState, memoryState,
	} {
		if err := os.Remove(filepath.Join(root, name)); err != nil && !errors.Is(err, fs.ErrNotExist) {
			failed = errors.Join(failed, err)
		}
	}
	for _, dir := range []string{"device-plugins", "plugins_registry", "plugins", "pod-resources", "pods-api", ""} {
		_ = os.Remove(filepath.Join(root, dir)) // it may not be empty, or not be there
	}
	return failed
}

// removeDir removes a directory that should be empty by now: never what may
// still be mounted inside.
func removeDir(path string) error {
	if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("remove %q: %w", path, err)
	}
	return nil
}

// purgeCgroups removes kubepods in every hierarchy, with its classes and what another
// engine has left of pods. A cgroup with processes in it can't be removed: that is the
// kernel's safeguard.
func purgeCgroups(root string) error {
	found, err := filepath.Glob(filepath.Join(cgroupMount, "*", root, "kubepods"))
	if err != nil {
		return err
	}
	var failed error
	for _, top := range append(found, filepath.Join(cgroupMount, root, "kubepods")) {
		var groups []string
		_ = filepath.WalkDir(top, func(path string, d fs.DirEntry, err error) error {
			if err == nil && d.IsDir() {
				groups = append(groups, path)
			}
			return nil // gone meanwhile, or never there
		})
		for _, path := range slices.Backward(groups) { // what is below comes first
			failed = errors.Join(failed, removeDir(path))
		}
	}
	return failed
}
