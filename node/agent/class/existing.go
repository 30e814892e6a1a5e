package class

import (
	"fmt"
	"os"
	"path/filepath"
)

// Existing bounds a cgroup that somebody else has made: the system's, or that of
// Kubernetes' own parts (enforceNodeAllocatable). mount is where cgroups are mounted. It
// fails when the group is not there.
func Existing(mount, group string, l Limits) error {
	s := Shares{Mount: mount}
	for _, b := range s.bounds(l) {
		dir := filepath.Join(mount, b.controller, group)
		if _, err := os.Stat(dir); err != nil {
			return fmt.Errorf("cgroup %q is not there: %w", group, err)
		}
		if err := b.set(dir); err != nil {
			return fmt.Errorf("bound cgroup %q: %w", group, err)
		}
	}
	return nil
}
