package pace

import (
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// cgroups is where control groups are mounted.
const cgroups = "/sys/fs/cgroup"

// machine is how much memory there is for this process, in bytes: the machine's, or
// what its control groups allow. 0 when nobody says.
func machine() uint64 {
	var info unix.Sysinfo_t
	if err := unix.Sysinfo(&info); err != nil {
		return 0
	}
	groups, err := os.ReadFile("/proc/self/cgroup")
	if err != nil {
		groups = nil // none, as far as we can see
	}
	return allowed(uint64(info.Totalram)*uint64(info.Unit), cgroups, string(groups)) //nolint:unconvert // narrower elsewhere
}

// allowed is the least of total and of what the groups allow, and those that they
// are in. groups is as in /proc/self/cgroup, for both versions of control groups.
func allowed(total uint64, root, groups string) uint64 {
	for line := range strings.Lines(groups) {
		parts := strings.SplitN(strings.TrimSpace(line), ":", 3)
		if len(parts) != 3 {
			continue
		}
		top, file := root, "memory.max"
		if parts[1] != "" {
			if parts[1] != "memory" {
				continue
			}
			top, file = filepath.Join(root, "memory"), "memory.limit_in_bytes"
		}
		for dir := filepath.Clean("/" + parts[2]); ; dir = filepath.Dir(dir) {
			if limit, ok := limitIn(filepath.Join(top, dir, file)); ok {
				total = min(total, limit)
			}
			if dir == "/" {
				break
			}
		}
	}
	return total
}

// limitIn reads a limit; "max" is none.
func limitIn(path string) (limit uint64, ok bool) {
	text, err := os.ReadFile(path)
	if err != nil {
		return 0, false
	}
	limit, err = strconv.ParseUint(strings.TrimSpace(string(text)), 10, 64)
	return limit, err == nil && limit > 0
}
