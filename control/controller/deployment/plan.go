package deployment

import (
	"cmp"
	"slices"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/intstr"
)

// plan is what to do for one deployment: the sets to make, change and remove,
// and the status it has afterwards.
type plan struct {
	steps    []step
	revision string // the deployment's revision annotation; "" leaves it as it is
	status   appsv1.DeploymentStatus
	back     *rollback // to write last, if a rollback has been asked for
	again    time.Duration
}

type verb string

const (
	create verb = "create"
	update verb = "update"
	remove verb = "remove"
)

// step is one write to a replica set, and why.
type step struct {
	verb   verb
	set    *appsv1.ReplicaSet // as it shall be
	from   int32              // replicas before
	reason string
}

// round is a plan in the making. Sets are changed in it, never in the mirror, so
// that a decision sees those before it.
type round struct {
	d       *appsv1.Deployment // a copy; Status is what the plan ends with
	was     appsv1.DeploymentStatus
	sets    []*appsv1.ReplicaSet // copies, oldest first; without the new one
	fresh   *appsv1.ReplicaSet   // the set of the present template; nil: there is none
	from    map[*appsv1.ReplicaSet]int32
	reasons map[*appsv1.ReplicaSet]string
	created bool // fresh is not stored yet
	removed []step
	now     metav1.Time
	plan    plan
}

// decide is the whole of the controller's judgement. sets are the deployment's
// own; oldPodsRemain says whether pods live that are not of the given set.
func decide(d *appsv1.Deployment, sets []*appsv1.ReplicaSet, oldPodsRemain func(fresh *appsv1.ReplicaSet) bool, now time.Time) plan {
	r := newRound(d, sets, now)
	switch {
	case d.DeletionTimestamp != nil:
		r.adoptRevision()
		r.d.Status = r.counted()
	case d.Spec.Paused:
		r.notePause()
		r.adoptRevision()
		r.resize()
		if _, asked := rollbackTo(d); !asked {
			r.cleanUp() // what is to be gone back to may be among the oldest
		}
		r.d.Status = r.counted()
	case r.rollBack():
	case r.resized():
		r.notePause()
		r.adoptRevision()
		r.resize()
		r.d.Status = r.counted()
	case d.Spec.Strategy.Type == appsv1.RecreateDeploymentStrategyType:
		r.notePause()
		r.recreate(oldPodsRemain)
		r.judgeProgress()
	default:
		r.notePause()
		r.roll()
		r.judgeProgress()
	}
	return r.finish()
}

func newRound(d *appsv1.Deployment, sets []*appsv1.ReplicaSet, now time.Time) *round {
	r := &round{
		d: d.DeepCopy(), was: d.Status, now: metav1.NewTime(now),
		from: map[*appsv1.ReplicaSet]int32{}, reasons: map[*appsv1.ReplicaSet]string{},
	}
	for _, rs := range sets {
		next := rs.DeepCopy()
		r.from[next] = *rs.Spec.Replicas
		r.sets = append(r.sets, next)
	}
	slices.SortFunc(r.sets, oldestFirst)
	for i, rs := range r.sets {
		if sameTemplate(&rs.Spec.Template, &d.Spec.Template) {
			r.fresh = rs
			r.sets = slices.Delete(r.sets, i, i+1)
			break
		}
	}
	return r
}

// finish turns the round's changes into steps: what grows comes last.
func (r *round) finish() plan {
	for _, rs := range r.all() {
		reason, changed := r.reasons[rs]
		if !changed {
			continue
		}
		s := step{verb: update, set: rs, from: r.from[rs], reason: reason}
		if rs == r.fresh && r.created {
			s.verb = create
		}
		r.plan.steps = append(r.plan.steps, s)
	}
	r.plan.steps = append(r.plan.steps, r.removed...)
	r.plan.status = r.d.Status
	r.plan.again = r.progressCheck()
	return r.plan
}

// roll is the rolling update: first up, if there is room, else down.
func (r *round) roll() {
	r.ensureFresh()
	if r.growFresh() || r.shrinkOld() {
		return
	}
	if complete(r.d, &r.was) {
		r.cleanUp()
	}
}

// growFresh brings the new set towards its size as far as the surge allows.
func (r *round) growFresh() bool {
	want := *r.d.Spec.Replicas
	have := *r.fresh.Spec.Replicas
	switch {
	case have == want:
		return false
	case have > want:
		return r.scale(r.fresh, want, "the deployment has been scaled down")
	}
	return r.scale(r.fresh, r.roomForFresh(), "there is room within the surge")
}

// roomForFresh is how many replicas the new set may have now.
func (r *round) roomForFresh() int32 {
	want := *r.d.Spec.Replicas
	if r.d.Spec.Strategy.Type == appsv1.RecreateDeploymentStrategyType {
		return want
	}
	have := *r.fresh.Spec.Replicas
	surge, _ := fenceposts(r.d)
	room := want + surge - specReplicas(r.all())
	if room <= 0 {
		return have
	}
	return have + min(room, want-have)
}

