package seeded

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"sync"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	autoscalingv2 "k8s.io/api/autoscaling/v2"
	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	policyv1 "k8s.io/api/policy/v1"
	schedulingv1 "k8s.io/api/scheduling/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/intstr"

	"github.com/sampan-dev/sampan/client"
	"github.com/sampan-dev/sampan/internal/target"
)

// Names and sizes of what only some lives have.
const (
	guarded      = "g0" // a deployment that a budget guards
	guardedSize  = 3
	guardedLeast = 2
	scaled       = "h0" // a deployment that follows its load
	scaledMost   = 4
	scaledEach   = 50   // thousandths of a processor that each of its pods should use
	periodic     = "c0" // a cron job
	important    = "important"
)

// moreLives puts on the agenda what only some lives have.
func (w *world) moreLives() {
	if w.rng.IntN(4) == 0 {
		w.replicationControllersLife("r0")
	}
	if w.rng.IntN(4) == 0 {
		w.guardedLife()
	}
	if w.rng.IntN(5) == 0 {
		w.scaledLife()
	}
	if w.rng.IntN(4) == 0 {
		w.periodicLife()
	}
	if w.rng.IntN(4) == 0 {
		w.importantLife("p0")
	}
	if w.rng.IntN(4) == 0 {
		w.claimsLife("v0")
	}
}

// replicationControllersLife makes one, changes it, and removes it in one of three
// ways, to make another under its name.
func (w *world) replicationControllersLife(name string) {
	template := w.template(name, "app")
	made := func() error {
		replicas := int32(1 + w.rng.IntN(3))
		rc := &corev1.ReplicationController{ObjectMeta: metav1.ObjectMeta{Namespace: "free", Name: name}}
		rc.Spec = corev1.ReplicationControllerSpec{Replicas: &replicas, Selector: map[string]string{"app": name}, Template: &template}
		_, err := client.ReplicationControllers.Create(w.t.Context(), w.admin, rc)
		return err
	}
	w.ask("create replication controller "+name, made)
	to := int32(w.rng.IntN(4))
	w.sometime(fmt.Sprintf("scale replication controller to %d", to), func() error {
		return changed(w, client.ReplicationControllers, "free", name, func(rc *corev1.ReplicationController) { rc.Spec.Replicas = &to })
	})
	if w.rng.IntN(2) == 0 {
		w.again("replication controller "+name, func(opts metav1.DeleteOptions) error {
			return client.ReplicationControllers.Delete(w.t.Context(), w.admin, "free", name, opts)
		}, made)
	}
}

// again removes something some time, and makes another under its name: at once, if
// the first is gone by then, and some time later.
func (w *world) again(what string, remove func(metav1.DeleteOptions) error, made func() error) {
	all := []metav1.DeletionPropagation{metav1.DeletePropagationBackground, metav1.DeletePropagationForeground, metav1.DeletePropagationOrphan}
	policy := all[w.rng.IntN(len(all))]
	at := w.within(busy * 3 / 4)
	w.later(at, "admin", func() {
		if kind := kindOf(what); policy == metav1.DeletePropagationOrphan && w.trouble.lag > longLag && kind != "" {
			// Who sees the orphans before he sees that their owner is another one.
			w.deafen("controllers mirrors "+kind, 5*time.Second+w.within(longestDeaf-5*time.Second))
		}
		w.ask(fmt.Sprintf("delete %s (%s)", what, policy), func() error { return remove(metav1.DeleteOptions{PropagationPolicy: &policy}) })
		w.ask("create "+what+" at once", made)
	})
	w.later(at+w.within(busy/4), "admin", func() { w.ask("create "+what+" again", made) })
}

// kindOf is the resource of something that is told by its kind and name, "" if it owns
// nothing.
func kindOf(what string) string {
	for words, kind := range map[string]string{"stateful set ": "statefulsets", "job ": "jobs", "replication controller ": "replicationcontrollers"} {
		if strings.HasPrefix(what, words) {
			return kind
		}
	}
	return ""
}

