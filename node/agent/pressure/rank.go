package pressure

import (
	"cmp"
	"fmt"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	helper "k8s.io/component-helpers/resource"

	"github.com/sampan-dev/sampan/node/agent/usage"
)

// Part is a set of what a pod has on a disk.
type Part struct{ Roots, Logs, Volumes bool }

// Parts says what of a pod lies on the file system of a signal: everything is on
// the node's, unless images have one of their own, where the containers'
// writable layers are then too.
func Parts(s Signal, dedicated bool) Part {
	switch {
	case !dedicated:
		return Part{true, true, true}
	case s == NodeFS || s == NodeFSInodes:
		return Part{Logs: true, Volumes: true}
	}
	return Part{Roots: true}
}

// Rank puts pods in the order in which they go: first those that use more than
// they have requested, then those of low priority, then those that use most.
// Process numbers can't be requested.
func Rank(pods []*corev1.Pod, used map[string]usage.Pod, s Signal, part Part) {
	of := func(p *corev1.Pod) (int64, bool) {
		u, ok := used[string(p.UID)]
		if !ok {
			return 0, false
		}
		return consumed(u, s, part), true
	}
	wanted := func(p *corev1.Pod) int64 {
		if s == Pids || s.Resource() == inodes {
			return 0
		}
		return Requested(p, s.Resource())
	}
	slices.SortStableFunc(pods, func(a, b *corev1.Pod) int {
		x, okX := of(a)
		y, okY := of(b)
		if !okX || !okY {
			return cmp.Compare(truth(okX), truth(okY)) // the unknown goes first
		}
		over := 0
		if s != Pids {
			over = cmp.Compare(truth(y > wanted(b)), truth(x > wanted(a)))
		}
		return cmp.Or(over, cmp.Compare(Priority(a), Priority(b)), cmp.Compare(y-wanted(b), x-wanted(a)))
	})
}

func truth(b bool) int {
	if b {
		return 1
	}
	return 0
}

// Priority is a pod's, 0 when it has none.
func Priority(p *corev1.Pod) int32 {
	if p.Spec.Priority == nil {
		return 0
	}
	return *p.Spec.Priority
}

// Requested is how much of a resource a pod as a whole has requested.
func Requested(p *corev1.Pod, name corev1.ResourceName) int64 {
	q := helper.PodRequests(p, helper.PodResourcesOptions{})[name]
	return q.Value()
}

func consumed(u usage.Pod, s Signal, part Part) int64 {
	switch s.Resource() {
	case corev1.ResourceMemory:
		return u.Memory
	case pids:
		return u.Pids
	}
	sum := usage.Disk{}
	for _, c := range u.Containers {
		if part.Roots {
			sum = sum.Add(c.Root)
		}
		if part.Logs {
			sum = sum.Add(c.Logs)
		}
	}
	for _, v := range u.Volumes {
		if part.Volumes {
			sum = sum.Add(v)
		}
	}
	if s.Resource() == inodes {
		return sum.Inodes
	}
	return sum.Bytes
}

// Keys of the annotations of an eviction's event.
const (
	keyContainers = "offending_containers"
	keyUsage      = "offending_containers_usage"
	keyPod        = "offending_pod"
	keyPodUsage   = "offending_pod_usage"
	keyStarved    = "starved_resource"
)

// Message says why a pod goes, and annotates it.
func Message(pod *corev1.Pod, u usage.Pod, t Threshold, o Observation) (string, map[string]string) {
	name, notes := t.Signal.Resource(), map[string]string{}
	var b strings.Builder
	fmt.Fprintf(&b, "The node was low on resource: %v. ", name)
	fmt.Fprintf(&b, "Threshold quantity: %v, available: %v. ", t.amount(o.Capacity), quantity(t.Signal, o.Available))
	if r := pod.Spec.Resources; name == corev1.ResourceMemory && r != nil {
		if request, ok := r.Requests[name]; ok {
			text := binary(u.Memory)
			fmt.Fprintf(&b, "Pod %s was using %s, request is %s, has larger consumption of %v. ", pod.Name, text, request.String(), name)
			notes[keyPod], notes[keyPodUsage] = pod.Name, text
		}
	}
	var names, amounts []string
	for _, c := range u.Containers {
		spec := find(pod, c.Name)
		if spec == nil {
			continue
		}
		much := int64(-1)
		switch name {
		case corev1.ResourceMemory:
			much = c.Memory
		case corev1.ResourceEphemeralStorage:
			much = c.Root.Bytes + c.Logs.Bytes
		}
		request := spec.Resources.Requests[name]
		if much > request.Value() {
			fmt.Fprintf(&b, "Container %s was using %s, request is %s, has larger consumption of %v. ", c.Name, binary(much), request.String(), name)
			names, amounts = append(names, c.Name), append(amounts, binary(much))
		}
	}
	notes[keyContainers], notes[keyUsage], notes[keyStarved] = strings.Join(names, ","), strings.Join(amounts, ","), string(name)
	return b.String(), notes
}

func (t Threshold) amount(capacity int64) string {
	if t.Value.Part > 0 {
		return quantity(t.Signal, t.Value.Of(capacity))
	}
	return t.Value.Quantity.String()
}

func quantity(s Signal, n int64) string {
	if s.Resource() == inodes || s.Resource() == pids {
		return resource.NewQuantity(n, resource.DecimalSI).String()
	}
	return binary(n)
}

func binary(n int64) string { return resource.NewQuantity(n, resource.BinarySI).String() }

func find(pod *corev1.Pod, name string) *corev1.Container {
	for _, list := range [][]corev1.Container{pod.Spec.Containers, pod.Spec.InitContainers} {
		for i := range list {
			if list[i].Name == name {
				return &list[i]
			}
		}
	}
	return nil
}
