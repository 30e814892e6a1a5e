package core

import (
	corev1 "k8s.io/api/core/v1"
	podresources "k8s.io/component-helpers/resource"
)

// defaultPodResources completes resources given to the pod as a whole from what
// its containers have. A pod that gives none is left alone. It is for new pods and for
// those that are resized: a change by way of the pod itself is taken as it is.
func defaultPodResources(p *corev1.Pod) {
	r := p.Spec.Resources
	if r == nil || len(r.Requests)+len(r.Limits) == 0 {
		return
	}
	limits := podresources.AggregateContainerLimits(p, podresources.PodResourcesOptions{})
	for name, sum := range limits {
		if _, requested := r.Requests[name]; isHugePage(name) && !requested {
			fillResources(&r.Limits, corev1.ResourceList{name: sum})
		}
	}
	for name, sum := range podresources.AggregateContainerRequests(p, podresources.PodResourcesOptions{}) {
		if podresources.IsSupportedPodLevelResource(name) && mayOvercommit(name) {
			fillResources(&r.Requests, corev1.ResourceList{name: sum})
		}
	}
	for name, limit := range r.Limits {
		if podresources.IsSupportedPodLevelResource(name) {
			fillResources(&r.Requests, corev1.ResourceList{name: limit})
		}
	}
	for name, request := range r.Requests {
		sum, ok := limits[name]
		if !ok || !podresources.IsSupportedPodLevelResource(name) || !allLimit(&p.Spec, name) {
			continue
		}
		if request.Cmp(sum) > 0 {
			sum = request
		}
		fillResources(&r.Limits, corev1.ResourceList{name: sum})
	}
}

// allLimit says that every container, init containers too, limits the resource.
func allLimit(spec *corev1.PodSpec, name corev1.ResourceName) bool {
	for _, containers := range [][]corev1.Container{spec.InitContainers, spec.Containers} {
		for i := range containers {
			if _, ok := containers[i].Resources.Limits[name]; !ok {
				return false
			}
		}
	}
	return true
}