// guardedLife makes a deployment with a budget, and evicts its pods.
func (w *world) guardedLife() {
	w.class()
	least := intstr.FromInt32(guardedLeast)
	w.ask("create budget", func() error {
		b := &policyv1.PodDisruptionBudget{ObjectMeta: metav1.ObjectMeta{Namespace: "free", Name: guarded}}
		b.Spec = policyv1.PodDisruptionBudgetSpec{MinAvailable: &least, Selector: selector(guarded)}
		_, err := client.PodDisruptionBudgets.Create(w.t.Context(), w.admin, b)
		return err
	})
	// Its pods take their time to stop, and are ready until then.
	stops := func(t *corev1.PodTemplateSpec) {
		grace, last := int64(30), int64(12+w.rng.IntN(6))
		t.Spec.TerminationGracePeriodSeconds = &grace
		t.Spec.Containers[0].Lifecycle = &corev1.Lifecycle{PreStop: &corev1.LifecycleHandler{Sleep: &corev1.SleepAction{Seconds: last}}}
	}
	w.plain(guarded, guardedSize, 50, important, stops)
	if w.trouble.name == "calm" {
		w.deleteAndEvict()
		return
	}
	for range 4 + w.rng.IntN(8) {
		n := w.rng.IntN(guardedSize)
		w.sometime(fmt.Sprintf("evict two pods of %s, from %d on", guarded, n), func() error {
			return errors.Join(w.evict(n), w.evict((n+1)%guardedSize))
		})
	}
	if w.rng.IntN(2) == 0 {
		m := w.nodes[w.rng.IntN(len(w.nodes))].name
		w.drain(m)
	}
}

// deleteAndEvict deletes a pod of the guarded deployment while all are ready, which no
// budget forbids, and tries to evict the others while that one is still going.
func (w *world) deleteAndEvict() {
	for i := range 3 {
		at := time.Duration(20+70*i)*time.Second + w.within(20*time.Second)
		going := false
		w.later(at, "admin", func() {
			w.ask("delete a pod of "+guarded, func() error {
				pods, _, err := client.Pods.List(w.t.Context(), w.admin, "free", metav1.ListOptions{LabelSelector: "app=" + guarded})
				ready := slices.DeleteFunc(pods, func(p *corev1.Pod) bool { return !isReady(p) || p.DeletionTimestamp != nil })
				if err != nil || len(ready) < guardedSize {
					return errors.Join(err, errors.New("not all are ready"))
				}
				going = true
				return client.Pods.Delete(w.t.Context(), w.admin, "free", ready[0].Name, metav1.DeleteOptions{})
			})
		})
		w.later(at+5*time.Second, "admin", func() {
			if going {
				w.ask("evict the others of "+guarded, func() error { return errors.Join(w.evict(0), w.evict(1), w.evict(2)) })
			}
		})
	}
}

// plain makes a deployment that nobody changes.
func (w *world) plain(name string, size int32, cpu int64, class string, shape ...func(*corev1.PodTemplateSpec)) {
	w.ask("create deployment "+name, func() error {
		d := &appsv1.Deployment{ObjectMeta: metav1.ObjectMeta{Namespace: "free", Name: name}}
		d.Spec = appsv1.DeploymentSpec{Replicas: &size, Selector: selector(name), Template: w.template(name, "app")}
		d.Spec.Template.Spec.PriorityClassName = class
		d.Spec.Template.Spec.Containers[0].Resources.Requests[corev1.ResourceCPU] = *resource.NewMilliQuantity(cpu, resource.DecimalSI)
		for _, f := range shape {
			f(&d.Spec.Template)
		}
		_, err := client.Deployments.Create(w.t.Context(), w.admin, d)
		return err
	})
}

// class makes the priority class of those who may push others out.
func (w *world) class() {
	w.ask("create priority class", func() error {
		c := &schedulingv1.PriorityClass{ObjectMeta: metav1.ObjectMeta{Name: important}, Value: 1000}
		_, err := client.PriorityClasses.Create(w.t.Context(), w.admin, c)
		return err
	})
}

// evict asks for the eviction of the n-th pod of the guarded deployment.
func (w *world) evict(n int) error {
	pods, _, err := client.Pods.List(w.t.Context(), w.admin, "free", metav1.ListOptions{LabelSelector: "app=" + guarded})
	if err != nil {
		return err
	}
	if n >= len(pods) {
		return errors.New("there are not so many")
	}
	return w.evictPod(pods[n])
}

func (w *world) evictPod(p *corev1.Pod) error {
	at := target.Of(client.Pods.GroupVersionResource, p.Namespace).Object(p.Name).Sub("eviction")
	_, err := w.admin.Create(w.t.Context(), at, &policyv1.Eviction{ObjectMeta: metav1.ObjectMeta{Namespace: p.Namespace, Name: p.Name}}, metav1.CreateOptions{})
	return err
}

