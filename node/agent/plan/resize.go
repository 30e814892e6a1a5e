package plan

import (
	corev1 "k8s.io/api/core/v1"

	"github.com/sampan-dev/sampan/node/agent/actual"
)

// resizable are the resources that can change while a container runs.
var resizable = []corev1.ResourceName{corev1.ResourceCPU, corev1.ResourceMemory}

// Resized lists the resources whose request or limit differs between what a
// container has and what its spec asks for.
func Resized(have, want corev1.ResourceRequirements) []corev1.ResourceName {
	var list []corev1.ResourceName
	for _, name := range resizable {
		haveRequest, wantRequest := have.Requests[name], want.Requests[name]
		haveLimit, wantLimit := have.Limits[name], want.Limits[name]
		if haveRequest.Cmp(wantRequest) != 0 || haveLimit.Cmp(wantLimit) != 0 {
			list = append(list, name)
		}
	}
	return list
}

// resize gives a running container the resources that its spec asks for now.
func (p *planner) resize(c *corev1.Container, now *actual.Container) {
	if len(p.toResize(c, now)) > 0 {
		p.add(Step{Kind: ResizeContainer, Container: c.Name, ID: now.ID})
	}
}

func (p *planner) toResize(c *corev1.Container, now *actual.Container) []corev1.ResourceName {
	have, known := p.Applied[now.ID]
	if !known || p.HoldResize {
		return nil
	}
	return Resized(have, c.Resources)
}

// mustRestartToResize: the container's resizePolicy wants a restart for one of
// the resources that change.
func (p *planner) mustRestartToResize(c *corev1.Container, now *actual.Container) bool {
	for _, name := range p.toResize(c, now) {
		for _, policy := range c.ResizePolicy {
			if policy.ResourceName == name && policy.RestartPolicy == corev1.RestartContainer {
				return true
			}
		}
	}
	return false
}
