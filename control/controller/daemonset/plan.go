package daemonset

import (
	"cmp"
	"fmt"
	"slices"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/util/intstr"

	"github.com/sampan-dev/sampan/control/controller"
)

// burst bounds the pods made, and those removed, in one round, as upstream.
const burst = 250

// plan is what to do for one set.
type plan struct {
	create []string // nodes
	delete []*corev1.Pod
	news   []news
	// failed are nodes whose failed pod is removed now: the next one's removal
	// waits for longer.
	failed []string
	status appsv1.DaemonSetStatus
	again  time.Duration
}

// news is something to tell about the set.
type news struct{ eventtype, reason, message string }

// view is what a decision depends on besides set and pods.
type view struct {
	nodes []*corev1.Node
	// hash names the present template, same are all revisions that have it.
	hash       string
	same       []string
	collisions *int32
	// wait is how long a failed pod of a node has to stay before it is removed.
	wait func(node string) time.Duration
	now  time.Time
}

// round is a plan in the making.
type round struct {
	ds    *appsv1.DaemonSet
	view  view
	place place
	run   map[string]bool // nodes where a pod shall run
	pods  map[string][]*corev1.Pod
	surge int
	gone  int // pods that may be unavailable
	plan  plan
}

// decide is the whole of the controller's judgement. pods are the set's own.
func decide(ds *appsv1.DaemonSet, pods []*corev1.Pod, v view) plan {
	r := &round{ds: ds, view: v, place: placeOf(ds), run: map[string]bool{}, pods: map[string][]*corev1.Pod{}}
	for _, pod := range pods {
		node := nodeOf(pod)
		if node != "" && !(controller.Ended(pod) && pod.DeletionTimestamp != nil) {
			r.pods[node] = append(r.pods[node], pod)
		}
	}
	for _, on := range r.pods {
		slices.SortFunc(on, eldest)
	}
	stay := map[string]bool{}
	for _, node := range v.nodes {
		run, may := r.place.fits(node)
		if run {
			r.run[node.Name] = true
		}
		stay[node.Name] = may
	}
	r.plan.status = r.status(pods)
	r.bounds()
	for _, node := range v.nodes {
		r.node(node.Name, stay[node.Name])
	}
	r.dropHomeless(stay)
	if len(r.plan.create)+len(r.plan.delete) == 0 && ds.Spec.UpdateStrategy.Type == appsv1.RollingUpdateDaemonSetStrategyType {
		r.roll()
	}
	r.plan.create = r.plan.create[:min(len(r.plan.create), burst)]
	r.plan.delete = r.plan.delete[:min(len(r.plan.delete), burst)]
	return r.plan
}

// bounds resolves the rolling update's limits to pods. When both are nothing, one
// pod may be missing, or it would stand still.
func (r *round) bounds() {
	rolling := r.ds.Spec.UpdateStrategy.RollingUpdate
	if r.ds.Spec.UpdateStrategy.Type != appsv1.RollingUpdateDaemonSetStrategyType || rolling == nil {
		return
	}
	none := intstr.FromInt32(0)
	// Validation has refused what cannot be resolved.
	r.surge, _ = intstr.GetScaledValueFromIntOrPercent(intstr.ValueOrDefault(rolling.MaxSurge, none), len(r.run), true)
	r.gone, _ = intstr.GetScaledValueFromIntOrPercent(intstr.ValueOrDefault(rolling.MaxUnavailable, none), len(r.run), true)
	if r.surge == 0 && r.gone == 0 {
		r.gone = 1
	}
}

// node brings one node in order, but for updates.
func (r *round) node(name string, stay bool) {
	on := r.pods[name]
	switch {
	case r.run[name] && len(on) == 0:
		r.plan.create = append(r.plan.create, name)
	case stay:
		alive := r.removeEnded(name, on)
		if r.surging() {
			r.surgeOn(name, alive)
		} else if len(alive) > 1 {
			r.plan.delete = append(r.plan.delete, alive[1:]...)
		}
	default:
		for _, pod := range on {
			if pod.DeletionTimestamp == nil {
				r.plan.delete = append(r.plan.delete, pod)
			}
		}
	}
}

// removeEnded removes a node's pods that have run to their end, failed ones ever
// more slowly, and returns those that live.
func (r *round) removeEnded(name string, on []*corev1.Pod) (alive []*corev1.Pod) {
	for _, pod := range on {
		switch {
		case pod.DeletionTimestamp != nil:
		case pod.Status.Phase == corev1.PodFailed:
			if wait := r.view.wait(name); wait > 0 {
				r.plan.again = controller.Sooner(r.plan.again, wait)
				continue
			}
			r.plan.failed = append(r.plan.failed, name)
			r.remove(pod, corev1.EventTypeWarning, "FailedDaemonPod", "Found failed daemon pod %s/%s on node %s, will try to kill it", name)
		case pod.Status.Phase == corev1.PodSucceeded:
			r.remove(pod, corev1.EventTypeNormal, "SucceededDaemonPod", "Found succeeded daemon pod %s/%s on node %s, will try to delete it", name)
		default:
			alive = append(alive, pod)
		}
	}
	return alive
}

