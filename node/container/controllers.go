package container

import (
	"strings"
	"sync"

	"golang.org/x/sys/unix"
)

// controller is a cgroup v1 hierarchy: the directory it is mounted on, and the
// mount options that name it.
type controller struct{ dir, options string }

// unifiedCgroups reports whether the machine has cgroup v2 only.
var unifiedCgroups = sync.OnceValue(func() bool {
	var st unix.Statfs_t
	return unix.Statfs("/sys/fs/cgroup", &st) == nil && st.Type == unix.CGROUP2_SUPER_MAGIC
})

// v1Controllers are the hierarchies of this machine, read once.
var v1Controllers = sync.OnceValue(func() []controller {
	b, err := readFile("/proc/self/mountinfo")
	if err != nil {
		return nil
	}
	var out []controller
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
		var options []string
		for _, o := range strings.Split(r[2], ",") {
			if o != "rw" && o != "ro" && !strings.HasPrefix(o, "release_agent=") {
				options = append(options, o)
			}
		}
		out = append(out, controller{dir, strings.Join(options, ",")})
	}
	return out
})
