package cgroup

import (
	"fmt"
	"log/slog"
	"strconv"

	"github.com/opencontainers/cgroups"
	specs "github.com/opencontainers/runtime-spec/specs-go"
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
	return g.set(g.res)
}

// pidsMax is the file of the pids controller, whose format both versions share.
const pidsMax = "pids.max"

// unifiedOnV1 takes over what cgroup v1 has under the same name, and says what
// it leaves out.
func unifiedOnV1(out *cgroups.Resources, unified map[string]string, log *slog.Logger) error {
	for name, value := range unified {
		if name != pidsMax {
			log.Warn("a unified resource is left out: this machine has cgroup v1", "resource", name)
			continue
		}
		limit := int64(-1)
		if value != "max" {
			n, err := strconv.ParseInt(value, 10, 64)
			if err != nil || n <= 0 {
				return fmt.Errorf("unified resource %s: %q is no limit", pidsMax, value)
			}
			limit = n
		}
		out.PidsLimit = &limit
	}
	return nil
}
