package seeded

import (
	"slices"
	"strconv"
	"time"

	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"

	"github.com/sampan-dev/sampan/client"
	"github.com/sampan-dev/sampan/internal/target"
)

// wish is how many replicas were wanted from a moment on.
type wish struct {
	from  time.Time
	count int32
}

// pod checks what must hold of each version of a pod.
func (o *oracle) pod(p *corev1.Pod) {
	uid := string(p.UID)
	if node := o.bound[uid]; node != "" && node != p.Spec.NodeName {
		o.w.fail("pod %s/%s moved from %s to %s", p.Namespace, p.Name, node, p.Spec.NodeName)
	}
	if o.bound[uid] == "" && p.Spec.NodeName != "" {
		o.binds(p)
	}
	o.bound[uid] = p.Spec.NodeName
	owners := 0
	for _, ref := range p.OwnerReferences {
		if ref.Controller != nil && *ref.Controller {
			owners++
			if ref.Kind == "Job" && p.Status.Phase == corev1.PodSucceeded {
				if o.succeeded[string(ref.UID)] == nil {
					o.succeeded[string(ref.UID)] = map[string]bool{}
				}
				o.succeeded[string(ref.UID)][uid] = true
			}
		}
	}
	if ref := metav1.GetControllerOf(p); ref != nil {
		o.adopted(p, ref)
	} else {
		o.controllers[uid] = ""
	}
	if owners > 1 {
		o.w.fail("pod %s/%s has %d controllers", p.Namespace, p.Name, owners)
	}
}

// tooLate is how long an owner may have been gone when something is adopted for it: who
// adopts has asked just before whether it is there.
const tooLate = 2 * time.Second

// adopted: nobody takes on a pod for an owner that is gone, though another may have its
// name.
func (o *oracle) adopted(p *corev1.Pod, ref *metav1.OwnerReference) {
	had, known := o.controllers[string(p.UID)]
	o.controllers[string(p.UID)] = ref.UID
	if at, gone := o.gone[ref.UID]; known && had != ref.UID && gone && time.Since(at) > tooLate {
		o.w.fail("pod %s is adopted for %s %s of uid %s, which has been gone for %s", key(p), ref.Kind, ref.Name, ref.UID, time.Since(at))
	}
}

// job checks the counting of each version of a job.
func (o *oracle) job(j *batchv1.Job) {
	uid := string(j.UID)
	if j.Status.Succeeded < o.counted[uid] {
		o.w.fail("job %s: status.succeeded went from %d to %d", j.Name, o.counted[uid], j.Status.Succeeded)
	}
	o.counted[uid] = j.Status.Succeeded
	if int(j.Status.Succeeded) > len(o.succeeded[uid]) {
		o.w.fail("job %s counts %d successes, %d pods have succeeded", j.Name, j.Status.Succeeded, len(o.succeeded[uid]))
	}
}

// asAcknowledged is what a write's answer promises.
func asAcknowledged(t target.Target, obj runtime.Object) (acknowledged, bool) {
	m, ok := obj.(client.Object)
	if !ok || !slices.Contains(followed, t.Resource) || m.GetUID() == "" {
		return acknowledged{}, false
	}
	revision, err := strconv.ParseInt(m.GetResourceVersion(), 10, 64)
	if err != nil {
		return acknowledged{}, false
	}
	return acknowledged{what: t.String(), uid: string(m.GetUID()), revision: revision}, true
}

// acknowledged checks that a write that somebody was told of is in the history.
func (o *oracle) acknowledged(a acknowledged) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.revisions[a.uid] < a.revision {
		o.w.fail("%s: acknowledged at revision %d, but the history ends at %d", a.what, a.revision, o.revisions[a.uid])
	}
}

// list gives all objects of a kind, in the order of their names.
func list[T client.Object](o *oracle, r client.Resource[T]) []T {
	var out []T
	for _, obj := range o.objects[r.Resource] {
		out = append(out, obj.(T))
	}
	slices.SortFunc(out, func(a, b T) int {
		return compareKeys(a, b)
	})
	return out
}

func compareKeys(a, b client.Object) int {
	switch x, y := a.GetNamespace()+"/"+a.GetName(), b.GetNamespace()+"/"+b.GetName(); {
	case x < y:
		return -1
	case x > y:
		return 1
	}
	return 0
}

// check looks at the whole picture, when it has changed.
func (o *oracle) check() {
	o.mu.Lock()
	defer o.mu.Unlock()
	if !o.dirty {
		o.checkLies()
		return
	}
	o.dirty = false
	pods := list(o, client.Pods)
	o.checkNodes(pods)
	o.checkQuota(pods)
	o.checkReplicas(pods)
	o.checkOrdinals()
	o.checkBudget(pods)
	o.checkVolumes()
	o.checkScaled()
	o.checkPeriodic()
	o.checkDisks()
	o.checkRanges()
	o.checkMigrations()
	o.checkTruth(pods)
}

