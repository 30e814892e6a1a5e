package plan

import (
	"slices"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/component-helpers/resource"

	"github.com/sampan-dev/sampan/node/agent/actual"
	"github.com/sampan-dev/sampan/node/agent/spec"
)

// resizable are the resources that can change while a container runs.
var resizable = []corev1.ResourceName{corev1.ResourceCPU, corev1.ResourceMemory}

// Given is what a running container, or a pod's sandbox, was given of the node.
type Given struct {
	// Own are a container's resources, as its spec had them, or those of a sandbox:
	// the pod's own or the sums of its containers'.
	Own corev1.ResourceRequirements
	// Whole are those of its whole pod, nil for none (KEP-2837).
	Whole *corev1.ResourceRequirements
}

// Asked is what a container is to have by its pod's spec.
func Asked(pod *corev1.Pod, c *corev1.Container) Given {
	return Given{Own: c.Resources, Whole: pod.Spec.Resources}
}

// AskedWhole is what a pod's sandbox is to have: limits where all of the pod is limited.
func AskedWhole(pod *corev1.Pod) Given {
	own := corev1.ResourceRequirements{Requests: resource.PodRequests(pod, resource.PodResourcesOptions{}), Limits: corev1.ResourceList{}}
	limits := resource.PodLimits(pod, resource.PodResourcesOptions{})
	for _, name := range resizable {
		if spec.AllLimited(pod, name) {
			own.Limits[name] = limits[name]
		}
	}
	return Given{Own: own, Whole: pod.Spec.Resources}
}

// Resized lists the resources that a container has otherwise than it should: whose
// request differs, or whose limit, be it the container's or its pod's.
func Resized(have, want Given) []corev1.ResourceName {
	var list []corev1.ResourceName
	for _, name := range resizable {
		haveRequest, wantRequest := have.Own.Requests[name], want.Own.Requests[name]
		haveLimit, wantLimit := spec.Limit(have.Whole, &have.Own, name), spec.Limit(want.Whole, &want.Own, name)
		if haveRequest.Cmp(wantRequest) != 0 || haveLimit.Cmp(wantLimit) != 0 {
			list = append(list, name)
		}
	}
	return list
}

// LessMemory is the limit of memory that somebody is to have, when it is lower than the
// one they have; else 0.
func LessMemory(have, want Given) int64 {
	had, limit := spec.Limit(have.Whole, &have.Own, corev1.ResourceMemory), spec.Limit(want.Whole, &want.Own, corev1.ResourceMemory)
	if limit.IsZero() || !had.IsZero() && limit.Cmp(had) >= 0 {
		return 0
	}
	return limit.Value()
}

// RestartsFor reports whether a container wants to start anew when it gets more or less
// of a resource.
func RestartsFor(c *corev1.Container, name corev1.ResourceName) bool {
	return slices.ContainsFunc(c.ResizePolicy, func(policy corev1.ContainerResizePolicy) bool {
		return policy.ResourceName == name && policy.RestartPolicy == corev1.RestartContainer
	})
}

// WholeResized reports whether a pod's sandbox has other resources than it should.
func WholeResized(have Given, pod *corev1.Pod) bool {
	return len(Resized(Given{Own: have.Own}, Given{Own: AskedWhole(pod).Own})) > 0
}

// resizePod gives the pod as a whole what its spec asks for now: when all that run have
// what they should, since a pod can't shrink below a container (one that grows makes
// room for itself), and before others start. It returns whether these must wait.
func (p *planner) resizePod() bool {
	step := Step{Kind: ResizePod, ID: p.box.ID}
	have, known := p.Given[p.box.ID]
	if !known || !WholeResized(have, p.Pod) {
		return p.Busy[step.Key()]
	}
	for _, c := range spec.Containers(p.Pod) {
		now := p.Actual.LatestIn(c.Name, p.box.ID)
		if now != nil && now.State == actual.Running && len(p.toResize(c, now)) > 0 {
			return false
		}
	}
	if p.Now.Before(p.HoldResize) {
		p.at(p.HoldResize)
		return false
	}
	p.add(step)
	return true
}

// resize gives a running container the resources that its spec asks for now.
func (p *planner) resize(c *corev1.Container, now *actual.Container) {
	if len(p.toResize(c, now)) > 0 {
		p.add(Step{Kind: ResizeContainer, Container: c.Name, ID: now.ID})
	}
}

func (p *planner) toResize(c *corev1.Container, now *actual.Container) []corev1.ResourceName {
	have, known := p.Given[now.ID]
	if !known {
		return nil
	}
	return Resized(have, Asked(p.Pod, c))
}

// mustRestartToResize: the container's resizePolicy wants a restart for one of
// the resources that change.
func (p *planner) mustRestartToResize(c *corev1.Container, now *actual.Container) bool {
	return slices.ContainsFunc(p.toResize(c, now), func(name corev1.ResourceName) bool { return RestartsFor(c, name) })
}
