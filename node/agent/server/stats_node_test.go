package server

import (
	"testing"

	stats "k8s.io/kubelet/pkg/apis/stats/v1alpha1"
)

// TestSystemContainers: the agent's page faults, and the sums of the pods', with what is
// left to them.
func TestSystemContainers(t *testing.T) {
	pod := func(set, faults, major uint64) stats.PodStats {
		return stats.PodStats{Memory: &stats.MemoryStats{WorkingSetBytes: &set, PageFaults: &faults, MajorPageFaults: &major}}
	}
	sum := &stats.Summary{Pods: []stats.PodStats{pod(100, 7, 1), pod(50, 5, 0), {}, {Memory: &stats.MemoryStats{}}}}
	for _, c := range []struct {
		room uint64
		free int64 // -1 for not known
	}{{1000, 850}, {120, 0}, {0, -1}} {
		list := systemContainers(sum, c.room)
		if len(list) != 2 || list[0].Name != stats.SystemContainerKubelet || list[1].Name != stats.SystemContainerPods {
			t.Fatalf("containers %+v", list)
		}
		own, pods := list[0].Memory, list[1].Memory
		if own.PageFaults == nil || *own.PageFaults == 0 || own.MajorPageFaults == nil || *own.MajorPageFaults > *own.PageFaults || own.AvailableBytes != nil {
			t.Errorf("the agent's memory: %+v", own)
		}
		free := int64(-1)
		if pods.AvailableBytes != nil {
			free = int64(*pods.AvailableBytes)
		}
		if *pods.PageFaults != 12 || *pods.MajorPageFaults != 1 || *pods.WorkingSetBytes != 150 || free != c.free {
			t.Errorf("of %d bytes: faults %d, %d, working set %d, free %d, want %d", c.room, *pods.PageFaults, *pods.MajorPageFaults, *pods.WorkingSetBytes, free, c.free)
		}
	}
}
