package job

import (
	"fmt"
	"slices"
	"time"

	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/sampan-dev/sampan/control/controller"
)

const (
	// burst bounds the pods made or removed in one round, as upstream.
	burst = 500
	// maxUncounted bounds the pods that are counted in one round, so that their
	// uids take no more than about 20 KB of the status; as upstream.
	maxUncounted = 500
)

// round is one look at a job: what is known, then what to do with pods (moves),
// then what the status says of it (account). It changes nothing but itself.
type round struct {
	job  *batchv1.Job // a copy; Status is what the round makes of it
	was  batchv1.JobStatus
	pods []*corev1.Pod
	now  time.Time

	active      []*corev1.Pod
	ready       int32
	terminating int32
	streak      streak

	completions int     // of an indexed job
	known       indexes // completed, as the status has it
	done        indexes // and with the pods that have succeeded since
	lost        indexes // failed for good
	perIndex    bool    // back-off is counted for each index
	// held are failed pods that stay until a replacement has inherited their
	// failures, by index.
	held map[int]*corev1.Pod

	succeeded, failed int32
	// verdict is how the job ends, if it does: the condition SuccessCriteriaMet or
	// FailureTarget, which announces the end, or Failed when the latter is there.
	verdict *batchv1.JobCondition
}

// moves are what to do with a job's pods, and why.
type moves struct {
	create []*corev1.Pod
	// remove are to go; untrack: they do not count, so the finalizer goes first.
	remove  []*corev1.Pod
	untrack bool
	// managed says that the job goes on, whether or not anything is to be done.
	managed bool
	again   time.Duration
	reason  string
}

// begin looks at a job and its pods.
func begin(job *batchv1.Job, pods []*corev1.Pod, before streak, now time.Time) *round {
	r := &round{job: job.DeepCopy(), was: job.Status, pods: slices.Clone(pods), now: now}
	status := &r.job.Status
	if status.UncountedTerminatedPods == nil {
		status.UncountedTerminatedPods = &batchv1.UncountedTerminatedPods{}
	}
	slices.SortStableFunc(r.pods, func(a, b *corev1.Pod) int { return indexOf(a) - indexOf(b) })
	for _, pod := range r.pods {
		if controller.Active(pod) {
			r.active = append(r.active, pod)
			if ready, _ := controller.Ready(pod); ready {
				r.ready++
			}
		}
		if leaving(pod) {
			r.terminating++
		}
	}
	succeeded, failed := r.fresh()
	r.succeeded = status.Succeeded + int32(len(succeeded)+len(status.UncountedTerminatedPods.Succeeded))
	r.failed = status.Failed + int32(len(failed)+len(status.UncountedTerminatedPods.Failed))
	for _, pod := range failed {
		if !judge(r.job.Spec.PodFailurePolicy, pod).counts() {
			r.failed--
		}
	}
	r.streak = before.after(succeeded, failed)
	if status.StartTime == nil && !suspended(r.job) {
		status.StartTime = stamp(now)
	}
	r.countIndexes()
	r.judge()
	return r
}

// stamp is a moment as the API server keeps it, in whole seconds: a status that is
// written twice in a round must not seem to have begun at another time.
func stamp(t time.Time) *metav1.Time {
	whole := metav1.Time{Time: t}.Rfc3339Copy()
	return &whole
}

// fresh are the pods that have ended and are in no count yet.
func (r *round) fresh() (succeeded, failed []*corev1.Pod) {
	u := r.job.Status.UncountedTerminatedPods
	for _, pod := range r.pods {
		if !tracked(pod) || !r.valid(pod) {
			continue
		}
		if pod.Status.Phase == corev1.PodSucceeded && !slices.Contains(u.Succeeded, pod.UID) {
			succeeded = append(succeeded, pod)
		}
		if r.lostPod(pod) && !slices.Contains(u.Failed, pod.UID) {
			failed = append(failed, pod)
		}
	}
	return succeeded, failed
}

