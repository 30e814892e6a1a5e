// Package resources puts pods where their requests fit, preferring the most idle
// nodes and those on which cpu and memory stay in balance.
package resources

import (
	"math"
	"slices"

	corev1 "k8s.io/api/core/v1"

	"github.com/sampan-dev/sampan/control/scheduler"
)

// Filter is upstream's NodeResourcesFit.
type Filter struct{}

// Name implements scheduler.Filter.
func (Filter) Name() string { return "NodeResourcesFit" }

// For implements scheduler.Filter.
func (Filter) For(pod *corev1.Pod, _ scheduler.View) scheduler.Fit {
	want := scheduler.Requests(pod)
	return func(n *scheduler.Node) scheduler.Reason { return fits(want, n) }
}

// fits names the first resource that is short. A node too small even when empty
// is a final refusal.
func fits(want scheduler.Resources, n *scheduler.Node) scheduler.Reason {
	if int64(len(n.Pods))+1 > n.MaxPods {
		return scheduler.Reason{Text: "Too many pods", Final: n.MaxPods == 0}
	}
	for _, r := range []struct {
		name              corev1.ResourceName
		want, used, total int64
	}{
		{corev1.ResourceCPU, want.MilliCPU, n.Requested.MilliCPU, n.Allocatable.MilliCPU},
		{corev1.ResourceMemory, want.Memory, n.Requested.Memory, n.Allocatable.Memory},
		{corev1.ResourceEphemeralStorage, want.EphemeralStorage, n.Requested.EphemeralStorage, n.Allocatable.EphemeralStorage},
	} {
		if r.want > 0 && r.want > r.total-r.used {
			return insufficient(r.name, r.want > r.total)
		}
	}
	for _, name := range sorted(want.Scalar) {
		w, total := want.Scalar[name], n.Allocatable.Scalar[name]
		if w > 0 && w > total-n.Requested.Scalar[name] {
			return insufficient(name, w > total)
		}
	}
	return scheduler.OK
}

func insufficient(name corev1.ResourceName, final bool) scheduler.Reason {
	return scheduler.Reason{Text: "Insufficient " + string(name), Final: final}
}

func sorted(m map[corev1.ResourceName]int64) []corev1.ResourceName {
	names := make([]corev1.ResourceName, 0, len(m))
	for name := range m {
		names = append(names, name)
	}
	slices.Sort(names)
	return names
}

// Helps implements scheduler.Filter.
func (Filter) Helps(pod *corev1.Pod, c scheduler.Change) bool {
	switch c.Kind {
	case scheduler.PodRemoved:
		return true
	case scheduler.NodeAdded, scheduler.NodeAllocatable:
		want, have := scheduler.Requests(pod), scheduler.NewResources(c.Node.Status.Allocatable)
		return want.MilliCPU <= have.MilliCPU && want.Memory <= have.Memory
	}
	return false
}

// LeastAllocated prefers the most idle node, by cpu and memory alike.
type LeastAllocated struct{}

// Name implements scheduler.Score.
func (LeastAllocated) Name() string { return "NodeResourcesFit" }

// Weight implements scheduler.Score.
func (LeastAllocated) Weight() int64 { return 1 }

// For implements scheduler.Score.
func (LeastAllocated) For(pod *corev1.Pod, _ scheduler.View, _ []*scheduler.Node) scheduler.Rating {
	return least(scheduler.NonZeroRequests(pod))
}

type least scheduler.Resources

// Rate is the mean share of cpu and memory that would stay free.
func (want least) Rate(n *scheduler.Node) int64 {
	free := func(want, used, total int64) int64 {
		if total <= 0 || used+want > total {
			return 0
		}
		return (total - used - want) * scheduler.MaxScore / total
	}
	return (free(want.MilliCPU, n.NonZero.MilliCPU, n.Allocatable.MilliCPU) +
		free(want.Memory, n.NonZero.Memory, n.Allocatable.Memory)) / 2
}

func (least) Normalise([]int64) {}

// Balanced prefers nodes on which the shares of cpu and memory in use would be
// alike.
type Balanced struct{}

// Name implements scheduler.Score.
func (Balanced) Name() string { return "NodeResourcesBalancedAllocation" }

// Weight implements scheduler.Score.
func (Balanced) Weight() int64 { return 1 }

// For implements scheduler.Score. A best-effort pod changes no balance.
func (Balanced) For(pod *corev1.Pod, _ scheduler.View, _ []*scheduler.Node) scheduler.Rating {
	want := scheduler.Requests(pod)
	if want.MilliCPU == 0 && want.Memory == 0 {
		return nil
	}
	return balanced(want)
}

type balanced scheduler.Resources

// Rate is 100 less the standard deviation of the two shares, in per cent.
func (want balanced) Rate(n *scheduler.Node) int64 {
	share := func(want, used, total int64) float64 {
		if total <= 0 {
			return 0
		}
		return min(1, float64(used+want)/float64(total))
	}
	cpu := share(want.MilliCPU, n.Requested.MilliCPU, n.Allocatable.MilliCPU)
	memory := share(want.Memory, n.Requested.Memory, n.Allocatable.Memory)
	return int64((1 - math.Abs(cpu-memory)/2) * scheduler.MaxScore)
}

func (balanced) Normalise([]int64) {}