// drain cordons a node, tries to evict all its pods for a while, and lets it be used
// again.
func (w *world) drain(node string) {
	cordon := func(to bool) func() error {
		return func() error {
			return changed(w, client.Nodes, "", node, func(n *corev1.Node) { n.Spec.Unschedulable = to })
		}
	}
	at := w.within(busy / 2)
	w.later(at, "admin", func() { w.ask("cordon "+node, cordon(true)) })
	for i := range 6 {
		w.later(at+time.Duration(i)*10*time.Second, "admin", func() { w.ask("drain "+node, func() error { return w.evictAll(node) }) })
	}
	w.later(at+70*time.Second, "admin", func() { w.ask("uncordon "+node, cordon(false)) })
}

func (w *world) evictAll(node string) error {
	pods, _, err := client.Pods.List(w.t.Context(), w.admin, "", metav1.ListOptions{FieldSelector: "spec.nodeName=" + node})
	if err != nil {
		return err
	}
	var errs []error
	for _, p := range pods {
		if ref := metav1.GetControllerOf(p); ref == nil || ref.Kind != client.DaemonSets.Kind {
			errs = append(errs, w.evictPod(p))
		}
	}
	return errors.Join(errs...)
}

// load is what the pods of the scaled deployment have to do together, in thousandths
// of a processor.
type load struct {
	mu     sync.Mutex
	demand int64
	spent  map[string]float64 // by pod, in seconds
	asked  map[string]time.Time
}

// scaledLife makes a deployment that follows its load, which changes.
func (w *world) scaledLife() {
	w.load = load{demand: 30, spent: map[string]float64{}, asked: map[string]time.Time{}}
	w.plain(scaled, 1, 2*scaledEach, "")
	half, least := int32(50), int32(1)
	w.ask("create autoscaler", func() error {
		h := &autoscalingv2.HorizontalPodAutoscaler{ObjectMeta: metav1.ObjectMeta{Namespace: "free", Name: scaled}}
		h.Spec = autoscalingv2.HorizontalPodAutoscalerSpec{MinReplicas: &least, MaxReplicas: scaledMost,
			ScaleTargetRef: autoscalingv2.CrossVersionObjectReference{APIVersion: "apps/v1", Kind: "Deployment", Name: scaled},
			Metrics: []autoscalingv2.MetricSpec{{Type: autoscalingv2.ResourceMetricSourceType, Resource: &autoscalingv2.ResourceMetricSource{
				Name: corev1.ResourceCPU, Target: autoscalingv2.MetricTarget{Type: autoscalingv2.UtilizationMetricType, AverageUtilization: &half}}}}}
		_, err := client.HorizontalPodAutoscalers.Create(w.t.Context(), w.admin, h)
		return err
	})
	for range 1 + w.rng.IntN(2) {
		demand := int64(30 + 50*w.rng.IntN(7))
		w.later(w.within(busy), fmt.Sprintf("the load of %s is %dm", scaled, demand), func() {
			w.load.mu.Lock()
			defer w.load.mu.Unlock()
			w.load.demand = demand
		})
	}
}

// measure is a node's answer about what its pods have used: each of the scaled ones
// takes an equal share of the load.
func (w *world) measure(_ context.Context, node string) (io.ReadCloser, error) {
	if w.gate.isSilent("agent " + node) {
		return nil, errors.New("the node is silent")
	}
	w.load.mu.Lock()
	defer w.load.mu.Unlock()
	var here []process
	sharers := 0
	for _, m := range w.nodes {
		for _, p := range m.running() {
			if !strings.HasPrefix(p.pod, scaled+"-") {
				continue
			}
			if sharers++; m.name == node {
				here = append(here, p)
			}
		}
	}
	now := time.Now()
	var b strings.Builder
	fmt.Fprintf(&b, "node_cpu_usage_seconds_total %g %d\nnode_memory_working_set_bytes 1\n", now.Sub(time.Unix(0, 0)).Seconds()/2, now.UnixMilli())
	for _, p := range here {
		if last, ok := w.load.asked[p.uid]; ok {
			w.load.spent[p.uid] += now.Sub(last).Seconds() * float64(w.load.demand) / float64(sharers) / 1000
		}
		w.load.asked[p.uid] = now
		labels := fmt.Sprintf("{container=%q,namespace=%q,pod=%q}", "c", "free", p.pod)
		fmt.Fprintf(&b, "container_cpu_usage_seconds_total%s %g %d\ncontainer_memory_working_set_bytes%s 1048576\n", labels, w.load.spent[p.uid], now.UnixMilli(), labels)
	}
	return io.NopCloser(strings.NewReader(b.String())), nil
}

