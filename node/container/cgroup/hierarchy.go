package cgroup

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"

	"golang.org/x/sys/unix"
)

// root is where the machine has its hierarchies.
const root = "/sys/fs/cgroup"

// The keys that the library has for hierarchies without a controller: systemd's own,
// and the unified one beside those of v1.
const (
	systemdKey = "name=systemd"
	unifiedKey = ""
)

// hierarchy is a mounted hierarchy of v1, or the unified one beside them, by one of
// its controllers.
type hierarchy struct{ key, dir string }

// hierarchies are those of v1 in a fixed order, the devices' among them; nil when
// they are not mounted where they are expected, and then the library looks for them.
// They are looked up once: to do it for each container took as long as all limits.
func hierarchies() []hierarchy { return machine().all }

// Mounted are the directories of all hierarchies of v1 on this machine, by their names:
// also of those that no container is put under. It is nil when hierarchies is.
func Mounted() []string { return machine().v1 }

// mounts are what the machine has mounted.
type mounts struct {
	all []hierarchy
	v1  []string
}

var machine = sync.OnceValue(findHierarchies) //nolint:gochecknoglobals // what the machine has mounted

// controllers are those of v1 that containers are put under.
var controllers = []string{ //nolint:gochecknoglobals // a constant
	"cpuset", "devices", "memory", "cpu", "cpuacct", "pids", "blkio",
	"hugetlb", "net_cls", "net_prio", "perf_event", "freezer", "rdma", "misc",
}

func findHierarchies() (m mounts) {
	if fsType(root) != unix.TMPFS_MAGIC {
		return m
	}
	entries, err := os.ReadDir(root)
	if err != nil {
		return m
	}
	found, v1 := map[string]string{}, []string(nil)
	for _, e := range entries {
		dir := filepath.Join(root, e.Name())
		if e.Type()&os.ModeSymlink != 0 {
			continue // cpu, which is cpu,cpuacct: it has been found by that name
		}
		switch fsType(dir) {
		case unix.CGROUP_SUPER_MAGIC:
			v1 = append(v1, dir)
			for key := range strings.SplitSeq(e.Name(), ",") {
				found[strings.Replace(key, "systemd", systemdKey, 1)] = dir
			}
		case unix.CGROUP2_SUPER_MAGIC:
			if e.Name() == "unified" {
				found[unifiedKey] = dir
			}
		}
	}
	if found["devices"] == "" {
		return m
	}
	m.v1 = v1
	for _, key := range slices.Concat(controllers, []string{systemdKey, unifiedKey}) {
		if dir := found[key]; dir != "" {
			m.all = append(m.all, hierarchy{key, dir})
		}
	}
	return m
}

func fsType(path string) int64 {
	var st unix.Statfs_t
	if unix.Statfs(path, &st) != nil {
		return 0
	}
	return int64(st.Type) //nolint:unconvert // its size depends on the architecture
}

// pathsOf are the directories of the group at path, by the library's keys, or nil.
func pathsOf(path string) map[string]string {
	all := hierarchies()
	if all == nil {
		return nil
	}
	out := make(map[string]string, len(all))
	for _, h := range all {
		out[h.key] = filepath.Join(h.dir, path)
	}
	return out
}
