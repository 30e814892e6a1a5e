package seeded

import (
	"fmt"
	"slices"
	"strings"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/structured-merge-diff/v6/fieldpath"

	"github.com/sampan-dev/sampan/client"
)

// longestLie is how long a status may differ from what is: a controller that crashes
// is away for seconds, news takes seconds, and writes fail a few times in a row.
const longestLie = 2 * time.Minute

// owners checks that no two controllers write one field of an object, by what the
// object tells of who wrote what.
func (o *oracle) owners(res string, obj client.Object) {
	for _, e := range obj.GetManagedFields() {
		if e.FieldsV1 == nil || !strings.HasPrefix(e.Manager, "system:") {
			continue // people may write what they like
		}
		raw, who := e.FieldsV1.GetRawString(), string(obj.GetUID())+e.Manager+e.Subresource
		if o.records[who] == raw {
			continue
		}
		o.records[who] = raw
		for _, field := range o.fieldsIn(raw) {
			o.writer(res, string(obj.GetUID()), field, e.Manager)
		}
	}
}

// fieldsIn are the fields that a record names, but for those that several may write.
func (o *oracle) fieldsIn(raw string) []string {
	if known, ok := o.w.keys.fields[raw]; ok {
		return known
	}
	var all []string
	var set fieldpath.Set
	if err := set.FromJSON(strings.NewReader(raw)); err != nil {
		o.w.fail("record of owners %s: %v", raw, err)
	}
	set.Leaves().Iterate(func(p fieldpath.Path) {
		if field := p.String(); strings.HasPrefix(field, ".spec") || strings.HasPrefix(field, ".status") {
			all = append(all, field)
		}
	})
	o.w.keys.fields[raw] = all
	return all
}

// shared are fields that several may write, by the API's own rules, each with why.
var shared = map[string]string{
	"pods .status":    "what a node that is gone can't tell any more, others do",
	"nodes .status":   "the same",
	"nodes .spec.tai": "each its own taints",
	".spec.replicas":  "a scale belongs to who scales",
}

func (o *oracle) writer(res, uid, field, manager string) {
	place := uid + field
	had, known := o.writers[place]
	o.writers[place] = manager
	if !known || had == manager {
		return
	}
	for s := range shared {
		if strings.HasPrefix(res+" "+field, s) || field == s {
			return
		}
	}
	o.w.fail("%s %s is written by %s and by %s", res, field, had, manager)
}

// checkBudget: evictions leave a guarded application what its budget says. Nothing else
// happens to it unless nodes come and go, or seem to while there is no API server.
func (o *oracle) checkBudget(pods []*corev1.Pod) {
	if o.w.trouble.nodes || o.w.trouble.servers || o.w.rivals {
		return
	}
	ready := 0
	for _, p := range pods {
		if p.Namespace == "free" && p.Labels["app"] == guarded && p.DeletionTimestamp == nil && isReady(p) {
			ready++
		}
	}
	o.guarded = o.guarded || ready == guardedSize
	if o.guarded && ready < guardedLeast {
		o.w.fail("%d pods of %s are ready, its budget wants %d", ready, guarded, guardedLeast)
	}
}

// checkVolumes: a volume is one claim's, and a claim has one volume.
func (o *oracle) checkVolumes() {
	owner := map[string]string{}
	for _, c := range list(o, client.PersistentVolumeClaims) {
		if v := c.Spec.VolumeName; v != "" && c.Status.Phase == corev1.ClaimBound {
			if other := owner[v]; other != "" {
				o.w.fail("volume %s is bound by claims %s and %s", v, other, key(c))
			}
			owner[v] = key(c)
		}
	}
}

// checkScaled: an autoscaler stays within its bounds.
func (o *oracle) checkScaled() {
	if d := o.objects[client.Deployments.Resource]["free/"+scaled]; d != nil {
		if n := *d.(*appsv1.Deployment).Spec.Replicas; n < 1 || n > scaledMost {
			o.w.fail("deployment %s has been scaled to %d, of 1 to %d", scaled, n, scaledMost)
		}
	}
}

// checkPeriodic: a cron job that forbids it has no two jobs at once.
func (o *oracle) checkPeriodic() {
	c, ok := o.objects[client.CronJobs.Resource]["free/"+periodic].(*batchv1.CronJob)
	if !ok || c.Spec.ConcurrencyPolicy == batchv1.AllowConcurrent {
		return
	}
	active := 0
	for _, j := range list(o, client.Jobs) {
		if metav1.IsControlledBy(j, c) && !ended(j) && j.DeletionTimestamp == nil {
			active++
		}
	}
	if active > 1 {
		o.w.fail("cron job %s has %d jobs at once, which its policy %s forbids", periodic, active, c.Spec.ConcurrencyPolicy)
	}
}

func ended(j *batchv1.Job) bool {
	return slices.ContainsFunc(j.Status.Conditions, func(c batchv1.JobCondition) bool {
		return (c.Type == batchv1.JobComplete || c.Type == batchv1.JobFailed) && c.Status == corev1.ConditionTrue
	})
}