func (r *round) remove(pod *corev1.Pod, eventtype, reason, format, node string) {
	r.plan.delete = append(r.plan.delete, pod)
	r.plan.news = append(r.plan.news, news{eventtype, reason, fmt.Sprintf(format, pod.Namespace, pod.Name, node)})
}

func (r *round) surging() bool {
	rolling := r.ds.Spec.UpdateStrategy.RollingUpdate
	return rolling != nil && rolling.MaxSurge != nil && r.ds.Spec.UpdateStrategy.Type == appsv1.RollingUpdateDaemonSetStrategyType &&
		*rolling.MaxSurge != intstr.FromInt32(0) && *rolling.MaxSurge != intstr.FromString("0%")
}

// surgeOn keeps up to two pods, an old and a new one, while the old one is of use.
func (r *round) surgeOn(name string, alive []*corev1.Pod) {
	if len(alive) == 0 && r.run[name] {
		r.plan.create = append(r.plan.create, name)
	}
	if len(alive) < 2 {
		return
	}
	var fresh, old *corev1.Pod
	for _, pod := range alive {
		switch {
		case slices.Contains(r.view.same, pod.Labels[appsv1.DefaultDaemonSetUniqueLabelKey]) && fresh == nil:
			fresh = pod
		case !slices.Contains(r.view.same, pod.Labels[appsv1.DefaultDaemonSetUniqueLabelKey]) && old == nil:
			old = pod
		default:
			r.plan.delete = append(r.plan.delete, pod)
		}
	}
	if fresh == nil || old == nil {
		return
	}
	if ready, _ := controller.Ready(old); !ready || r.available(fresh) {
		r.plan.delete = append(r.plan.delete, old)
	}
}

// dropHomeless removes pods that wait for a node which is gone.
func (r *round) dropHomeless(known map[string]bool) {
	for name, on := range r.pods {
		if _, ok := known[name]; ok {
			continue
		}
		for _, pod := range on {
			if pod.Spec.NodeName == "" && pod.DeletionTimestamp == nil {
				r.plan.delete = append(r.plan.delete, pod)
			}
		}
	}
	slices.SortFunc(r.plan.delete, func(a, b *corev1.Pod) int { return cmp.Compare(a.Name, b.Name) })
}

// updated says whether a pod is of the present template.
func (r *round) updated(pod *corev1.Pod) bool {
	generation, ok := generationOf(r.ds)
	return ok && pod.Labels[generationLabel] == generation || slices.Contains(r.view.same, pod.Labels[appsv1.DefaultDaemonSetUniqueLabelKey])
}

func (r *round) available(pod *corev1.Pod) bool {
	return controller.Available(pod, r.ds.Spec.MinReadySeconds, r.view.now)
}

// status is the set's status by its pods, as they were before the plan.
func (r *round) status(pods []*corev1.Pod) appsv1.DaemonSetStatus {
	s := appsv1.DaemonSetStatus{
		ObservedGeneration: r.ds.Generation,
		CollisionCount:     r.view.collisions,
		Conditions:         r.ds.Status.Conditions,
	}
	for _, node := range r.view.nodes {
		on := r.pods[node.Name]
		if !r.run[node.Name] {
			if len(on) > 0 {
				s.NumberMisscheduled++
			}
			continue
		}
		s.DesiredNumberScheduled++
		if len(on) == 0 {
			continue
		}
		s.CurrentNumberScheduled++
		if ready, _ := controller.Ready(on[0]); ready {
			s.NumberReady++
		}
		if r.available(on[0]) {
			s.NumberAvailable++
		}
		if r.updated(on[0]) {
			s.UpdatedNumberScheduled++
		}
	}
	s.NumberUnavailable = s.DesiredNumberScheduled - s.NumberAvailable
	r.plan.again = controller.NextAvailable(pods, r.ds.Spec.MinReadySeconds, r.view.now)
	return s
}

// eldest puts pods that have a node first, then the older ones.
func eldest(a, b *corev1.Pod) int {
	bound := func(pod *corev1.Pod) int {
		if pod.Spec.NodeName != "" {
			return 0
		}
		return 1
	}
	return cmp.Or(cmp.Compare(bound(a), bound(b)), a.CreationTimestamp.Compare(b.CreationTimestamp.Time), cmp.Compare(a.Name, b.Name))
}
