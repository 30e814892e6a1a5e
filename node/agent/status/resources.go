package status

import (
	corev1 "k8s.io/api/core/v1"
	"k8s.io/component-helpers/resource"

	"github.com/sampan-dev/sampan/node/agent/actual"
	"github.com/sampan-dev/sampan/node/agent/plan"
	"github.com/sampan-dev/sampan/node/agent/spec"
)

// resources tells what the pod as a whole may use and does (KEP-5419): what it was
// granted, and what its cgroup has. Upstream reads the latter back, with what the
// kernel's units make of it; here it is what was written.
func resources(s *corev1.PodStatus, in Input) {
	if untouched(in) {
		return
	}
	s.AllocatedResources = resource.PodRequests(in.Pod, resource.PodResourcesOptions{})
	if s.Phase != corev1.PodRunning {
		s.Resources = ofSpec(in.Pod)
		s.Resources.Requests = s.AllocatedResources.DeepCopy()
		s.Resources.Limits = resource.PodLimits(in.Pod, resource.PodResourcesOptions{})
		return
	}
	pod := actuated(in)
	s.Resources = ofSpec(pod)
	requests := resource.PodRequests(pod, resource.PodResourcesOptions{})
	limits := resource.PodLimits(pod, resource.PodResourcesOptions{})
	for _, name := range []corev1.ResourceName{corev1.ResourceCPU, corev1.ResourceMemory} {
		fill(&s.Resources.Requests, requests, name)
		if spec.AllLimited(pod, name) {
			fill(&s.Resources.Limits, limits, name)
		}
	}
}

// ofSpec are the resources that the spec asks for the whole pod, never nil.
func ofSpec(pod *corev1.Pod) *corev1.ResourceRequirements {
	if pod.Spec.Resources == nil {
		return &corev1.ResourceRequirements{}
	}
	return pod.Spec.Resources.DeepCopy()
}

func fill(into *corev1.ResourceList, from corev1.ResourceList, name corev1.ResourceName) {
	q, ok := from[name]
	if !ok || q.IsZero() {
		return
	}
	if *into == nil {
		*into = corev1.ResourceList{}
	}
	(*into)[name] = q
}

// actuated is the pod with the resources that what runs of it has: others than its
// spec's while a resize is under way.
func actuated(in Input) *corev1.Pod {
	if !inProgress(in) {
		return in.Pod
	}
	pod := in.Pod.DeepCopy()
	if box := in.Actual.Ready(); box != nil {
		if have, ok := in.Given[box.ID]; ok {
			pod.Spec.Resources = have.Whole
		}
	}
	for _, c := range spec.Containers(pod) {
		if have, ok := given(in, c); ok {
			c.Resources = have.Own
		}
	}
	return pod
}

// given is what a container has that runs.
func given(in Input, c *corev1.Container) (plan.Given, bool) {
	now := in.Actual.Latest(c.Name)
	if now == nil || now.State != actual.Running {
		return plan.Given{}, false
	}
	have, ok := in.Given[now.ID]
	return have, ok
}