// valid says whether a pod may count: of an indexed job, those with an index.
func (r *round) valid(pod *corev1.Pod) bool {
	if !indexed(r.job) {
		return true
	}
	i := indexOf(pod)
	return i != noIndex && i < int(*r.job.Spec.Completions)
}

// lostPod says whether a pod counts as failed. One that is being deleted does,
// since nobody may be there any more to say how it ended; unless the job wants
// to know.
func (r *round) lostPod(pod *corev1.Pod) bool {
	if pod.Status.Phase == corev1.PodFailed {
		return true
	}
	return !replacesFailed(r.job) && pod.DeletionTimestamp != nil && pod.Status.Phase != corev1.PodSucceeded
}

func (r *round) countIndexes() {
	if !indexed(r.job) {
		return
	}
	r.completions = int(*r.job.Spec.Completions)
	r.perIndex = r.job.Spec.BackoffLimitPerIndex != nil
	r.known = parseIndexes(r.job.Status.CompletedIndexes, r.completions)
	var done, lost []int
	for _, pod := range r.pods {
		if !tracked(pod) || !r.valid(pod) {
			continue
		}
		if pod.Status.Phase == corev1.PodSucceeded {
			done = append(done, indexOf(pod))
		}
		if r.perIndex && r.losesIndex(pod) {
			lost = append(lost, indexOf(pod))
		}
	}
	r.done = r.known.with(done...)
	r.succeeded = int32(r.done.total())
	if !r.perIndex {
		return
	}
	if r.job.Status.FailedIndexes != nil {
		r.lost = parseIndexes(*r.job.Status.FailedIndexes, r.completions)
	}
	r.lost = r.lost.with(lost...)
	r.hold()
}

// losesIndex says whether pod is the failure that was one too many for its index.
func (r *round) losesIndex(pod *corev1.Pod) bool {
	if !r.lostPod(pod) {
		return false
	}
	j := judge(r.job.Spec.PodFailurePolicy, pod)
	if j.action == batchv1.PodFailurePolicyActionFailIndex {
		return true
	}
	counted, _ := failuresOf(pod)
	return j.counts() && counted >= *r.job.Spec.BackoffLimitPerIndex
}

// hold finds, for each index that is to be tried again, its last failure.
func (r *round) hold() {
	r.held = map[int]*corev1.Pod{}
	busy := indexesOf(r.active)
	for _, pod := range r.pods {
		i := indexOf(pod)
		if !tracked(pod) || !r.valid(pod) || !r.lostPod(pod) || r.done.has(i) || r.lost.has(i) || busy.has(i) {
			continue
		}
		last := r.held[i]
		if last == nil || sum(failuresOf(last)) <= sum(failuresOf(pod)) && !ended(pod).Before(ended(last)) {
			r.held[i] = pod
		}
	}
}

// moves decides what is to be done with the pods.
func (r *round) moves() moves {
	if r.verdict != nil {
		return moves{remove: r.active, reason: fmt.Sprintf("%s: %s", r.verdict.Type, r.verdict.Reason)}
	}
	m := moves{}
	if r.job.DeletionTimestamp == nil {
		m = r.manage()
		m.managed = true
	}
	if r.job.Spec.ActiveDeadlineSeconds != nil && !suspended(r.job) {
		m.again = controller.Sooner(m.again, r.untilDeadline())
	}
	return m
}

// manage compares what is wanted with what there is. Pods are either removed or
// made in one round; removal comes first.
func (r *round) manage() moves {
	have := len(r.active)
	if suspended(r.job) {
		return moves{remove: r.active, untrack: true, reason: "the job is suspended"}
	}
	want := r.wanted()
	reason := fmt.Sprintf("want %d, have %d", want, have)
	if excess := r.excess(max(0, have-want)); len(excess) > 0 {
		return moves{remove: excess[:min(len(excess), burst)], untrack: true, reason: reason}
	}
	lack := want - have
	if replacesFailed(r.job) {
		lack -= int(r.terminating)
	}
	if lack <= 0 {
		return moves{}
	}
	if !r.perIndex {
		if wait := r.streak.wait(r.now); wait > 0 {
			return moves{again: max(wait, time.Second), reason: reason + "; pods have failed"}
		}
	}
	m := moves{reason: reason}
	m.create, m.again = r.newPods(min(lack, burst))
	return m
}

