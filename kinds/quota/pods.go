package quota

import (
	"fmt"
	"slices"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	resourcev1 "k8s.io/api/resource/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/util/sets"
	helpers "k8s.io/component-helpers/resource"

	"github.com/sampan-dev/sampan/kinds/core"
)

var podResources = []corev1.ResourceName{
	"count/pods", corev1.ResourcePods, corev1.ResourceCPU, corev1.ResourceMemory, corev1.ResourceEphemeralStorage,
	corev1.ResourceRequestsCPU, corev1.ResourceRequestsMemory, corev1.ResourceRequestsEphemeralStorage,
	corev1.ResourceLimitsCPU, corev1.ResourceLimitsMemory, corev1.ResourceLimitsEphemeralStorage,
}

// mentioned are the resources that each container must mention where a quota
// caps them: an old mistake that is kept for these and made for no others.
var mentioned = sets.New(corev1.ResourceCPU, corev1.ResourceMemory, corev1.ResourceRequestsCPU,
	corev1.ResourceRequestsMemory, corev1.ResourceLimitsCPU, corev1.ResourceLimitsMemory)

func podMeter() Meter {
	return Meter{
		Resource: schema.GroupResource{Resource: "pods"},
		fixed:    podResources,
		measures: func(name corev1.ResourceName) bool {
			return hugePages(name) || strings.HasPrefix(string(name), corev1.ResourceRequestsHugePagesPrefix) || cappedExtended(name)
		},
		usage:   podUsage,
		inScope: podInScope,
		missing: podMissing,
	}
}

func hugePages(name corev1.ResourceName) bool {
	return strings.HasPrefix(string(name), corev1.ResourceHugePagesPrefix)
}

// cappedExtended: extended resources are capped by their requests alone, for
// they cannot be overcommitted.
func cappedExtended(name corev1.ResourceName) bool {
	if strings.HasPrefix(string(name), corev1.ResourceImplicitExtendedClaimsPerClass) {
		return true
	}
	return strings.HasPrefix(string(name), corev1.DefaultResourceRequestsPrefix) && !native(name)
}

func native(name corev1.ResourceName) bool {
	return !strings.Contains(string(name), "/") || strings.Contains(string(name), corev1.ResourceDefaultNamespacePrefix)
}

// podUsage counts every stored pod as such, and what it asks for until it has
// ended.
func podUsage(obj runtime.Object, now time.Time) corev1.ResourceList {
	pod, ok := obj.(*corev1.Pod)
	if !ok {
		return nil
	}
	used := corev1.ResourceList{"count/pods": count(1)}
	if !Charged(pod, now) {
		return used
	}
	opts := helpers.PodResourcesOptions{UseStatusResources: true}
	return Add(used, computeUsage(helpers.PodRequests(pod, opts), helpers.PodLimits(pod, opts)))
}

// Charged says whether a pod's resources count: not once it has ended, nor when
// it is overdue to go, since its user can do nothing about a lost node.
func Charged(pod *corev1.Pod, now time.Time) bool {
	if pod.Status.Phase == corev1.PodFailed || pod.Status.Phase == corev1.PodSucceeded {
		return false
	}
	if pod.DeletionTimestamp == nil || pod.DeletionGracePeriodSeconds == nil {
		return true
	}
	return !now.After(pod.DeletionTimestamp.Add(time.Duration(*pod.DeletionGracePeriodSeconds) * time.Second))
}

func computeUsage(requests, limits corev1.ResourceList) corev1.ResourceList {
	used := corev1.ResourceList{corev1.ResourcePods: count(1)}
	for name, amount := range requests {
		asked := corev1.DefaultResourceRequestsPrefix + name
		switch {
		case name == corev1.ResourceCPU, name == corev1.ResourceMemory, name == corev1.ResourceEphemeralStorage, hugePages(name):
			used[name], used[asked] = amount, amount
		case !native(name) && !strings.HasPrefix(string(name), corev1.DefaultResourceRequestsPrefix),
			strings.HasPrefix(string(name), resourcev1.ResourceDeviceClassPrefix):
			used[asked] = amount
		}
	}
	for name, amount := range limits {
		switch name {
		case corev1.ResourceCPU, corev1.ResourceMemory, corev1.ResourceEphemeralStorage:
			used["limits."+name] = amount
		}
	}
	return used
}

func podMissing(required []corev1.ResourceName, obj runtime.Object) error {
	pod, ok := obj.(*corev1.Pod)
	if !ok || helpers.IsPodLevelResourcesSet(pod) {
		return nil
	}
	silent := map[corev1.ResourceName][]string{}
	for _, c := range slices.Concat(pod.Spec.Containers, pod.Spec.InitContainers) {
		has := computeUsage(c.Resources.Requests, c.Resources.Limits)
		for _, name := range required {
			if _, ok := has[name]; !ok && mentioned.Has(name) {
				silent[name] = append(silent[name], c.Name)
			}
		}
	}
	if len(silent) == 0 {
		return nil
	}
	parts := make([]string, 0, len(silent))
	for _, name := range sets.List(sets.KeySet(silent)) {
		containers := silent[name]
		slices.Sort(containers)
		parts = append(parts, fmt.Sprintf("%s for: %s", name, strings.Join(slices.Compact(containers), ",")))
	}
	return fmt.Errorf("must specify %s", strings.Join(parts, "; "))
}

// Terminating says that a pod has a deadline: the scope of that name.
func Terminating(pod *corev1.Pod) bool {
	return pod.Spec.ActiveDeadlineSeconds != nil && *pod.Spec.ActiveDeadlineSeconds >= 0
}

func podInScope(r Requirement, obj runtime.Object) bool {
	pod, ok := obj.(*corev1.Pod)
	if !ok {
		return false
	}
	switch r.ScopeName {
	case corev1.ResourceQuotaScopeTerminating:
		return Terminating(pod)
	case corev1.ResourceQuotaScopeNotTerminating:
		return !Terminating(pod)
	case corev1.ResourceQuotaScopeBestEffort:
		return core.QOSClass(pod) == corev1.PodQOSBestEffort
	case corev1.ResourceQuotaScopeNotBestEffort:
		return core.QOSClass(pod) != corev1.PodQOSBestEffort
	case corev1.ResourceQuotaScopePriorityClass:
		return fits(r, given(pod.Spec.PriorityClassName)...)
	case corev1.ResourceQuotaScopeCrossNamespacePodAffinity:
		return reachesOut(pod.Spec.Affinity)
	}
	return false
}

// given is a list of what there is.
func given(values ...string) []string {
	return slices.DeleteFunc(values, func(v string) bool { return v == "" })
}

// reachesOut says whether a pod's affinity looks into other namespaces.
func reachesOut(a *corev1.Affinity) bool {
	if a == nil {
		return false
	}
	out := func(t corev1.PodAffinityTerm) bool { return len(t.Namespaces) > 0 || t.NamespaceSelector != nil }
	weighted := func(t corev1.WeightedPodAffinityTerm) bool { return out(t.PodAffinityTerm) }
	if p := a.PodAffinity; p != nil && (slices.ContainsFunc(p.RequiredDuringSchedulingIgnoredDuringExecution, out) ||
		slices.ContainsFunc(p.PreferredDuringSchedulingIgnoredDuringExecution, weighted)) {
		return true
	}
	p := a.PodAntiAffinity
	return p != nil && (slices.ContainsFunc(p.RequiredDuringSchedulingIgnoredDuringExecution, out) ||
		slices.ContainsFunc(p.PreferredDuringSchedulingIgnoredDuringExecution, weighted))
}
