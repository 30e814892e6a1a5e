package devices

import (
	corev1 "k8s.io/api/core/v1"
	resourcev1 "k8s.io/api/resource/v1"
	"k8s.io/dynamic-resource-allocation/resourceclaim"

	"github.com/sampan-dev/sampan/control/scheduler"
)

// Score prefers nodes where requests with alternatives get their better ones.
type Score struct{ Plugin *Plugin }

// Name implements scheduler.Score.
func (Score) Name() string { return "DynamicResources" }

// Depends implements scheduler.Score.
func (Score) Depends() scheduler.Dependence { return scheduler.OnItself }

// Weight implements scheduler.Score.
func (Score) Weight() int64 { return weight }

// For implements scheduler.Score: it rates what the filter has found.
func (s Score) For(pod *corev1.Pod, _ scheduler.View) scheduler.Rating {
	a := s.Plugin.now
	if a == nil || a.pod != pod || len(a.claims) == 0 {
		return nil
	}
	return rating{a}
}

type rating struct{ *attempt }

// Rate implements scheduler.Rating.
func (r rating) Rate(n *scheduler.Node) (score int64) {
	p, found := r.nodes[n.Name]
	if !found {
		return 0
	}
	for _, w := range r.claims {
		if w.Status.Allocation != nil {
			score += preference(w.ResourceClaim, w.Status.Allocation)
		}
	}
	for i, c := range p.claims {
		score += preference(c, &p.results[i])
	}
	return score
}

// preference is the better, the earlier the alternatives stand that were chosen.
func preference(c *resourcev1.ResourceClaim, got *resourcev1.AllocationResult) (score int64) {
	chosen := map[string]bool{}
	for i := range got.Devices.Results {
		chosen[got.Devices.Results[i].Request] = true
	}
	for i := range c.Spec.Devices.Requests {
		r := &c.Spec.Devices.Requests[i]
		for j := range r.FirstAvailable {
			if chosen[resourceclaim.CreateSubRequestRef(r.Name, r.FirstAvailable[j].Name)] {
				score += int64(resourcev1.FirstAvailableDeviceRequestMaxSize - j)
			}
		}
	}
	return score
}

// Normalise implements scheduler.Rating.
func (rating) Normalise(_ []*scheduler.Node, scores []int64) { scheduler.Linear(scores, false) }
