package container

import (
	"path/filepath"
	"slices"
	"strings"
	"sync"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/sampan-dev/sampan/node/container/cgroup"
	"github.com/sampan-dev/sampan/node/container/plan"
)

// controller is a cgroup v1 hierarchy: the directory it is mounted on, and the
// mount options that name it.
type controller struct{ dir, options string }

// seesHostGroups says whether mounts of cgroup v1 would show a container those of the
// whole machine: they show what is below the root of its cgroup namespace.
func seesHostGroups(p *plan.Plan, spec *specs.Spec) bool {
	return slices.ContainsFunc(p.Mounts, isV1Group) &&
		!slices.ContainsFunc(spec.Linux.Namespaces, func(ns specs.LinuxNamespace) bool { return ns.Type == specs.CgroupNamespace })
}

func isV1Group(m plan.Mount) bool { return m.Type == "cgroup" && !m.Bind }

// showOwnGroups makes a group, and shows a container without a cgroup namespace that of
// each hierarchy, as other runtimes do, and nothing of those that it has none in.
func showOwnGroups(p *plan.Plan, g *cgroup.Group) error {
	if err := g.Create(); err != nil {
		return err
	}
	p.CgroupsLate = false
	p.Mounts = slices.DeleteFunc(p.Mounts, func(m plan.Mount) bool {
		return isV1Group(m) && unix.Access(groupBehind(m, g.Path()), unix.F_OK) != nil
	})
	for i := range p.Mounts {
		if m := &p.Mounts[i]; isV1Group(*m) {
			*m = plan.Mount{Source: groupBehind(*m, g.Path()), Target: m.Target, Type: "bind", Bind: true, Dir: true, Flags: m.Flags, Propagation: m.Propagation}
		}
	}
	return nil
}

// groupBehind is the directory of a group in the hierarchy that a mount is of.
func groupBehind(m plan.Mount, group string) string {
	return filepath.Join("/sys/fs/cgroup", filepath.Base(m.Target), group)
}

// unifiedCgroups reports whether the machine has cgroup v2 only.
var unifiedCgroups = sync.OnceValue(func() bool {
	var st unix.Statfs_t
	return unix.Statfs("/sys/fs/cgroup", &st) == nil && st.Type == unix.CGROUP2_SUPER_MAGIC
})

// v1Controllers are the hierarchies of this machine, read once.
var v1Controllers = sync.OnceValue(func() []controller {
	if out, ok := askedControllers(cgroup.Mounted()); ok {
		return out
	}
	return listedControllers()
})

// askedControllers asks for the options of each hierarchy by itself: a machine with many
// containers has many mounts, and to read the list of all takes long. ok is false where
// the kernel can't be asked (before 6.11), or there is none.
func askedControllers(dirs []string) (out []controller, ok bool) {
	for _, dir := range dirs {
		options, ok := optionsAt(dir)
		if !ok {
			return nil, false
		}
		out = append(out, controller{filepath.Base(dir), naming(options)})
	}
	return out, len(out) > 0
}

// naming are the mount options that name a hierarchy.
func naming(options string) string {
	var keep []string
	for o := range strings.SplitSeq(options, ",") {
		if o != "" && o != "rw" && o != "ro" && !strings.HasPrefix(o, "release_agent=") {
			keep = append(keep, o)
		}
	}
	return strings.Join(keep, ",")
}

// listedControllers finds the hierarchies in the list of all mounts.
func listedControllers() (out []controller) {
	b, err := readFile("/proc/self/mountinfo")
	if err != nil {
		return nil
	}
	for line := range strings.Lines(string(b)) {
		left, right, ok := strings.Cut(line, " - ")
		l, r := strings.Fields(left), strings.Fields(right)
		if !ok || len(l) < 5 || len(r) < 3 || r[0] != "cgroup" {
			continue
		}
		dir, found := strings.CutPrefix(l[4], "/sys/fs/cgroup/")
		if !found || strings.Contains(dir, "/") {
			continue
		}
		out = append(out, controller{dir, naming(r[2])})
	}
	return out
}