func (r *round) wanted() int {
	parallel := int(*r.job.Spec.Parallelism)
	if r.job.Spec.Completions != nil {
		return min(parallel, max(0, int(*r.job.Spec.Completions-r.succeeded)))
	}
	if r.succeeded > 0 {
		return len(r.active) // one has found the work done; the others will
	}
	return parallel
}

// excess are the pods to remove, at least n: of an indexed job all without a
// valid index, and all but one of each index.
func (r *round) excess(n int) []*corev1.Pod {
	ranked := controller.Youngest(r.active)
	if !indexed(r.job) {
		return ranked[:n]
	}
	var rm, left []*corev1.Pod
	seen := map[int]bool{}
	for _, pod := range slices.Backward(ranked) { // the most valuable of each index stays
		if i := indexOf(pod); r.valid(pod) && !seen[i] {
			seen[i] = true
			left = append(left, pod)
		} else {
			rm = append(rm, pod)
		}
	}
	slices.Reverse(left)
	if len(rm) < n {
		rm = append(rm, left[:n-len(rm)]...)
	}
	return rm
}

// newPods are up to n pods to make now; if all must wait, for how long.
func (r *round) newPods(n int) (pods []*corev1.Pod, again time.Duration) {
	if !indexed(r.job) {
		for range n {
			pods = append(pods, podFor(r.job, noIndex, nil))
		}
		return pods, 0
	}
	taken := r.done.union(indexesOf(r.active)).union(r.lost)
	if replacesFailed(r.job) {
		taken = taken.union(indexesOf(slices.DeleteFunc(slices.Clone(r.pods), func(p *corev1.Pod) bool { return !leaving(p) })))
	}
	for _, i := range taken.missing(n, r.completions) {
		before := r.held[i]
		if before != nil {
			s := streak{failures: int(sum(failuresOf(before))) + 1, last: ended(before)}
			if wait := s.wait(r.now); wait > 0 {
				again = controller.Sooner(again, max(wait, time.Second))
				continue
			}
		}
		pods = append(pods, podFor(r.job, i, before))
	}
	return pods, again
}

func indexed(job *batchv1.Job) bool {
	return job.Spec.CompletionMode != nil && *job.Spec.CompletionMode == batchv1.IndexedCompletion
}

func suspended(job *batchv1.Job) bool { return job.Spec.Suspend != nil && *job.Spec.Suspend }

// replacesFailed: pods are replaced once they have ended, not when they begin to.
func replacesFailed(job *batchv1.Job) bool {
	return job.Spec.PodReplacementPolicy != nil && *job.Spec.PodReplacementPolicy == batchv1.Failed
}

func finished(job *batchv1.Job) bool {
	return findTrue(&job.Status, batchv1.JobComplete) != nil || findTrue(&job.Status, batchv1.JobFailed) != nil
}

// leaving says whether a pod is being deleted and has not ended.
func leaving(pod *corev1.Pod) bool { return pod.DeletionTimestamp != nil && !controller.Ended(pod) }

func indexesOf(pods []*corev1.Pod) indexes {
	var all []int
	for _, pod := range pods {
		if i := indexOf(pod); i != noIndex {
			all = append(all, i)
		}
	}
	return indexes(nil).with(all...)
}

func sum(a, b int32) int32 { return a + b }

func uids(pods []*corev1.Pod) map[types.UID]bool {
	set := make(map[types.UID]bool, len(pods))
	for _, pod := range pods {
		set[pod.UID] = true
	}
	return set
}
