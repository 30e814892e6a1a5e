package seeded

import (
	"fmt"
	"strings"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/intstr"

	"github.com/sampan-dev/sampan/client"
)

// quotaPods is how many pods namespace "tight" may have.
const quotaPods = 3

// quotaCounts is how long a new quota takes to know what there is, unless who counts
// dies; then it is waited for as often.
const (
	quotaCounts = 5 * time.Second
	mostWaits   = 20
)

// script puts on the agenda what people ask for, and what goes wrong.
func (w *world) script() {
	for _, ns := range []string{"free", "tight"} {
		w.ask("create namespace "+ns, func() error {
			_, err := client.Namespaces.Create(w.t.Context(), w.admin, &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: ns}})
			return err
		})
	}
	w.ask("limit tight", func() error {
		q := &corev1.ResourceQuota{ObjectMeta: metav1.ObjectMeta{Namespace: "tight", Name: "pods"}}
		q.Spec.Hard = corev1.ResourceList{corev1.ResourcePods: *resource.NewQuantity(quotaPods, resource.DecimalSI)}
		_, err := client.ResourceQuotas.Create(w.t.Context(), w.admin, q)
		return err
	})
	// What was admitted before a quota's first count is not the quota's to refuse.
	for n := 0; n == 0 || n < mostWaits && !w.oracle.quotaKnown() && len(w.wrong) == 0; n++ {
		w.until(w.now(quotaCounts))
	}
	for i := range 1 + w.rng.IntN(3) {
		w.deploymentsLife(fmt.Sprintf("d%d", i), w.oneOf("free", "free", "tight"))
	}
	if w.rng.IntN(2) == 0 || w.trouble.nodes {
		w.statefulSetsLife("s0")
	}
	if w.rng.IntN(2) == 0 || w.trouble.twoLeaders {
		w.jobsLife("j0")
	}
	if w.rng.IntN(3) == 0 {
		w.daemonSetsLife("ds0")
	}
	if w.rng.IntN(3) == 0 {
		w.namespacesLife("brief")
	}
	w.moreLives()
	w.rareLives()
	w.officeLives()
	w.troubles()
}

// ask does something that a person asks for, at once; people see errors and try
// again some other time.
func (w *world) ask(what string, do func() error) {
	if err := do(); err != nil {
		w.note("admin: %s: %v", what, err)
		return
	}
	w.note("admin: %s", what)
}

// sometime puts a request on the agenda, within the busy time.
func (w *world) sometime(what string, do func() error) {
	w.later(w.within(busy), "admin", func() { w.ask(what, do) })
}

func (w *world) within(d time.Duration) time.Duration { return time.Duration(w.rng.Int64N(int64(d))) }

func (w *world) oneOf(all ...string) string { return all[w.rng.IntN(len(all))] }

// template is a pod that asks for a share of a node.
func (w *world) template(app, image string) corev1.PodTemplateSpec {
	no, zero := false, int64(w.rng.IntN(3))
	return corev1.PodTemplateSpec{
		ObjectMeta: metav1.ObjectMeta{Labels: map[string]string{"app": app}},
		Spec: corev1.PodSpec{
			AutomountServiceAccountToken: &no, TerminationGracePeriodSeconds: &zero,
			Containers: []corev1.Container{{
				Name: "c", Image: image, ImagePullPolicy: corev1.PullIfNotPresent,
				Resources: corev1.ResourceRequirements{Requests: corev1.ResourceList{
					corev1.ResourceCPU: *resource.NewMilliQuantity(int64(50+50*w.rng.IntN(6)), resource.DecimalSI)}},
			}},
		},
	}
}

func selector(app string) *metav1.LabelSelector {
	return &metav1.LabelSelector{MatchLabels: map[string]string{"app": app}}
}