// periodicLife makes a cron job for every minute, which ends with the trouble.
func (w *world) periodicLife() {
	all := []batchv1.ConcurrencyPolicy{batchv1.AllowConcurrent, batchv1.ForbidConcurrent, batchv1.ReplaceConcurrent}
	kept := int32(1 + w.rng.IntN(2))
	c := &batchv1.CronJob{ObjectMeta: metav1.ObjectMeta{Namespace: "free", Name: periodic}}
	c.Spec = batchv1.CronJobSpec{Schedule: "* * * * *", ConcurrencyPolicy: all[w.rng.IntN(len(all))], SuccessfulJobsHistoryLimit: &kept, FailedJobsHistoryLimit: &kept}
	c.Spec.JobTemplate.Spec.Template = w.template(periodic, w.oneOf("work", "long"))
	c.Spec.JobTemplate.Spec.Template.Labels = nil
	c.Spec.JobTemplate.Spec.Template.Spec.RestartPolicy = corev1.RestartPolicyNever
	w.ask(fmt.Sprintf("create cron job (%s)", c.Spec.ConcurrencyPolicy), func() error {
		_, err := client.CronJobs.Create(w.t.Context(), w.admin, c)
		return err
	})
}

// calmDown lets no more jobs begin by the clock, and no node be closed because nobody
// could open it again.
func (w *world) calmDown() {
	yes := true
	for _, m := range w.nodes {
		_ = changed(w, client.Nodes, "", m.name, func(n *corev1.Node) { n.Spec.Unschedulable = false })
	}
	_ = changed(w, client.CronJobs, "free", periodic, func(c *batchv1.CronJob) { c.Spec.Suspend = &yes })
	w.leaveDoomed()
	w.layGhosts()
}

// importantLife makes pods that may push others out.
func (w *world) importantLife(name string) {
	w.class()
	w.later(w.within(busy), "admin", func() { w.plain(name, int32(1+w.rng.IntN(2)), int64(500+100*w.rng.IntN(4)), important) })
}

// claimsLife makes a stateful set whose pods have volumes, each of one node, that are
// bound when their pod has a place.
func (w *world) claimsLife(name string) {
	class := "local"
	w.ask("create storage class", func() error { return w.storageClass(class) })
	for i, m := range w.nodes {
		w.ask(fmt.Sprintf("create volume of %s", m.name), func() error { return w.volume(fmt.Sprintf("pv%d", i), m.name, class) })
	}
	replicas, grace := int32(1+w.rng.IntN(2)), int64(1)
	s := &appsv1.StatefulSet{ObjectMeta: metav1.ObjectMeta{Namespace: "free", Name: name}}
	s.Spec = appsv1.StatefulSetSpec{Replicas: &replicas, Selector: selector(name), Template: w.template(name, "app"), ServiceName: name,
		PodManagementPolicy: appsv1.ParallelPodManagement}
	s.Spec.Template.Spec.TerminationGracePeriodSeconds = &grace
	claim := corev1.PersistentVolumeClaim{ObjectMeta: metav1.ObjectMeta{Name: "data"}, Spec: corev1.PersistentVolumeClaimSpec{
		AccessModes: []corev1.PersistentVolumeAccessMode{corev1.ReadWriteOnce}, StorageClassName: &class,
		Resources: corev1.VolumeResourceRequirements{Requests: corev1.ResourceList{corev1.ResourceStorage: resource.MustParse("1Gi")}}}}
	s.Spec.VolumeClaimTemplates = []corev1.PersistentVolumeClaim{claim}
	s.Spec.Template.Spec.Containers[0].VolumeMounts = []corev1.VolumeMount{{Name: "data", MountPath: "/data"}}
	w.ask("create stateful set "+name, func() error {
		_, err := client.StatefulSets.Create(w.t.Context(), w.admin, s)
		return err
	})
	if w.rng.IntN(2) == 0 {
		w.sometime("delete pod "+name+"-0", func() error {
			return client.Pods.Delete(w.t.Context(), w.admin, "free", name+"-0", metav1.DeleteOptions{})
		})
	}
}
