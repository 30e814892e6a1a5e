package core

import (
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
)

// QOSClass is the pod's service class: the one in its status, or else the one
// that its resources earn it.
func QOSClass(p *corev1.Pod) corev1.PodQOSClass {
	if p.Status.QOSClass != "" {
		return p.Status.QOSClass
	}
	return ComputeQOSClass(p)
}

// ComputeQOSClass is the service class that a pod's resources earn it: Guaranteed when
// cpu and memory are limited everywhere and requested in full, BestEffort when
// neither is mentioned, Burstable otherwise. Pod-level resources, where given,
// decide alone.
func ComputeQOSClass(p *corev1.Pod) corev1.PodQOSClass {
	asked, limited := corev1.ResourceList{}, corev1.ResourceList{}
	full := true
	add := func(r corev1.ResourceRequirements) {
		sum(asked, r.Requests)
		full = sum(limited, r.Limits) == 2 && full
	}
	if p.Spec.Resources != nil {
		add(*p.Spec.Resources)
	} else {
		for i := range p.Spec.InitContainers {
			add(p.Spec.InitContainers[i].Resources)
		}
		for i := range p.Spec.Containers {
			add(p.Spec.Containers[i].Resources)
		}
	}
	if len(asked) == 0 && len(limited) == 0 {
		return corev1.PodQOSBestEffort
	}
	if full && covers(limited, asked) && len(asked) == len(limited) {
		return corev1.PodQOSGuaranteed
	}
	return corev1.PodQOSBurstable
}

// sum adds list's positive cpu and memory to total and counts them.
func sum(total, list corev1.ResourceList) int {
	n := 0
	for _, name := range []corev1.ResourceName{corev1.ResourceCPU, corev1.ResourceMemory} {
		quantity, ok := list[name]
		if !ok || quantity.Cmp(resource.Quantity{}) <= 0 {
			continue
		}
		n++
		before := total[name]
		before.Add(quantity)
		total[name] = before
	}
	return n
}

// covers says that the requests are exactly the limits.
func covers(limits, requests corev1.ResourceList) bool {
	for name, request := range requests {
		limit, ok := limits[name]
		if !ok || limit.Cmp(request) != 0 {
			return false
		}
	}
	return true
}