func (w *world) deploymentsLife(name, ns string) {
	made := func() error {
		replicas := int32(1 + w.rng.IntN(4))
		surge, down := intstr.FromInt32(int32(w.rng.IntN(3))), intstr.FromInt32(int32(1+w.rng.IntN(2)))
		d := &appsv1.Deployment{ObjectMeta: metav1.ObjectMeta{Namespace: ns, Name: name}}
		d.Spec = appsv1.DeploymentSpec{Replicas: &replicas, Selector: selector(name), Template: w.template(name, "app"),
			Strategy: appsv1.DeploymentStrategy{Type: appsv1.RollingUpdateDeploymentStrategyType,
				RollingUpdate: &appsv1.RollingUpdateDeployment{MaxSurge: &surge, MaxUnavailable: &down}}}
		if w.rng.IntN(5) == 0 {
			d.Spec.Strategy = appsv1.DeploymentStrategy{Type: appsv1.RecreateDeploymentStrategyType}
		}
		_, err := client.Deployments.Create(w.t.Context(), w.admin, d)
		return err
	}
	w.ask("create deployment "+name, made)
	w.ask("create service "+name, func() error {
		s := &corev1.Service{ObjectMeta: metav1.ObjectMeta{Namespace: ns, Name: name}}
		s.Spec = corev1.ServiceSpec{Selector: map[string]string{"app": name}, Ports: []corev1.ServicePort{{Port: 80}}}
		_, err := client.Services.Create(w.t.Context(), w.admin, s)
		return err
	})
	change := func(what string, f func(*appsv1.Deployment)) {
		w.sometime(what+" deployment "+name, func() error {
			return changed(w, client.Deployments, ns, name, f)
		})
	}
	for range 1 + w.rng.IntN(3) {
		switch w.rng.IntN(4) {
		case 0, 1:
			to := int32(w.rng.IntN(6))
			change(fmt.Sprintf("scale to %d", to), func(d *appsv1.Deployment) { d.Spec.Replicas = &to })
		case 2:
			version := fmt.Sprint(w.rng.IntN(3))
			change("roll", func(d *appsv1.Deployment) {
				d.Spec.Template.Annotations = map[string]string{"version": version}
			})
		case 3:
			policy := metav1.DeletePropagationBackground
			if w.rng.IntN(2) == 0 {
				policy = metav1.DeletePropagationForeground
			}
			w.sometime("delete deployment "+name, func() error {
				return client.Deployments.Delete(w.t.Context(), w.admin, ns, name, metav1.DeleteOptions{PropagationPolicy: &policy})
			})
			w.sometime("create deployment "+name+" again", made)
		}
	}
}

// changed reads, changes and writes back, again when somebody was faster.
func changed[T client.Object](w *world, kind client.Resource[T], ns, name string, f func(T)) error {
	for {
		old, err := kind.Get(w.t.Context(), w.admin, ns, name)
		if err != nil {
			return err
		}
		next := old.DeepCopyObject().(T)
		f(next)
		if _, err = kind.Update(w.t.Context(), w.admin, next); !apierrors.IsConflict(err) {
			return err
		}
	}
}

func (w *world) statefulSetsLife(name string) {
	replicas := int32(1 + w.rng.IntN(3))
	s := &appsv1.StatefulSet{ObjectMeta: metav1.ObjectMeta{Namespace: "free", Name: name}}
	s.Spec = appsv1.StatefulSetSpec{Replicas: &replicas, Selector: selector(name), Template: w.template(name, "app"), ServiceName: name}
	// With no time to stop a pod is gone from the API at once, though a silent node
	// runs it still: nobody may ask for that and for one pod of a name at most.
	grace := int64(1)
	s.Spec.Template.Spec.TerminationGracePeriodSeconds = &grace
	if w.rng.IntN(2) == 0 {
		s.Spec.PodManagementPolicy = appsv1.ParallelPodManagement
	}
	if w.rng.IntN(2) == 0 || w.trouble.nodes {
		soon := int64(5 + w.rng.IntN(20))
		for _, taint := range []string{corev1.TaintNodeUnreachable, corev1.TaintNodeNotReady} {
			s.Spec.Template.Spec.Tolerations = append(s.Spec.Template.Spec.Tolerations, corev1.Toleration{
				Key: taint, Operator: corev1.TolerationOpExists, Effect: corev1.TaintEffectNoExecute, TolerationSeconds: &soon})
		}
	}
	made := func() error {
		_, err := client.StatefulSets.Create(w.t.Context(), w.admin, s)
		return err
	}
	w.ask("create stateful set "+name, made)
	if w.rng.IntN(2) == 0 {
		w.again("stateful set "+name, func(opts metav1.DeleteOptions) error {
			return client.StatefulSets.Delete(w.t.Context(), w.admin, "free", name, opts)
		}, made)
	}
	for range w.rng.IntN(3) {
		to := int32(w.rng.IntN(4))
		w.sometime(fmt.Sprintf("scale stateful set to %d", to), func() error {
			return changed(w, client.StatefulSets, "free", name, func(s *appsv1.StatefulSet) { s.Spec.Replicas = &to })
		})
	}
	if w.rng.IntN(2) == 0 {
		w.sometime("roll stateful set", func() error {
			return changed(w, client.StatefulSets, "free", name, func(s *appsv1.StatefulSet) {
				s.Spec.Template.Annotations = map[string]string{"version": "next"}
			})
		})
	}
	if w.rng.IntN(2) == 0 {
		w.sometime("delete pod "+name+"-0", func() error {
			return client.Pods.Delete(w.t.Context(), w.admin, "free", name+"-0", metav1.DeleteOptions{})
		})
	}
}

