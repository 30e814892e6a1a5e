package job

import (
	"slices"

	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
)

// outcome is what became of moves.
type outcome struct {
	created int
	removed []*corev1.Pod
}

// news is something to tell about a job once its status says it.
type news struct{ eventtype, reason, message string }

// bill is a round's account: which pods lose their finalizer once the status,
// which names them, is stored, and what to tell.
type bill struct {
	untrack []*corev1.Pod
	news    []news
	partial bool // not all pods that have ended are in it
	end     *batchv1.JobCondition
	// handled counts the failed pods that rules of the job were applied to.
	handled map[batchv1.PodFailurePolicyAction]int
}

func (b *bill) handle(by batchv1.PodFailurePolicyAction) {
	if b.handled == nil {
		b.handled = map[batchv1.PodFailurePolicyAction]int{}
	}
	b.handled[by]++
}

// account brings the round's status up to what has been done with the pods: the
// first of two entries in the books. Pods that have ended are named in it; only
// when that is stored may their finalizers go, and only then settle counts them.
// Whatever happens in between, each is counted once.
func (r *round) account(m moves, o outcome) bill {
	var b bill
	s := &r.job.Status
	active := int32(len(r.active) + o.created - len(o.removed))
	for _, pod := range o.removed {
		if ready(pod) {
			r.ready--
		}
	}
	r.terminating += int32(len(o.removed))
	switch {
	case r.verdict != nil && len(o.removed) < len(m.remove):
		r.verdict = nil // pods live that would be counted as failed
	case r.verdict != nil:
	case r.complete(active):
		r.verdict = r.newCondition(batchv1.JobSuccessCriteriaMet, batchv1.JobReasonCompletionsReached, "Reached expected number of succeeded pods")
	case m.managed:
		b.news = r.noteSuspension()
	}
	s.Active, s.Ready, s.Terminating = active, &r.ready, &r.terminating
	r.settle(r.trackedUIDs())
	r.name(&b)
	r.announce(&b)
	return b
}

func (r *round) complete(active int32) bool {
	if active > 0 {
		return false
	}
	if r.job.Spec.Completions == nil {
		return r.succeeded > 0
	}
	return r.succeeded >= *r.job.Spec.Completions
}

// noteSuspension keeps the Suspended condition. A job that is resumed starts
// anew: its deadline is about the time that it is active.
func (r *round) noteSuspension() []news {
	s := &r.job.Status
	if suspended(r.job) {
		if !r.setCondition(batchv1.JobSuspended, corev1.ConditionTrue, "JobSuspended", "Job suspended") {
			return nil
		}
		s.StartTime = nil
		return []news{{corev1.EventTypeNormal, "Suspended", "Job suspended"}}
	}
	if !slices.ContainsFunc(s.Conditions, func(c batchv1.JobCondition) bool { return c.Type == batchv1.JobSuspended }) ||
		!r.setCondition(batchv1.JobSuspended, corev1.ConditionFalse, "JobResumed", "Job resumed") {
		return nil
	}
	s.StartTime = stamp(r.now)
	return []news{{corev1.EventTypeNormal, "Resumed", "Job resumed"}}
}

// setCondition says whether that changed anything.
func (r *round) setCondition(kind batchv1.JobConditionType, status corev1.ConditionStatus, reason, message string) bool {
	c := *r.newCondition(kind, reason, message)
	c.Status = status
	s := &r.job.Status
	i := slices.IndexFunc(s.Conditions, func(have batchv1.JobCondition) bool { return have.Type == kind })
	if i < 0 {
		s.Conditions = append(s.Conditions, c)
		return true
	}
	if have := s.Conditions[i]; have.Status == status && have.Reason == reason && have.Message == message {
		return false
	}
	s.Conditions[i] = c
	return true
}

