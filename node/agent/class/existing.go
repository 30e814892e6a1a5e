package class

import (
	"fmt"
	"os"
	"path/filepath"
	"strconv"
)

// Existing bounds a cgroup that somebody else has made: the system's, or that of
// Kubernetes' own parts (enforceNodeAllocatable). mount is where cgroups are mounted. It
// fails when the group is not there.
func Existing(mount, group string, l Limits) error {
	s := Shares{Mount: mount}
	files := []struct {
		controller, name string
		value            int64
	}{{"memory", "memory.limit_in_bytes", l.Memory}, {"pids", "pids.max", l.Pids}, {"cpu", "cpu.shares", l.Shares}}
	if s.unified() {
		files[0].name, files[2].name, files[2].value = "memory.max", "cpu.weight", weight(l.Shares)
		if l.Shares == 0 {
			files[2].value = 0
		}
	}
	for _, f := range files {
		if f.value == 0 {
			continue
		}
		dir := filepath.Join(mount, f.controller, group)
		if s.unified() {
			dir = filepath.Join(mount, group)
		}
		if _, err := os.Stat(dir); err != nil {
			return fmt.Errorf("cgroup %q is not there: %w", group, err)
		}
		if err := write(filepath.Join(dir, f.name), strconv.FormatInt(f.value, 10)); err != nil {
			return fmt.Errorf("bound cgroup %q: %w", group, err)
		}
	}
	return nil
}
