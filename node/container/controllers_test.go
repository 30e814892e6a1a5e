package container

import (
	"slices"
	"strings"
	"testing"

	"github.com/sampan-dev/sampan/node/container/cgroup"
)

// To ask for each hierarchy by itself and to look through all mounts is the same. A
// kernel that can't be asked, or a machine without hierarchies of v1, says so.
func TestControllers(t *testing.T) {
	byName := func(a, b controller) int { return strings.Compare(a.dir, b.dir) }
	asked, ok := askedControllers(cgroup.Mounted())
	listed := listedControllers()
	slices.SortFunc(asked, byName)
	slices.SortFunc(listed, byName)
	if ok && !slices.Equal(asked, listed) {
		t.Errorf("asked for: %q, listed: %q", asked, listed)
	}
	if _, can := optionsAt("/sys/fs/cgroup"); can != ok && len(cgroup.Mounted()) > 0 {
		t.Errorf("the kernel can be asked: %v; it was: %v", can, ok)
	}
	if _, ok := optionsAt("/no such directory"); ok {
		t.Error("a directory that is not there has mount options")
	}
	if _, ok := askedControllers(nil); ok {
		t.Error("no hierarchies are taken for an answer")
	}
}

func TestNaming(t *testing.T) {
	for options, want := range map[string]string{
		"rw,cpu,cpuacct": "cpu,cpuacct", "xattr,release_agent=/lib/agent,name=systemd": "xattr,name=systemd", "ro": "", "": "", "pids": "pids",
	} {
		if got := naming(options); got != want {
			t.Errorf("of %q: %q, want %q", options, got, want)
		}
	}
}
