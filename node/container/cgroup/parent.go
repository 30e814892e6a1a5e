package cgroup

import (
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strconv"

	"github.com/opencontainers/cgroups"
	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
)

// Limit gives the group at path, a parent of containers' groups, the limits that
// are set in r, and makes it first if need be. They hold for all groups below it
// together. Devices are not a parent's business: every container has its rules.
func Limit(path string, r *specs.LinuxResources, log *slog.Logger) error {
	g, err := Open(path, r, log)
	if err != nil {
		return err
	}
	g.res.SkipDevices, g.res.Devices = true, nil
	if err := g.m.Apply(-1); err != nil {
		return fmt.Errorf("create cgroup %q: %w", path, err)
	}
	err = g.set(g.res)
	if errors.Is(err, unix.EINVAL) && g.liftDead() {
		err = g.set(g.res)
	}
	return err
}

// liftDead takes the CPU quota from the groups below that nobody is in any more, and
// reports whether there were some. On cgroup v1 no group may have less than one below
// it, and that of a container that has ended stays until the container is removed.
func (g *Group) liftDead() bool {
	dir := g.m.Path("cpu")
	if dir == "" || cgroups.IsCgroup2UnifiedMode() {
		return false
	}
	below, err := os.ReadDir(dir)
	if err != nil {
		return false
	}
	lifted := false
	for _, e := range below {
		one := filepath.Join(dir, e.Name())
		if !e.IsDir() || unlimited(one) {
			continue
		}
		if pids, err := cgroups.GetAllPids(one); err == nil && len(pids) == 0 {
			lifted = writeFile(filepath.Join(one, cfsQuota), "-1") == nil || lifted
		}
	}
	return lifted
}

// cfsQuota is the file of cgroup v1 with a group's share of processor time, -1 for no
// limit of its own.
const cfsQuota = "cpu.cfs_quota_us"

func unlimited(dir string) bool { return readLine(filepath.Join(dir, cfsQuota)) == "-1" }

// PidsMax is the file of the pids controller, whose format both versions share.
const PidsMax = "pids.max"

// unifiedOnV1 takes over what cgroup v1 has under the same name, and says what
// it leaves out.
func unifiedOnV1(out *specs.LinuxResources, unified map[string]string, log *slog.Logger) error {
	for name, value := range unified {
		if name != PidsMax {
			log.Warn("a unified resource is left out: this machine has cgroup v1", "resource", name)
			continue
		}
		limit := int64(-1)
		if value != "max" {
			n, err := strconv.ParseInt(value, 10, 64)
			if err != nil || n <= 0 {
				return fmt.Errorf("unified resource %s: %q is no limit", PidsMax, value)
			}
			limit = n
		}
		out.Pids = &specs.LinuxPids{Limit: &limit}
	}
	return nil
}
