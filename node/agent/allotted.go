package agent

import (
	corev1 "k8s.io/api/core/v1"
)

// allotted is the pod as the node runs it: while a resize waits for room it has the
// resources that it was last granted, also where a container starts anew.
func (m *machine) allotted() *corev1.Pod {
	m.mu.Lock()
	holds := m.holds
	m.mu.Unlock()
	if m.noRoom == nil || holds == nil || holds == m.pod {
		return m.pod
	}
	return withResources(m.pod, holds)
}

// withResources is the pod with the resources of an older version of it.
func withResources(pod, granted *corev1.Pod) *corev1.Pod {
	had := map[string]corev1.ResourceRequirements{}
	lists := func(p *corev1.Pod) [][]corev1.Container {
		return [][]corev1.Container{p.Spec.InitContainers, p.Spec.Containers}
	}
	for _, list := range lists(granted) {
		for i := range list {
			had[list[i].Name] = list[i].Resources
		}
	}
	out := pod.DeepCopy()
	out.Spec.Resources = granted.Spec.Resources
	for _, list := range lists(out) {
		for i := range list {
			list[i].Resources = had[list[i].Name]
		}
	}
	return out
}

// granted is what a pod that an earlier agent ran was last granted: with a resize that
// waits for room its spec is not it, but its status tells.
func granted(pod *corev1.Pod) *corev1.Pod {
	waits := false
	for _, c := range pod.Status.Conditions {
		waits = waits || (c.Type == corev1.PodResizePending && c.Status == corev1.ConditionTrue)
	}
	if !waits {
		return pod
	}
	out := pod.DeepCopy()
	out.Spec.Resources = remembered(pod)
	told := map[string]*corev1.ContainerStatus{}
	for _, list := range [][]corev1.ContainerStatus{out.Status.InitContainerStatuses, out.Status.ContainerStatuses} {
		for i := range list {
			told[list[i].Name] = &list[i]
		}
	}
	for _, list := range [][]corev1.Container{out.Spec.InitContainers, out.Spec.Containers} {
		for i := range list {
			if st := told[list[i].Name]; st != nil && st.Resources != nil {
				list[i].Resources = corev1.ResourceRequirements{Requests: st.AllocatedResources, Limits: st.Resources.Limits, Claims: list[i].Resources.Claims}
			}
		}
	}
	return out
}

// remembered are the resources that the pod as a whole had by its status. That tells
// of all pods, and of more than was asked for; only what the spec names counts.
func remembered(pod *corev1.Pod) *corev1.ResourceRequirements {
	asked, had := pod.Spec.Resources, pod.Status.Resources
	if asked == nil || had == nil {
		return asked
	}
	named := func(asked, had corev1.ResourceList) corev1.ResourceList {
		out := corev1.ResourceList{}
		for name := range asked {
			if q, ok := had[name]; ok {
				out[name] = q
			}
		}
		return out
	}
	return &corev1.ResourceRequirements{Requests: named(asked.Requests, had.Requests), Limits: named(asked.Limits, had.Limits), Claims: asked.Claims}
}