func (w *world) jobsLife(name string) {
	completions, parallel, limit := int32(1+w.rng.IntN(5)), int32(1+w.rng.IntN(3)), int32(2)
	j := &batchv1.Job{ObjectMeta: metav1.ObjectMeta{Namespace: "free", Name: name}}
	j.Spec = batchv1.JobSpec{Completions: &completions, Parallelism: &parallel, BackoffLimit: &limit,
		Template: w.template(name, w.oneOf("work", "work", "work", "flaky"))}
	j.Spec.Template.Labels = nil
	j.Spec.Template.Spec.RestartPolicy = corev1.RestartPolicyNever
	if w.rng.IntN(2) == 0 {
		indexed := batchv1.IndexedCompletion
		j.Spec.CompletionMode = &indexed
	}
	made := func() error {
		_, err := client.Jobs.Create(w.t.Context(), w.admin, j)
		return err
	}
	w.later(w.within(time.Minute), "admin", func() { w.ask("create job "+name, made) })
	if w.rng.IntN(2) == 0 {
		w.again("job "+name, func(opts metav1.DeleteOptions) error {
			return client.Jobs.Delete(w.t.Context(), w.admin, "free", name, opts)
		}, made)
	}
	if w.rng.IntN(3) == 0 {
		yes, no := true, false
		set := func(to *bool) func() error {
			return func() error {
				return changed(w, client.Jobs, "free", name, func(j *batchv1.Job) { j.Spec.Suspend = to })
			}
		}
		at := time.Minute + w.within(30*time.Second)
		w.later(at, "admin", func() { w.ask("suspend job", set(&yes)) })
		w.later(at+w.within(time.Minute), "admin", func() { w.ask("resume job", set(&no)) })
	}
}

func (w *world) daemonSetsLife(name string) {
	d := &appsv1.DaemonSet{ObjectMeta: metav1.ObjectMeta{Namespace: "free", Name: name}}
	d.Spec = appsv1.DaemonSetSpec{Selector: selector(name), Template: w.template(name, "app")}
	d.Spec.Template.Spec.Containers[0].Resources = corev1.ResourceRequirements{}
	w.ask("create daemon set "+name, func() error {
		_, err := client.DaemonSets.Create(w.t.Context(), w.admin, d)
		return err
	})
	if w.rng.IntN(2) == 0 {
		w.sometime("roll daemon set", func() error {
			return changed(w, client.DaemonSets, "free", name, func(d *appsv1.DaemonSet) {
				d.Spec.Template.Annotations = map[string]string{"version": "next"}
			})
		})
	}
}

// namespacesLife makes a namespace with something in it, and removes it.
func (w *world) namespacesLife(name string) {
	w.ask("create namespace "+name, func() error {
		_, err := client.Namespaces.Create(w.t.Context(), w.admin, &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: name}})
		return err
	})
	w.deploymentsLife("inner", name)
	w.later(busy/2+w.within(busy/2), "admin", func() {
		w.ask("delete namespace "+name, func() error {
			return client.Namespaces.Delete(w.t.Context(), w.admin, "", name, metav1.DeleteOptions{})
		})
	})
}

