package image

import (
	"context"
	"fmt"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/sampan-dev/sampan/internal/selinux"
)

// labels are what SELinux knows the directories of a store by that overlays are made of:
// what containers may execute, and what they may write. An overlay has a label of its own,
// and still Linux before the mend of CVE-2026-46054 asks, when a program maps a file, for
// the label of that which lies below. What is made in them later inherits their types, as
// what is unpacked does those of where that happens.
func labels(c selinux.Contexts) map[string]string {
	if c.Process == (selinux.Label{}) || c.ReadOnly == (selinux.Label{}) {
		return nil
	}
	return map[string]string{"ingest": c.ReadOnly.String(), "layers": c.ReadOnly.String(), "snapshots": c.File.String()}
}

// label gives those directories their labels, where the kernel has SELinux. A directory
// comes after all that is in it, so one that has its label is done.
func (s *Store) label() error {
	if !selinux.Enabled() {
		return nil
	}
	c, err := selinux.ReadContexts()
	if err != nil {
		return err
	}
	for name, want := range labels(c) {
		dir := filepath.Join(s.root, name)
		now := make([]byte, len(want)+1) // the kernel ends it with a zero; one that is longer is another
		if n, err := unix.Lgetxattr(dir, selinux.Attribute, now); err == nil && strings.TrimRight(string(now[:n]), "\x00") == want {
			continue
		}
		if err := selinux.Relabel(context.Background(), dir, want); err != nil {
			return fmt.Errorf("image store: %w", err)
		}
	}
	return nil
}