// checkTruth compares what statuses say with what is.
func (o *oracle) checkTruth(pods []*corev1.Pod) {
	count := map[string]int32{}
	for _, p := range pods {
		if ref := metav1.GetControllerOf(p); ref != nil && !finished(p) && p.DeletionTimestamp == nil {
			count[string(ref.UID)]++
		}
	}
	now := map[string]bool{}
	says := func(what, uid string, said, is int32) {
		if said != is {
			now[fmt.Sprintf("%s %s", what, uid)] = true
		}
	}
	for _, s := range list(o, client.ReplicaSets) {
		says("replica set "+key(s), string(s.UID), s.Status.Replicas, count[string(s.UID)])
	}
	for _, s := range list(o, client.ReplicationControllers) {
		says("replication controller "+key(s), string(s.UID), s.Status.Replicas, count[string(s.UID)])
	}
	for _, d := range list(o, client.Deployments) {
		if d.Status.ObservedGeneration < d.Generation {
			now["deployment "+key(d)+" generation"] = true
		}
	}
	used := int64(0)
	for _, p := range pods {
		if p.Namespace == "tight" && charged(p) {
			used++
		}
	}
	for _, q := range list(o, client.ResourceQuotas) {
		if said, ok := q.Status.Used[corev1.ResourcePods]; ok && said.Value() < used {
			now["quota "+key(q)] = true
		}
	}
	for lie := range o.lies {
		if !now[lie] {
			delete(o.lies, lie)
		}
	}
	for lie := range now {
		if _, known := o.lies[lie]; !known {
			o.lies[lie] = time.Now()
		}
	}
	o.checkLies()
}

// checkLies: no status lies for long.
func (o *oracle) checkLies() {
	if o.w.server.Load() == nil {
		return
	}
	for lie, since := range o.lies {
		if time.Since(since) > longestLie {
			o.w.fail("the status of %s has not been true for %v", lie, longestLie)
		}
	}
}

// finalScaled: what follows its load has as many pods as that takes.
func (o *oracle) finalScaled(pods []*corev1.Pod) {
	d, ok := o.objects[client.Deployments.Resource]["free/"+scaled].(*appsv1.Deployment)
	if !ok || waiting(pods, "free", scaled) {
		return
	}
	want := int32((o.w.load.demand + scaledEach - 1) / scaledEach)
	if want = min(max(want, 1), scaledMost); *d.Spec.Replicas != want {
		o.w.fail("deployment %s has %d replicas for a load of %dm, want %d", scaled, *d.Spec.Replicas, o.w.load.demand, want)
	}
}

// finalPeriodic: of a cron job's jobs only as many are kept as it says.
func (o *oracle) finalPeriodic() {
	c, ok := o.objects[client.CronJobs.Resource]["free/"+periodic].(*batchv1.CronJob)
	if !ok {
		return
	}
	kept := map[batchv1.JobConditionType]int32{}
	for _, j := range list(o, client.Jobs) {
		for _, cond := range j.Status.Conditions {
			if metav1.IsControlledBy(j, c) && cond.Status == corev1.ConditionTrue {
				kept[cond.Type]++
			}
		}
	}
	if kept[batchv1.JobComplete] > *c.Spec.SuccessfulJobsHistoryLimit || kept[batchv1.JobFailed] > *c.Spec.FailedJobsHistoryLimit {
		o.w.fail("cron job %s keeps %v, of %d and %d", periodic, kept, *c.Spec.SuccessfulJobsHistoryLimit, *c.Spec.FailedJobsHistoryLimit)
	}
}

// finalVolumes: who has a place has its volumes.
func (o *oracle) finalVolumes(pods []*corev1.Pod) {
	for _, p := range pods {
		for _, v := range p.Spec.Volumes {
			if v.PersistentVolumeClaim == nil || p.Spec.NodeName == "" {
				continue
			}
			c, ok := o.objects[client.PersistentVolumeClaims.Resource][p.Namespace+"/"+v.PersistentVolumeClaim.ClaimName].(*corev1.PersistentVolumeClaim)
			if !ok || c.Status.Phase != corev1.ClaimBound {
				o.w.fail("pod %s is on node %s without its claim %s", key(p), p.Spec.NodeName, v.PersistentVolumeClaim.ClaimName)
			}
		}
	}
}

// finalPriorities: nobody of more weight waits for the room that those of less have.
func (o *oracle) finalPriorities(pods []*corev1.Pod) {
	for _, p := range pods {
		if p.Spec.NodeName != "" || finished(p) || p.Spec.Priority == nil || *p.Spec.Priority <= 0 {
			continue
		}
		for _, n := range o.machines() {
			room := int64(nodeCPU)
			for _, other := range pods {
				if other.Spec.NodeName == n.Name && !finished(other) && other.Spec.Priority != nil && *other.Spec.Priority >= *p.Spec.Priority {
					room -= request(other)
				}
			}
			if request(p) <= room {
				o.w.fail("pod %s waits, though those of less priority have its room on node %s", key(p), n.Name)
			}
		}
	}
}
