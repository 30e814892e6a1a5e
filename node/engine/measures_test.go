package engine

import (
	"testing"

	rt "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/sampan-dev/sampan/node/container"
)

// TestInodesOfAContainer: a container's inodes are its own, not those of the file system
// that its layer lies on.
func TestInodesOfAContainer(t *testing.T) {
	about := &subject{used: &container.Usage{}, root: t.TempDir(),
		stats: &rt.ContainerStats{WritableLayer: &rt.FilesystemUsage{InodesUsed: value(7)}}}
	want := map[string]float64{"container_fs_inodes_total": 7, "container_fs_inodes_free": 0}
	for _, m := range diskMeasures() {
		n, asked := want[m.name]
		if !asked {
			continue
		}
		delete(want, m.name)
		if got := m.of(about); len(got) != 1 || got[0].value != n {
			t.Errorf("%s: %v, want %v", m.name, got, n)
		}
	}
	if len(want) > 0 {
		t.Errorf("not measured: %v", want)
	}
}
