package daemonset

import (
	"cmp"
	"slices"

	corev1 "k8s.io/api/core/v1"
)

// pair finds a node's new and old pod; false when it has two of a sort.
func (r *round) pair(on []*corev1.Pod) (fresh, old *corev1.Pod, ok bool) {
	for _, pod := range on {
		switch {
		case pod.DeletionTimestamp != nil:
		case r.updated(pod):
			if fresh != nil {
				return nil, nil, false
			}
			fresh = pod
		default:
			if old != nil {
				return nil, nil, false
			}
			old = pod
		}
	}
	return fresh, old, true
}

// names are the nodes that have pods or shall have one, in order.
func (r *round) names() []string {
	var all []string
	for name := range r.pods {
		all = append(all, name)
	}
	for name := range r.run {
		if len(r.pods[name]) == 0 {
			all = append(all, name)
		}
	}
	slices.Sort(all)
	return all
}

// roll replaces pods of former templates, as many at once as may be.
func (r *round) roll() {
	if r.surge > 0 {
		r.rollBySurge()
		return
	}
	missing := 0
	var useless, candidates []*corev1.Pod
	for _, name := range r.names() {
		fresh, old, ok := r.pair(r.pods[name])
		switch {
		case !ok, (fresh == nil) == (old == nil):
			missing++
		case fresh != nil:
			if !r.available(fresh) {
				missing++
			}
		case !r.available(old):
			useless = append(useless, old)
			missing++
		default:
			candidates = append(candidates, old)
		}
	}
	n := min(max(0, r.gone-missing), len(candidates))
	r.plan.delete = slices.Concat(useless, candidates[:n])
}

// rollBySurge makes new pods beside old ones, which go when the new one is
// available.
func (r *round) rollBySurge() {
	surging, available := 0, 0
	var useless, candidates []string
	var done, leaving []*corev1.Pod
	for _, name := range r.names() {
		fresh, old, ok := r.pair(r.pods[name])
		if !ok {
			surging++
			continue
		}
		if one := cmp.Or(old, fresh); one != nil && r.available(one) {
			available++
		}
		switch {
		case old == nil:
		case fresh != nil && !r.available(fresh):
			surging++
		case fresh != nil:
			done = append(done, old)
		case !r.run[name] && r.available(old):
			leaving = append(leaving, old) // may stay, but not come back
		case !r.run[name]:
			done = append(done, old)
		case !r.available(old):
			useless = append(useless, name)
		default:
			candidates = append(candidates, name)
		}
	}
	spare := min(max(0, available-len(r.run)), len(leaving))
	r.plan.delete = slices.Concat(done, leaving[:spare])
	n := min(max(0, r.surge-surging), len(candidates))
	r.plan.create = slices.Concat(useless, candidates[:n])
}
