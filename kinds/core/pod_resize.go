package core

import (
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/util/validation/field"

	"github.com/sampan-dev/sampan/kinds"
)

const onlyComputeText = "only cpu and memory resources are mutable"

// validatePodResize checks a change of resources while the pod runs: cpu and
// memory only, nothing taken away altogether, and the service class stays.
func validatePodResize(p, old *corev1.Pod) field.ErrorList {
	var f kinds.Faults
	spec := kinds.NewPath("spec")
	if _, mirror := old.Annotations[MirrorPodAnnotation]; mirror {
		f.Forbidden(kinds.NewPath(""), "static pods cannot be resized")
		return f.List()
	}
	if old.Spec.OS != nil && old.Spec.OS.Name == corev1.Windows {
		f.Forbidden(kinds.NewPath(""), "windows pods cannot be resized")
		return f.List()
	}
	f.Join(validatePod(p))
	if ComputeQOSClass(p) != QOSClass(old) {
		f.Invalid(spec, p.Status.QOSClass, "Pod QOS Class may not change as a result of resizing")
	}
	if !nodeResizes(old) {
		f.Forbidden(spec, "Pod running on node without support for resize")
	}
	rest := p.Spec.DeepCopy()
	resizePod(&f, rest, &old.Spec, spec)
	if !sameOrder(&f, &p.Spec, &old.Spec, spec) {
		return f.List()
	}
	resizeContainers(&f, rest.InitContainers, old.Spec.InitContainers, spec.Child("initContainers"), true)
	resizeContainers(&f, rest.Containers, old.Spec.Containers, spec.Child("containers"), false)
	if !kinds.Same(p.Spec.Volumes, old.Spec.Volumes) {
		f.Forbidden(spec.Child("volumes"),
			"volumes are immutable on resize when InPlacePodVerticalScalingMemoryBackedVolumes feature gate is disabled")
	}
	if f.None() && !kinds.Same(*rest, old.Spec) {
		f.Forbidden(spec, onlyComputeText)
	}
	return f.List()
}

// nodeResizes: a node that resizes reports its running containers' resources.
func nodeResizes(p *corev1.Pod) bool {
	for i := range p.Status.ContainerStatuses {
		if p.Status.ContainerStatuses[i].State.Running != nil {
			return p.Status.ContainerStatuses[i].Resources != nil
		}
	}
	return true
}

// resizePod checks the resources of the pod as a whole, and makes rest's what
// they were except for what may not change.
func resizePod(f *kinds.Faults, rest, old *corev1.PodSpec, spec *kinds.Path) {
	at := spec.Child("resources")
	if !givesResources(rest) && !givesResources(old) {
		return
	}
	if rest.Resources == nil {
		f.Forbidden(at, "pod-level resources cannot be removed")
		return
	}
	was := corev1.ResourceRequirements{}
	if old.Resources != nil {
		was = *old.Resources
	}
	if lost(rest.Resources.Requests, was.Requests) {
		f.Forbidden(at.Child("requests"), "pod-level resource requests cannot be removed")
	}
	if lost(rest.Resources.Limits, was.Limits) {
		f.Forbidden(at.Child("limits"), "pod-level resource limits cannot be removed")
	}
	oldCompute(rest.Resources, was)
	if old.Resources == nil && kinds.Same(*rest.Resources, corev1.ResourceRequirements{}) {
		rest.Resources = nil
	}
	if !kinds.Same(rest.Resources, old.Resources) {
		f.Forbidden(spec, "only cpu and memory resources are mutable at pod-level")
	}
}

// givesResources says that there are amounts for the pod as a whole.
func givesResources(spec *corev1.PodSpec) bool {
	return spec.Resources != nil && len(spec.Resources.Requests)+len(spec.Resources.Limits) > 0
}

// sameOrder: a resize neither adds nor moves containers.
func sameOrder(f *kinds.Faults, now, was *corev1.PodSpec, spec *kinds.Path) bool {
	before := f.Count()
	for _, list := range []struct {
		field    string
		now, was []corev1.Container
	}{{"containers", now.Containers, was.Containers}, {"initContainers", now.InitContainers, was.InitContainers}} {
		at := spec.Child(list.field)
		if len(list.now) != len(list.was) {
			f.Forbidden(at, list.field+" may not be added or removed on resize")
			continue
		}
		for i := range list.was {
			if list.now[i].Name != list.was[i].Name {
				f.Forbidden(at.Index(i).Child("name"), list.field+" may not be renamed or reordered on resize")
			}
		}
	}
	return f.Count() == before
}

func resizeContainers(f *kinds.Faults, rest, old []corev1.Container, at *kinds.Path, init bool) {
	for i := range rest {
		now, was, here := &rest[i], &old[i], at.Index(i)
		changed := !kinds.Same(*now, *was)
		if lost(now.Resources.Requests, was.Resources.Requests) {
			f.Forbidden(here.Child("resources").Child("requests"), "resource requests cannot be removed")
		}
		if lost(now.Resources.Limits, was.Resources.Limits) {
			f.Forbidden(here.Child("resources").Child("limits"), "resource limits cannot be removed")
		}
		oldCompute(&now.Resources, was.Resources)
		same := kinds.Same(*now, *was)
		switch {
		case !same && init:
			f.Forbidden(here, "only cpu and memory resources for init or sidecar containers are mutable")
		case !same:
			f.Forbidden(kinds.NewPath("spec"), onlyComputeText)
		}
		if init && changed && !Sidecar(was) && restartsOnResize(now) {
			f.Forbidden(here, "non-sidecar init containers with a resize policy of RestartContainer cannot be resized")
		}
	}
}

func restartsOnResize(c *corev1.Container) bool {
	for _, policy := range c.ResizePolicy {
		if policy.RestartPolicy == corev1.RestartContainer {
			return true
		}
	}
	return false
}

// lost says that a resource is no longer there.
func lost(now, was corev1.ResourceList) bool {
	for name := range was {
		if _, kept := now[name]; !kept {
			return true
		}
	}
	return false
}

// oldCompute puts back the old amounts of cpu and memory.
func oldCompute(r *corev1.ResourceRequirements, was corev1.ResourceRequirements) {
	restore := func(now *corev1.ResourceList, was corev1.ResourceList) {
		for _, name := range []corev1.ResourceName{corev1.ResourceCPU, corev1.ResourceMemory} {
			delete(*now, name)
			amount, ok := was[name]
			if !ok {
				continue
			}
			if *now == nil {
				*now = corev1.ResourceList{}
			}
			(*now)[name] = amount
		}
	}
	restore(&r.Requests, was.Requests)
	restore(&r.Limits, was.Limits)
}