// shrinkOld takes pods from old sets: first those that do not serve anyway, then
// as many as the new set's available pods make up for.
func (r *round) shrinkOld() bool {
	old := active(r.sets)
	if len(old) == 0 {
		return false
	}
	_, unavailable := fenceposts(r.d)
	minimum := *r.d.Spec.Replicas - unavailable
	pending := *r.fresh.Spec.Replicas - r.fresh.Status.AvailableReplicas
	spare := specReplicas(r.all()) - minimum - pending
	if spare <= 0 {
		return false
	}
	shrunk := false
	for _, rs := range old {
		broken := *rs.Spec.Replicas - rs.Status.AvailableReplicas
		if n := min(spare, broken); n > 0 {
			r.scale(rs, *rs.Spec.Replicas-n, "its unavailable pods serve nobody")
			spare -= n
			shrunk = true
		}
	}
	spare = availableReplicas(r.all()) - minimum
	for _, rs := range old {
		if n := min(spare, *rs.Spec.Replicas); n > 0 {
			r.scale(rs, *rs.Spec.Replicas-n, "enough other pods are available")
			spare -= n
			shrunk = true
		}
	}
	return shrunk
}

// recreate ends all old pods before the first new one starts.
func (r *round) recreate(oldPodsRemain func(*appsv1.ReplicaSet) bool) {
	r.adoptRevision()
	shrunk := false
	for _, rs := range active(r.sets) {
		shrunk = r.scale(rs, 0, "all old pods go before a new one comes") || shrunk
	}
	if shrunk || actualReplicas(r.sets) > 0 || oldPodsRemain(r.fresh) {
		return
	}
	r.ensureFresh()
	r.scale(r.fresh, *r.d.Spec.Replicas, "the old pods are gone")
	if complete(r.d, &r.was) {
		r.cleanUp()
	}
}

// cleanUp removes empty old sets beyond the history limit, oldest revision first.
func (r *round) cleanUp() {
	if r.d.Spec.RevisionHistoryLimit == nil {
		return
	}
	alive := slices.DeleteFunc(slices.Clone(r.sets), func(rs *appsv1.ReplicaSet) bool { return rs.DeletionTimestamp != nil })
	slices.SortStableFunc(alive, func(a, b *appsv1.ReplicaSet) int { return cmp.Compare(revisionOf(a), revisionOf(b)) })
	for i := range len(alive) - int(*r.d.Spec.RevisionHistoryLimit) {
		rs := alive[i]
		if rs.Status.Replicas == 0 && *rs.Spec.Replicas == 0 && rs.Generation <= rs.Status.ObservedGeneration {
			r.removed = append(r.removed, step{verb: remove, set: rs, reason: "the history is longer than its limit"})
		}
	}
}

// all is every set, the new one last; it may be missing.
func (r *round) all() []*appsv1.ReplicaSet {
	if r.fresh == nil {
		return r.sets
	}
	return append(slices.Clone(r.sets), r.fresh)
}

// fenceposts resolves the rolling update's bounds to pods. Both may round to
// nothing, which would be a standstill: then one pod may be missing.
func fenceposts(d *appsv1.Deployment) (surge, unavailable int32) {
	rolling := d.Spec.Strategy.RollingUpdate
	if d.Spec.Strategy.Type != appsv1.RollingUpdateDeploymentStrategyType || rolling == nil {
		return 0, 0
	}
	want := int(*d.Spec.Replicas)
	none := intstr.FromInt32(0)
	// Validation has refused what cannot be resolved.
	up, _ := intstr.GetScaledValueFromIntOrPercent(intstr.ValueOrDefault(rolling.MaxSurge, none), want, true)
	down, _ := intstr.GetScaledValueFromIntOrPercent(intstr.ValueOrDefault(rolling.MaxUnavailable, none), want, false)
	if up == 0 && down == 0 {
		down = 1
	}
	return int32(up), int32(min(down, want))
}

func oldestFirst(a, b *appsv1.ReplicaSet) int {
	return cmp.Or(a.CreationTimestamp.Compare(b.CreationTimestamp.Time), cmp.Compare(a.Name, b.Name))
}

func active(sets []*appsv1.ReplicaSet) []*appsv1.ReplicaSet {
	return slices.DeleteFunc(slices.Clone(sets), func(rs *appsv1.ReplicaSet) bool { return *rs.Spec.Replicas == 0 })
}

func sum(sets []*appsv1.ReplicaSet, of func(*appsv1.ReplicaSet) int32) (n int32) {
	for _, rs := range sets {
		n += of(rs)
	}
	return n
}

func specReplicas(sets []*appsv1.ReplicaSet) int32 {
	return sum(sets, func(rs *appsv1.ReplicaSet) int32 { return *rs.Spec.Replicas })
}

func actualReplicas(sets []*appsv1.ReplicaSet) int32 {
	return sum(sets, func(rs *appsv1.ReplicaSet) int32 { return rs.Status.Replicas })
}

func availableReplicas(sets []*appsv1.ReplicaSet) int32 {
	return sum(sets, func(rs *appsv1.ReplicaSet) int32 { return rs.Status.AvailableReplicas })
}
