package resources

import (
	"math"

	corev1 "k8s.io/api/core/v1"

	"github.com/sampan-dev/sampan/control/scheduler"
	"github.com/sampan-dev/sampan/control/scheduler/plugin/shape"
)

// Weighed is a resource with what it counts.
type Weighed struct {
	Name   corev1.ResourceName
	Weight int64
}

// Usual are the resources that count when nothing else is said.
func Usual() []Weighed { return []Weighed{{corev1.ResourceCPU, 1}, {corev1.ResourceMemory, 1}} }

// Strategy says which nodes are the good ones.
type Strategy int

// The strategies.
const (
	Least Strategy = iota // idle nodes
	Most                  // full nodes: bin packing
	Ratio                 // nodes as full as a shape says
)

// Score is the scoring part of upstream's NodeResourcesFit.
type Score struct {
	Strategy  Strategy
	Resources []Weighed
	// Shape is for Ratio.
	Shape shape.Shape
}

// Name implements scheduler.Score.
func (Score) Name() string { return "NodeResourcesFit" }

// Depends implements scheduler.Score.
func (Score) Depends() scheduler.Dependence { return scheduler.OnPods }

// Weight implements scheduler.Score.
func (Score) Weight() int64 { return 1 }

// For implements scheduler.Score. Containers without requests count as small ones, and
// what the pod requests as a whole does not count: upstream's rule here, other than for
// what is on the node already.
func (s Score) For(pod *corev1.Pod, _ scheduler.View) scheduler.Rating {
	want := scheduler.ContainerRequests(pod)
	r := &rating{Score: s, want: make([]int64, len(s.Resources))}
	for i, w := range s.Resources {
		r.want[i] = amount(&want, w.Name)
	}
	return r
}

type rating struct {
	Score
	want []int64
}

// Rate is the weighted mean of the resources that the node has.
func (r *rating) Rate(n *scheduler.Node) int64 {
	var sum, weights int64
	for i, w := range r.Resources {
		if r.want[i] == 0 && extended(w.Name) {
			continue
		}
		total := amount(&n.Allocatable, w.Name)
		if total == 0 {
			continue
		}
		used := amount(&n.NonZero, w.Name) + r.want[i]
		score := r.one(used, total)
		if r.Strategy == Ratio && score <= 0 {
			continue // upstream's rule: such a resource does not count at all
		}
		sum += score * w.Weight
		weights += w.Weight
	}
	switch {
	case weights == 0:
		return 0
	case r.Strategy == Ratio:
		return int64(math.Round(float64(sum) / float64(weights)))
	}
	return sum / weights
}

// one rates one resource.
func (r *rating) one(used, total int64) int64 {
	switch r.Strategy {
	case Most:
		return min(used, total) * scheduler.MaxScore / total
	case Ratio:
		return r.Shape.At(used, total)
	}
	if used > total {
		return 0
	}
	return (total - used) * scheduler.MaxScore / total
}

// Normalise implements scheduler.Rating.
func (*rating) Normalise([]*scheduler.Node, []int64) {}

// Plain implements scheduler.PlainRating.
func (*rating) Plain() {}

// amount of one resource.
func amount(r *scheduler.Resources, name corev1.ResourceName) int64 {
	switch name {
	case corev1.ResourceCPU:
		return r.MilliCPU
	case corev1.ResourceMemory:
		return r.Memory
	case corev1.ResourceEphemeralStorage:
		return r.EphemeralStorage
	}
	return r.Scalar[name]
}

func extended(name corev1.ResourceName) bool {
	return name != corev1.ResourceCPU && name != corev1.ResourceMemory && name != corev1.ResourceEphemeralStorage
}

// Balanced prefers nodes on which the shares of the resources in use come closer
// to each other: upstream's NodeResourcesBalancedAllocation.
type Balanced struct {
	Resources []Weighed
}

// Name implements scheduler.Score.
func (Balanced) Name() string { return "NodeResourcesBalancedAllocation" }

// Depends implements scheduler.Score.
func (Balanced) Depends() scheduler.Dependence { return scheduler.OnPods }

// Weight implements scheduler.Score.
func (Balanced) Weight() int64 { return 1 }

// For implements scheduler.Score. A best-effort pod changes no balance.
func (b Balanced) For(pod *corev1.Pod, _ scheduler.View) scheduler.Rating {
	requests := scheduler.Requests(pod)
	want := make([]int64, len(b.Resources))
	some := false
	for i, w := range b.Resources {
		want[i] = amount(&requests, w.Name)
		some = some || want[i] > 0
	}
	if !some {
		return nil
	}
	return &balance{b.Resources, want}
}

type balance struct {
	resources []Weighed
	want      []int64
}

// Rate is about 75 when the pod changes nothing, more when the node gets into
// better balance, less when into worse.
func (b *balance) Rate(n *scheduler.Node) int64 {
	const half = scheduler.MaxScore / 2
	return half + (half+b.evenness(n, true)-b.evenness(n, false))/2
}

// evenness is 100 less the standard deviation of the shares in use, in per cent.
func (b *balance) evenness(n *scheduler.Node, with bool) int64 {
	var few [4]float64
	shares, sum := few[:0], 0.0
	for i, w := range b.resources {
		total := amount(&n.Allocatable, w.Name)
		if total == 0 || b.want[i] == 0 && extended(w.Name) {
			continue
		}
		used := amount(&n.Requested, w.Name)
		if with {
			used += b.want[i]
		}
		share := min(1, float64(used)/float64(total))
		shares, sum = append(shares, share), sum+share
	}
	return int64((1 - deviation(shares, sum)) * scheduler.MaxScore)
}

func deviation(shares []float64, sum float64) float64 {
	switch len(shares) {
	case 0, 1:
		return 0
	case 2:
		return math.Abs((shares[0] - shares[1]) / 2)
	}
	mean, squares := sum/float64(len(shares)), 0.0
	for _, s := range shares {
		squares += (s - mean) * (s - mean)
	}
	return math.Sqrt(squares / float64(len(shares)))
}

// Normalise implements scheduler.Rating.
func (*balance) Normalise([]*scheduler.Node, []int64) {}

// Plain implements scheduler.PlainRating.
func (*balance) Plain() {}
