package image

import (
	"fmt"
	"testing"

	"github.com/sampan-dev/sampan/internal/selinux"
)

// TestLabels: layers are what containers may execute, and what they write is theirs; a
// policy that has not both words changes nothing.
func TestLabels(t *testing.T) {
	process, file, ro := selinux.Label{User: "u", Role: "r", Type: "container_t", Level: "s0"},
		selinux.Label{User: "u", Role: "o", Type: "container_file_t", Level: "s0"}, selinux.Label{User: "u", Role: "o", Type: "container_ro_file_t", Level: "s0"}
	for _, c := range []struct {
		name string
		in   selinux.Contexts
		want string
	}{
		{"no SELinux", selinux.Contexts{}, "map[]"},
		{"no word for what is read", selinux.Contexts{Process: process, File: file}, "map[]"},
		{"all words", selinux.Contexts{Process: process, File: file, ReadOnly: ro}, "map[ingest:u:o:container_ro_file_t:s0 layers:u:o:container_ro_file_t:s0 snapshots:u:o:container_file_t:s0]"},
	} {
		if got := fmt.Sprint(labels(c.in)); got != c.want {
			t.Errorf("%s: %s, want %s", c.name, got, c.want)
		}
	}
}
