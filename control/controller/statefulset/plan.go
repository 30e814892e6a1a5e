package statefulset

import (
	"slices"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/util/intstr"

	"github.com/sampan-dev/sampan/control/controller"
)

// version is a template and the name of the revision that keeps it.
type version struct {
	name     string
	template *corev1.PodTemplateSpec
}

type verb string

const (
	create verb = "create"
	remove verb = "delete"
	// repair brings identity, volumes and the owners of claims in order.
	repair verb = "update"
	// claim makes claims that a pending pod lacks.
	claim verb = "claim"
	// keep brings the owners of a condemned pod's claims in order.
	keep verb = "keep"
)

// step is one thing to do with one pod, and why.
type step struct {
	verb   verb
	pod    *corev1.Pod
	reason string
}

// plan is what to do for one set, in phases. A phase begins when all steps of the
// one before have succeeded. The steps of a phase come one after the other, or
// of a parallel set at the same time.
type plan struct {
	phases   [][]step
	parallel bool
	status   appsv1.StatefulSetStatus
	again    time.Duration
	// most is how many pods may be missing while they are updated, missing how many
	// are.
	most, missing int
}

// view is what a decision depends on besides set and pods.
type view struct {
	current, update version
	collisions      int32 // of revisions' names
	// claims says of a pod whether its claims are settled; whether one is left
	// from an earlier pod of that name, which has to go first; and whether one is
	// missing.
	claims func(*corev1.Pod) (settled, left, missing bool)
	now    time.Time
}

// round is a plan in the making.
type round struct {
	set       *appsv1.StatefulSet
	view      view
	replicas  []*corev1.Pod // by ordinal; those that are missing as they would be made
	missing   []bool
	condemned []*corev1.Pod // greatest ordinal first
	sick      *corev1.Pod   // the first that is not available
	plan      plan
}

// decide is the whole of the controller's judgement. pods are the set's own.
func decide(set *appsv1.StatefulSet, pods []*corev1.Pod, v view) plan {
	r := &round{set: set, view: v}
	r.plan.parallel = set.Spec.PodManagementPolicy == appsv1.ParallelPodManagement
	r.plan.status = statusOf(set, pods, v)
	r.plan.again = controller.NextAvailable(pods, set.Spec.MinReadySeconds, v.now)
	r.sort(pods)
	if set.DeletionTimestamp == nil && r.establish() && r.scaleDown() {
		r.roll()
	}
	complete(set, &r.plan.status)
	return r.plan
}

// sort finds out which pods there are, should be, and should not be.
func (r *round) sort(pods []*corev1.Pod) {
	n := int(*r.set.Spec.Replicas)
	r.replicas, r.missing = make([]*corev1.Pod, n), make([]bool, n)
	for _, pod := range pods {
		switch {
		case within(r.set, pod):
			r.replicas[ordinalOf(pod)-first(r.set)] = pod
		case ordinalOf(pod) != noOrdinal:
			r.condemned = append(r.condemned, pod)
		}
	}
	for i := range r.replicas {
		if r.replicas[i] == nil {
			r.replicas[i], r.missing[i] = podFor(r.set, r.versionFor(first(r.set)+i), first(r.set)+i), true
		}
	}
	r.plan.most = r.budget()
	for _, pod := range r.replicas {
		if !r.healthy(pod) {
			r.plan.missing++
		}
	}
	slices.SortFunc(r.condemned, func(a, b *corev1.Pod) int { return ordinalOf(b) - ordinalOf(a) })
	ascending := slices.Clone(r.condemned)
	slices.Reverse(ascending)
	for _, pod := range slices.Concat(r.replicas, ascending) {
		if r.sick == nil && !r.healthy(pod) {
			r.sick = pod
		}
	}
}

// versionFor is what a new pod is made of: of the current revision below a rolling
// update's partition.
func (r *round) versionFor(ordinal int) version {
	strategy := &r.set.Spec.UpdateStrategy
	below := first(r.set)
	switch {
	case strategy.RollingUpdate != nil && strategy.RollingUpdate.Partition != nil:
		below += int(*strategy.RollingUpdate.Partition)
	case strategy.RollingUpdate == nil && strategy.Type == appsv1.RollingUpdateStatefulSetStrategyType:
		below += int(r.set.Status.CurrentReplicas)
	}
	if ordinal < below {
		return r.view.current
	}
	return r.view.update
}

// healthy says whether a pod is available and stays.
func (r *round) healthy(pod *corev1.Pod) bool {
	return pod.DeletionTimestamp == nil && r.available(pod)
}

func (r *round) available(pod *corev1.Pod) bool {
	return controller.Available(pod, r.set.Spec.MinReadySeconds, r.view.now)
}

// establish makes the pods that should be there, in order. It says whether it is
// time to go on to others.
func (r *round) establish() bool {
	var phase []step
	waits := false
	for i, pod := range r.replicas {
		s, wait := r.replica(pod, r.missing[i])
		if s.verb != "" {
			phase = append(phase, s)
		}
		if waits = wait && !r.plan.parallel; waits {
			break
		}
	}
	r.add(phase)
	return !waits
}