// name enters the pods that have ended: by uid, or as indexes when they have
// succeeded in an indexed job, where an index counts once anyway.
func (r *round) name(b *bill) {
	u := r.job.Status.UncountedTerminatedPods
	var done []int
	for _, pod := range r.pods {
		if !tracked(pod) || !r.countable(pod) {
			continue
		}
		b.untrack = append(b.untrack, pod)
		switch {
		case pod.Status.Phase == corev1.PodSucceeded && !slices.Contains(u.Failed, pod.UID):
			if !indexed(r.job) {
				u.Succeeded = add(u.Succeeded, pod.UID)
			} else if i := indexOf(pod); r.valid(pod) && !r.known.has(i) {
				done = append(done, i)
			}
		case r.lostPod(pod) || r.failing():
			said := judge(r.job.Spec.PodFailurePolicy, pod)
			if said.action != "" && !slices.Contains(u.Failed, pod.UID) {
				b.handle(said.action)
			}
			if r.valid(pod) && said.counts() {
				u.Failed = add(u.Failed, pod.UID)
			}
		}
		if len(done)+len(u.Succeeded)+len(u.Failed) >= maxUncounted {
			b.partial = true
			break
		}
	}
	if !indexed(r.job) {
		return
	}
	all := r.known.with(done...)
	r.job.Status.CompletedIndexes, r.job.Status.Succeeded = all.String(), int32(all.total())
	r.job.Status.FailedIndexes = nil
	if r.perIndex {
		text := r.lost.String()
		r.job.Status.FailedIndexes = &text
	}
}

// countable says whether a pod's finalizer may go.
func (r *round) countable(pod *corev1.Pod) bool {
	if r.job.DeletionTimestamp != nil || r.verdict != nil || pod.Status.Phase == corev1.PodSucceeded {
		return true
	}
	if !r.lostPod(pod) {
		return false
	}
	held := r.held[indexOf(pod)]
	return held == nil || held.UID != pod.UID
}

// failing: all pods that have not ended count as failed.
func (r *round) failing() bool {
	return r.verdict != nil && r.verdict.Type != batchv1.JobSuccessCriteriaMet
}

// announce puts the verdict into the status and prepares the end.
func (r *round) announce(b *bill) {
	if r.verdict == nil {
		return
	}
	switch v := r.verdict; v.Type {
	case batchv1.JobFailureTarget:
		r.job.Status.Conditions = append(r.job.Status.Conditions, *v)
		b.end = r.newCondition(batchv1.JobFailed, v.Reason, v.Message)
	case batchv1.JobSuccessCriteriaMet:
		if r.condition(v.Type) == nil {
			r.job.Status.Conditions = append(r.job.Status.Conditions, *v)
		}
		b.end = r.newCondition(batchv1.JobComplete, v.Reason, v.Message)
	default:
		b.end = v
	}
}

// settle is the second entry: pods that are named and no longer tracked are
// counted.
func (r *round) settle(stillTracked map[types.UID]bool) {
	s := &r.job.Status
	u := s.UncountedTerminatedPods
	count := func(named []types.UID, counter *int32) []types.UID {
		var left []types.UID
		for _, uid := range named {
			if stillTracked[uid] {
				left = append(left, uid)
			} else {
				*counter++
			}
		}
		return left
	}
	u.Succeeded = count(u.Succeeded, &s.Succeeded)
	u.Failed = count(u.Failed, &s.Failed)
}

// finish declares the job finished, if all its pods are counted and gone; it
// returns what to tell.
func (r *round) finish(b bill) []news {
	s := &r.job.Status
	u := s.UncountedTerminatedPods
	if b.end == nil || b.partial || len(u.Succeeded)+len(u.Failed) > 0 || r.terminating > 0 {
		return nil
	}
	r.setCondition(b.end.Type, b.end.Status, b.end.Reason, b.end.Message)
	if b.end.Type == batchv1.JobFailed {
		return []news{{corev1.EventTypeWarning, b.end.Reason, b.end.Message}}
	}
	s.CompletionTime = completed(s.StartTime, b.end.LastTransitionTime)
	var out []news
	if r.job.Spec.Completions != nil && s.Succeeded > *r.job.Spec.Completions {
		out = append(out, news{corev1.EventTypeWarning, "TooManySucceededPods", "Too many succeeded pods running after completion count reached"})
	}
	return append(out, news{corev1.EventTypeNormal, "Completed", "Job completed"})
}

func (r *round) trackedUIDs() map[types.UID]bool {
	return uids(slices.DeleteFunc(slices.Clone(r.pods), func(p *corev1.Pod) bool { return !tracked(p) }))
}

func add(list []types.UID, uid types.UID) []types.UID {
	if slices.Contains(list, uid) {
		return list
	}
	return append(list, uid)
}

func ready(pod *corev1.Pod) bool {
	for _, c := range pod.Status.Conditions {
		if c.Type == corev1.PodReady {
			return c.Status == corev1.ConditionTrue
		}
	}
	return false
}

// completed is when a job that started at start has ended. One that began while the clock
// was ahead ends when it began: an end before that is refused, until the clock has come to it.
func completed(start *metav1.Time, now metav1.Time) *metav1.Time {
	if start != nil && now.Before(start) {
		return start.DeepCopy()
	}
	return &now
}