func finished(p *corev1.Pod) bool {
	return p.Status.Phase == corev1.PodSucceeded || p.Status.Phase == corev1.PodFailed
}

// binding is a pod's place, as the API server knows it: who gave it, and when.
type binding struct {
	by string
	at time.Time
}

// hearsay is how long a scheduler may take to hear what another one has bound: longer
// than any is deaf, with all that has then to be told.
const hearsay = time.Minute

// binds judges a binding by what the API server has bound so far. Two schedulers may
// promise the same room to two pods at once, for neither has heard of the other: then
// a node has to refuse. But nobody may forget what he has bound himself, nor what the
// other bound long ago.
func (o *oracle) binds(p *corev1.Pod) {
	mine := binding{o.w.acting, time.Now()}
	o.bindings[string(p.UID)] = mine
	if !o.w.rivals || finished(p) {
		return
	}
	used := request(p)
	for _, other := range list(o, client.Pods) {
		if other.UID == p.UID || other.Spec.NodeName != p.Spec.NodeName || finished(other) {
			continue
		}
		if b := o.bindings[string(other.UID)]; b.by == mine.by || time.Since(b.at) > hearsay {
			used += request(other)
		}
	}
	if used > nodeCPU {
		o.w.fail("%s binds pod %s to node %s, which has then promised %dm of %dm by what it knows", mine.by, key(p), p.Spec.NodeName, used, nodeCPU)
	}
}

// checkNodes: no node is promised more than it has. With two schedulers it is each
// binding that is judged: see binds.
func (o *oracle) checkNodes(pods []*corev1.Pod) {
	if !o.w.rivals {
		o.checkPromises(pods)
	}
}

func (o *oracle) checkPromises(pods []*corev1.Pod) {
	used := map[string]int64{}
	for _, p := range pods {
		if p.Spec.NodeName != "" && !finished(p) {
			used[p.Spec.NodeName] += request(p)
		}
	}
	for node, sum := range used {
		if sum > nodeCPU {
			o.w.fail("node %s has promised %dm of %dm", node, sum, nodeCPU)
		}
	}
}

// charged says whether a pod counts for a quota: one that should have been gone for as
// long as it had to stop does no longer, though a silent node keeps it.
func charged(p *corev1.Pod) bool {
	if p.DeletionTimestamp != nil && p.DeletionGracePeriodSeconds != nil {
		grace := time.Duration(*p.DeletionGracePeriodSeconds) * time.Second
		return !finished(p) && !time.Now().After(p.DeletionTimestamp.Add(grace))
	}
	return !finished(p)
}

// quotaKnown says whether the quota's status tells what there is: until then nobody
// can keep it.
func (o *oracle) quotaKnown() bool {
	o.mu.Lock()
	defer o.mu.Unlock()
	return slices.ContainsFunc(list(o, client.ResourceQuotas), func(q *corev1.ResourceQuota) bool {
		_, ok := q.Status.Used[corev1.ResourcePods]
		return ok
	})
}

// checkQuota: never more pods than the quota allows.
func (o *oracle) checkQuota(pods []*corev1.Pod) {
	count := 0
	for _, p := range pods {
		if p.Namespace == "tight" && charged(p) {
			count++
		}
	}
	if count > quotaPods {
		o.w.fail("namespace tight has %d pods, its quota allows %d", count, quotaPods)
	}
}

// checkReplicas: a replica set whose requests are answered never has more pods
// than it was ever asked for in the last minute.
func (o *oracle) checkReplicas(pods []*corev1.Pod) {
	if p := o.w.trouble; p.crash+p.lose+p.refuse > 0 || p.twoLeaders || p.nodes || o.w.over {
		return
	}
	active := map[string]int32{}
	for _, p := range pods {
		if ref := metav1.GetControllerOf(p); ref != nil && !finished(p) && p.DeletionTimestamp == nil {
			active[string(ref.UID)]++
		}
	}
	for _, rs := range list(o, client.ReplicaSets) {
		uid := string(rs.UID)
		most := int32(0)
		wishes := o.wanted[uid]
		for i, w := range wishes {
			if i == len(wishes)-1 || time.Since(wishes[i+1].from) < time.Minute {
				most = max(most, w.count)
			}
		}
		if active[uid] > most {
			o.w.fail("replica set %s/%s has %d pods, wanted at most %d", rs.Namespace, rs.Name, active[uid], most)
		}
	}
}

// checkOrdinals: of each pod of a stateful set one at most runs, anywhere.
func (o *oracle) checkOrdinals() {
	running := map[string][]string{}
	for _, m := range o.w.nodes {
		for _, name := range m.running() {
			if name.stateful {
				running[name.pod] = append(running[name.pod], m.name)
			}
		}
	}
	for pod, where := range running {
		if len(where) > 1 {
			o.w.fail("pod %s runs %d times: %v", pod, len(where), where)
		}
	}
}
