package deployment

import (
	"cmp"
	"math"
	"slices"
	"strconv"

	appsv1 "k8s.io/api/apps/v1"
)

// resized says whether the deployment's size was changed since its active sets
// were last written: then they grow or shrink in proportion, and the rollout
// waits. Recreation knows no shares: there the rollout goes on.
func (r *round) resized() bool {
	all := active(r.all())
	if r.d.Spec.Strategy.Type == appsv1.RecreateDeploymentStrategyType && len(all) > 1 {
		return false
	}
	for _, rs := range all {
		if desired, ok := noted(rs, desiredAnnotation); ok && desired != *r.d.Spec.Replicas {
			return true
		}
	}
	return false
}

// resize spreads a change of size over the sets there are, so that a rollout in
// progress, which may be of a bad template, is not hastened by it.
func (r *round) resize() {
	want := *r.d.Spec.Replicas
	if only := r.onlyOne(); only != nil {
		r.scale(only, want, "the deployment has been resized")
		r.noteSizes(only)
		return
	}
	if r.saturated() {
		for _, rs := range active(r.sets) {
			r.scale(rs, 0, "the new set has all its pods")
		}
		return
	}
	if r.d.Spec.Strategy.Type != appsv1.RollingUpdateDeploymentStrategyType {
		return
	}
	r.spread()
}

// onlyOne is the only active set, or the newest when none is; nil when several
// are.
func (r *round) onlyOne() *appsv1.ReplicaSet {
	switch all := active(r.all()); {
	case len(all) == 1:
		return all[0]
	case len(all) > 1:
		return nil
	}
	if r.fresh != nil || len(r.sets) == 0 {
		return r.fresh
	}
	return r.sets[len(r.sets)-1]
}

func (r *round) saturated() bool {
	if r.fresh == nil {
		return false
	}
	want := *r.d.Spec.Replicas
	return *r.fresh.Spec.Replicas == want && r.fresh.Status.AvailableReplicas == want &&
		r.fresh.Annotations[desiredAnnotation] == strconv.Itoa(int(want))
}

// spread gives each active set its share of the difference, the largest first;
// what rounding leaves goes to the largest.
func (r *round) spread() {
	all := active(r.all())
	surge, _ := fenceposts(r.d)
	allowed := int32(0)
	if *r.d.Spec.Replicas > 0 {
		allowed = *r.d.Spec.Replicas + surge
	}
	add := allowed - specReplicas(all)
	slices.SortFunc(all, func(a, b *appsv1.ReplicaSet) int {
		age := oldestFirst(a, b)
		if add > 0 {
			age = -age // newer sets grow first, older ones shrink first
		}
		return cmp.Or(cmp.Compare(*b.Spec.Replicas, *a.Spec.Replicas), age)
	})
	sizes := make([]int32, len(all))
	left := add
	for i, rs := range all {
		share := r.share(rs)
		switch {
		case left == 0: // nothing to give, though rounding or an annotation says otherwise
			share = 0
		case add > 0:
			share = min(share, left)
		default:
			share = max(share, left)
		}
		sizes[i] = *rs.Spec.Replicas + share
		left -= share
	}
	for i, rs := range all {
		if i == 0 {
			sizes[0] = max(0, sizes[0]+left)
		}
		r.scale(rs, sizes[i], "its share of the deployment's new size")
		r.noteSizes(rs)
	}
}

// share is by how much rs would change if it kept its part of the whole.
func (r *round) share(rs *appsv1.ReplicaSet) int32 {
	size := *rs.Spec.Replicas
	if *r.d.Spec.Replicas == 0 {
		return -size
	}
	before, ok := noted(rs, maximumAnnotation)
	if !ok || before == 0 {
		before = r.was.Replicas // somebody took the annotation away
	}
	if before == 0 {
		return 0
	}
	surge, _ := fenceposts(r.d)
	whole := *r.d.Spec.Replicas + surge
	return int32(math.Round(float64(size)*float64(whole)/float64(before))) - size
}

// noted is a size out of an annotation; false when somebody wrote nonsense there.
func noted(rs *appsv1.ReplicaSet, annotation string) (int32, bool) {
	n, err := strconv.ParseUint(rs.Annotations[annotation], 10, 31)
	return int32(n), err == nil //nolint:gosec // 31 bits
}

// scale gives rs a size; it says whether that is another one.
func (r *round) scale(rs *appsv1.ReplicaSet, size int32, reason string) bool {
	if *rs.Spec.Replicas == size {
		return false
	}
	*rs.Spec.Replicas = size
	r.setSizes(rs)
	r.reasons[rs] = reason
	return true
}

// noteSizes updates the annotations of a set whose size may be right already.
func (r *round) noteSizes(rs *appsv1.ReplicaSet) {
	if r.setSizes(rs) {
		r.touch(rs, "it notes the deployment's size")
	}
}
