package pressure

import (
	"bufio"
	"os"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// Machine is where a node's observations come from.
type Machine struct {
	// Node is a path on the file system of pods; Images one on that of images,
	// "" when that isn't known.
	Node, Images string
	// Proc is where proc is mounted, "" for /proc.
	Proc string
}

// Observe reads the machine; what can't be read is left out.
//
// The capacity of a file system is what files may use of it: some keep more
// from users than they give.
func (m Machine) Observe() Observations {
	seen := Observations{}
	if total, available, ok := m.memory(); ok {
		seen[Memory] = Observation{Available: available, Capacity: total}
	}
	files(seen, m.Node, NodeFS, NodeFSInodes)
	if m.Images != "" {
		files(seen, m.Images, ImageFS, ImageFSInodes)
		files(seen, m.Images, ContainerFS, ContainerFSInodes)
	}
	if limit, used, ok := m.pids(); ok {
		seen[Pids] = Observation{Available: limit - used, Capacity: limit}
	}
	return seen
}

// MaxPids is how many process numbers the machine has.
func MaxPids() (int64, bool) {
	limit, _, ok := Machine{}.pids()
	return limit, ok
}

// Dedicated says whether images have a file system of their own.
func (m Machine) Dedicated() bool {
	var a, b unix.Stat_t
	if m.Images == "" || unix.Stat(m.Node, &a) != nil || unix.Stat(m.Images, &b) != nil {
		return false
	}
	return a.Dev != b.Dev
}

func files(seen Observations, path string, space, nodes Signal) {
	var s unix.Statfs_t
	if err := unix.Statfs(path, &s); err != nil {
		return
	}
	seen[space] = Observation{Available: int64(s.Bavail) * s.Bsize, Capacity: int64(s.Blocks-s.Bfree+s.Bavail) * s.Bsize}
	if s.Files > 0 { // some file systems count no inodes
		seen[nodes] = Observation{Available: int64(s.Ffree), Capacity: int64(s.Files)}
	}
}

func (m Machine) path(name string) string {
	if m.Proc != "" {
		return m.Proc + "/" + name
	}
	return "/proc/" + name
}

func (m Machine) memory() (total, available int64, ok bool) {
	f, err := os.Open(m.path("meminfo"))
	if err != nil {
		return 0, 0, false
	}
	defer f.Close()
	found := map[string]int64{}
	for lines := bufio.NewScanner(f); lines.Scan(); {
		fields := strings.Fields(lines.Text())
		if len(fields) < 2 {
			continue
		}
		if kib, err := strconv.ParseInt(fields[1], 10, 64); err == nil {
			found[fields[0]] = kib << 10
		}
	}
	total, haveTotal := found["MemTotal:"]
	available, haveFree := found["MemAvailable:"]
	return total, available, haveTotal && haveFree
}

// pids are all process numbers and those taken. The fourth field of loadavg is
// running/all.
func (m Machine) pids() (limit, used int64, ok bool) {
	load, err := os.ReadFile(m.path("loadavg"))
	if err != nil {
		return 0, 0, false
	}
	most, err := os.ReadFile(m.path("sys/kernel/pid_max"))
	fields := strings.Fields(string(load))
	if err != nil || len(fields) < 4 {
		return 0, 0, false
	}
	_, text, _ := strings.Cut(fields[3], "/")
	used, usedErr := strconv.ParseInt(text, 10, 64)
	limit, limitErr := strconv.ParseInt(strings.TrimSpace(string(most)), 10, 64)
	if threads, err := os.ReadFile(m.path("sys/kernel/threads-max")); err == nil {
		if n, err := strconv.ParseInt(strings.TrimSpace(string(threads)), 10, 64); err == nil {
			limit = min(limit, n)
		}
	}
	return limit, used, usedErr == nil && limitErr == nil
}
