package admit

import (
	"cmp"
	"math"
	"slices"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/component-helpers/resource"

	"github.com/sampan-dev/sampan/node/agent/spec"
	"github.com/sampan-dev/sampan/node/agent/static"
)

// systemCritical is the lowest priority of pods that the cluster can't do without.
const systemCritical = 2_000_000_000

// Critical reports whether a node makes room for a pod rather than refuse it,
// and never evicts it to save itself: a static pod, the mirror of one, or one
// with a system priority.
func Critical(pod *corev1.Pod) bool {
	return static.Is(pod) || static.IsMirror(pod) || (pod.Spec.Priority != nil && *pod.Spec.Priority >= systemCritical)
}

// preemptable reports whether who may take the place of whom.
func preemptable(who, whom *corev1.Pod) bool {
	if Critical(who) && !Critical(whom) {
		return true
	}
	return who.Spec.Priority != nil && whom.Spec.Priority != nil && *who.Spec.Priority > *whom.Spec.Priority
}

// lack is what a node has too little of for a pod.
type lack struct {
	name corev1.ResourceName
	much int64
}

// Victims are the pods to end so that a critical pod fits, fewest and least
// first: best-effort ones only where burstable and guaranteed ones can't do, as
// upstream chooses. False means that no set of pods would do, or that it isn't
// resources that the pod lacks.
func Victims(pod *corev1.Pod, node Node) ([]*corev1.Pod, bool) {
	if !Critical(pod) || refuses(pod, node) {
		return nil, false
	}
	missing := lacking(pod, node)
	groups := map[corev1.PodQOSClass][]*corev1.Pod{}
	for _, p := range node.Pods {
		if preemptable(pod, p) {
			class := spec.QoS(p)
			groups[class] = append(groups[class], p)
		}
	}
	best, burst, sure := groups[corev1.PodQOSBestEffort], groups[corev1.PodQOSBurstable], groups[corev1.PodQOSGuaranteed]
	if len(subtract(missing, slices.Concat(best, burst, sure))) > 0 {
		return nil, false
	}
	// Guaranteed pods only for what all others together can't give, and so on.
	fromSure := nearest(sure, subtract(missing, slices.Concat(best, burst)))
	fromBurst := nearest(burst, subtract(missing, slices.Concat(best, fromSure)))
	fromBest := nearest(best, subtract(missing, slices.Concat(fromBurst, fromSure)))
	return slices.Concat(fromBest, fromBurst, fromSure), true
}

// refuses: something else than resources keeps the pod out.
func refuses(pod *corev1.Pod, node Node) bool {
	for _, check := range checks {
		if check(pod, node) != nil {
			return true
		}
	}
	return false
}

func request(pod *corev1.Pod, name corev1.ResourceName) int64 {
	if name == corev1.ResourcePods {
		return 1
	}
	q := resource.PodRequests(pod, resource.PodResourcesOptions{})[name]
	return amount(name, q.MilliValue(), q.Value())
}

func lacking(pod *corev1.Pod, node Node) []lack {
	var list []lack
	add := func(name corev1.ResourceName, capacity int64) {
		used := int64(0)
		for _, p := range node.Pods {
			used += request(p, name)
		}
		if over := used + request(pod, name) - capacity; over > 0 && request(pod, name) > 0 {
			list = append(list, lack{name, over})
		}
	}
	if limit := node.Allocatable.Pods().Value(); limit > 0 {
		add(corev1.ResourcePods, limit)
	}
	for name := range resource.PodRequests(pod, resource.PodResourcesOptions{}) {
		if have := node.allocatable(name); have != nil {
			add(name, amount(name, have.MilliValue(), have.Value()))
		}
	}
	slices.SortFunc(list, func(a, b lack) int { return cmp.Compare(a.name, b.name) })
	return list
}

// subtract is what is still lacking when pods are gone.
func subtract(missing []lack, pods []*corev1.Pod) []lack {
	var left []lack
	for _, l := range missing {
		for _, p := range pods {
			l.much -= request(p, l.name)
		}
		if l.much > 0 {
			left = append(left, l)
		}
	}
	return left
}

// nearest picks, one after the other, the pod that gives most of what is still
// lacking, and of two that give the same the one that asks for less.
func nearest(pods []*corev1.Pod, missing []lack) []*corev1.Pod {
	pods = slices.Clone(pods)
	var picked []*corev1.Pod
	for len(missing) > 0 && len(pods) > 0 {
		at := 0
		for i := range pods {
			d, best := distance(pods[i], missing), distance(pods[at], missing)
			if d < best || (d == best && smaller(pods[i], pods[at])) {
				at = i
			}
		}
		missing = subtract(missing, pods[at:at+1])
		picked = append(picked, pods[at])
		pods = slices.Delete(pods, at, at+1)
	}
	return picked
}

// distance is how far a pod is from giving all that is lacking; each resource
// weighs the same.
func distance(pod *corev1.Pod, missing []lack) float64 {
	sum := 0.0
	for _, l := range missing {
		if left := float64(l.much - request(pod, l.name)); left > 0 {
			sum += math.Pow(left/float64(l.much), 2)
		}
	}
	return sum
}

func smaller(a, b *corev1.Pod) bool {
	return cmp.Or(cmp.Compare(request(a, corev1.ResourceMemory), request(b, corev1.ResourceMemory)),
		cmp.Compare(request(a, corev1.ResourceCPU), request(b, corev1.ResourceCPU))) < 0
}