// replica is what one pod needs, and whether those after it have to wait.
func (r *round) replica(pod *corev1.Pod, missing bool) (s step, wait bool) {
	settled, left, lacks := r.view.claims(pod)
	switch {
	case missing && left:
		return step{}, true // until its former claim is gone
	case missing:
		return step{create, pod, "it is missing"}, true
	case controller.Ended(pod) && pod.DeletionTimestamp == nil:
		return step{remove, pod, "it has ended"}, true
	case controller.Ended(pod):
		return step{}, true
	}
	if pod.Status.Phase == corev1.PodPending && (lacks || !settled) {
		s = step{claim, pod, "it waits for claims"}
	}
	waits := !r.healthy(pod) || pod.Status.Phase != corev1.PodRunning
	odd := !identified(pod) || !attached(r.set, pod) || !settled
	if odd && (r.plan.parallel || !waits) {
		s = step{repair, pod, "it is not what the set says"}
	}
	return s, waits
}

// scaleDown removes the pods that should not be there, the last first. It says
// whether it is time to go on.
func (r *round) scaleDown() bool {
	var owners []step
	for _, pod := range r.condemned {
		if settled, _, _ := r.view.claims(pod); !settled {
			owners = append(owners, step{keep, pod, "its claims have other owners now"})
		}
	}
	r.add(owners)
	var phase []step
	for _, pod := range r.condemned {
		if pod.DeletionTimestamp != nil {
			if !r.plan.parallel {
				return false // one after the other
			}
			continue
		}
		if !r.plan.parallel && pod != r.sick && (pod.Status.Phase != corev1.PodRunning || !r.available(pod)) {
			return false // another one is worse: that has to be well first
		}
		phase = append(phase, step{remove, pod, "the set is smaller"})
		if !r.plan.parallel {
			break
		}
	}
	r.add(phase)
	return r.plan.parallel || len(phase) == 0
}

// roll replaces pods of other revisions, the last first, as many at once as may
// be unavailable.
func (r *round) roll() {
	strategy := &r.set.Spec.UpdateStrategy
	if strategy.Type != appsv1.RollingUpdateStatefulSetStrategyType {
		return
	}
	partition, budget := 0, r.plan.most-r.plan.missing
	if rolling := strategy.RollingUpdate; rolling != nil && rolling.Partition != nil {
		partition = int(*rolling.Partition)
	}
	var phase []step
	take := func(pod *corev1.Pod, reason string) {
		phase = append(phase, step{remove, pod, reason})
		if revisionOf(pod) == r.view.current.name {
			r.plan.status.CurrentReplicas--
		}
	}
	old := func(i int) bool {
		pod := r.replicas[i]
		return !r.missing[i] && revisionOf(pod) != r.view.update.name && pod.DeletionTimestamp == nil
	}
	for i := len(r.replicas) - 1; r.plan.parallel && i >= partition; i-- {
		if old(i) && !r.available(r.replicas[i]) { // it costs nothing
			take(r.replicas[i], "it is of another revision and not available anyway")
		}
	}
	for i := len(r.replicas) - 1; i >= partition && budget > 0; i-- {
		if old(i) && (!r.plan.parallel || r.available(r.replicas[i])) {
			take(r.replicas[i], "it is of another revision")
			budget--
		}
	}
	r.add(phase)
}

// budget is how many pods may be missing at once while they are updated.
func (r *round) budget() int {
	if rolling := r.set.Spec.UpdateStrategy.RollingUpdate; rolling != nil {
		return maxUnavailable(rolling.MaxUnavailable, len(r.replicas))
	}
	return 1
}

func (r *round) add(phase []step) {
	if len(phase) > 0 {
		r.plan.phases = append(r.plan.phases, phase)
	}
}

// maxUnavailable is at least one, however small a percentage is.
func maxUnavailable(limit *intstr.IntOrString, replicas int) int {
	// Validation has refused what cannot be resolved.
	n, _ := intstr.GetScaledValueFromIntOrPercent(intstr.ValueOrDefault(limit, intstr.FromInt32(1)), replicas, false)
	return max(1, n)
}

// statusOf is the set's status by its pods, as they were before the plan.
func statusOf(set *appsv1.StatefulSet, pods []*corev1.Pod, v view) appsv1.StatefulSetStatus {
	status := appsv1.StatefulSetStatus{
		ObservedGeneration: set.Generation,
		CurrentRevision:    v.current.name,
		UpdateRevision:     v.update.name,
		CollisionCount:     &v.collisions,
		Conditions:         set.Status.Conditions,
	}
	for _, pod := range pods {
		status.Replicas++
		if ready, _ := controller.Ready(pod); ready && pod.Status.Phase == corev1.PodRunning {
			status.ReadyReplicas++
			if controller.Available(pod, set.Spec.MinReadySeconds, v.now) {
				status.AvailableReplicas++
			}
		}
		if pod.DeletionTimestamp != nil {
			continue
		}
		if revisionOf(pod) == v.current.name {
			status.CurrentReplicas++
		}
		if revisionOf(pod) == v.update.name {
			status.UpdatedReplicas++
		}
	}
	return status
}

// complete ends an update once all pods are of its revision.
func complete(set *appsv1.StatefulSet, status *appsv1.StatefulSetStatus) {
	want := *set.Spec.Replicas
	if status.UpdatedReplicas == want && status.ReadyReplicas == want && status.Replicas == want {
		status.CurrentReplicas, status.CurrentRevision = status.UpdatedReplicas, status.UpdateRevision
	}
}