// troubles puts on the agenda what the profile wants beyond what happens at the gate.
func (w *world) troubles() {
	if w.trouble.twoLeaders {
		w.staleLeaders()
		at := w.within(busy / 2)
		w.later(at, "a second leader", func() { w.startControllers("controllers 2") })
		w.later(busy-time.Second, "the second leader dies", func() { w.retire("controllers 2") })
		if w.rng.IntN(2) == 0 {
			w.later(w.within(busy/2), "a second scheduler", func() {
				w.rivals = true
				w.startScheduler("scheduler 2")
			})
			w.later(busy-time.Second, "the second scheduler dies", func() { w.retire("scheduler 2") })
		}
	}
	if w.trouble.lag > longLag {
		w.staleKinds()
	}
	if w.trouble.servers {
		at := time.Duration(0)
		for range 1 + w.rng.IntN(3) {
			at += 5*time.Second + w.within(busy/4)
			away := time.Second + w.within(40*time.Second)
			w.later(at, fmt.Sprintf("the API server goes for %s", away), func() {
				if w.over {
					return
				}
				w.goes()
				w.later(away, "the API server comes back", w.comesBack)
			})
			at += away
		}
	}
	if !w.trouble.nodes {
		return
	}
	w.badNodes()
}

// staleLeaders lets those who act, the first and the second of them, hear nothing for a
// while, again and again: each decides by an old picture while the other acts.
func (w *world) staleLeaders() {
	for at := w.within(busy / 4); at < busy; at += 10*time.Second + w.within(busy/6) {
		who, d := w.oneOf("controllers", "controllers 2", "scheduler", "scheduler 2"), time.Second+w.within(longestDeaf)
		if strings.HasPrefix(who, "controllers") && w.rng.IntN(2) == 0 {
			who += " " + w.oneOf(newsworthy...)
		}
		w.later(at, fmt.Sprintf("%s hears nothing for %s", who, d), func() { w.deafen(who, d) })
	}
}

// longLag is from where on news is so slow that some kind's may not come at all.
const longLag = 3 * time.Second

// newsworthy are kinds whose news may not come, those first that most depends on.
var newsworthy = []string{"pods", "pods", "pods", "replicasets", "deployments", "statefulsets", "jobs", "replicationcontrollers", "nodes",
	"persistentvolumeclaims", "services", "endpointslices", "poddisruptionbudgets", "cronjobs", "resourceclaims"}

// staleKinds lets the controllers hear nothing of one kind for a while, again and again,
// though they hear of the others: news is out of order.
func (w *world) staleKinds() {
	for at := w.within(busy / 8); at < busy; at += 5*time.Second + w.within(busy/12) {
		kind, d := w.oneOf(newsworthy...), time.Second+w.within(longestDeaf)
		w.later(at, fmt.Sprintf("the controllers hear nothing of %s for %s", kind, d), func() { w.deafen("controllers "+kind, d) })
	}
}

// longestDeaf is how long somebody hears nothing at most.
const longestDeaf = 25 * time.Second

// badNodes lets nodes fall silent, lose power, lose their agent and leave.
func (w *world) badNodes() {
	for range 1 + w.rng.IntN(4) {
		m := w.nodes[w.rng.IntN(len(w.nodes))]
		switch w.rng.IntN(5) {
		case 4:
			// So long that its pods are thought to be elsewhere, and it comes back.
			d := 90*time.Second + w.within(time.Minute)
			w.later(w.within(busy/3), fmt.Sprintf("%s is silent for %s", m.name, d), func() { w.silence(m, d) })
		case 3:
			away := 5*time.Second + w.within(2*time.Minute)
			w.later(w.within(busy/2), fmt.Sprintf("%s is taken out for %s", m.name, away), func() {
				if w.lives["agent "+m.name] != nil {
					w.removed(m, away)
				}
			})
		case 0:
			d := 5*time.Second + w.within(3*time.Minute)
			w.later(w.within(busy), fmt.Sprintf("%s is silent for %s", m.name, d), func() { w.silence(m, d) })
		case 1:
			w.later(w.within(busy), m.name+" loses power", func() { w.power(m) })
		case 2:
			w.later(w.within(busy), "agent of "+m.name+" dies", func() {
				if l := w.lives["agent "+m.name]; l != nil {
					l.kill()
				}
			})
		}
	}
}
