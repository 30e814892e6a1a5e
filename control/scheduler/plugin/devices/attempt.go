package devices

import (
	"errors"
	"fmt"

	corev1 "k8s.io/api/core/v1"
	resourcev1 "k8s.io/api/resource/v1"
	"k8s.io/component-helpers/scheduling/corev1/nodeaffinity"
	"k8s.io/dynamic-resource-allocation/cel"
	"k8s.io/dynamic-resource-allocation/resourceclaim"
	"k8s.io/dynamic-resource-allocation/structured"

	"github.com/sampan-dev/sampan/control/scheduler"
	"github.com/sampan-dev/sampan/control/scheduler/device"
)

var is = errors.Is

// attempt is what one attempt to place a pod knows.
type attempt struct {
	pod    *corev1.Pod
	ledger *device.Ledger
	// claims are the pod's, that of its extended resources last.
	claims []*wanted
	// template is the claim for extended resources of which each node makes its
	// own; nil when there is none.
	template *resourcev1.ResourceClaim
	// scalar are the extended resources that the pod asks for.
	scalar map[corev1.ResourceName]int64
	// allocator is nil when every claim has its devices.
	allocator structured.Allocator
	nodes     map[string]*placement
	// unusable are claims, by index, whose devices some node cannot use.
	unusable map[int]bool
}

// wanted is a claim as it was when the attempt began.
type wanted struct {
	*resourcev1.ResourceClaim
	// where an allocated claim can be used; nil is everywhere.
	where *nodeaffinity.NodeSelector
}

// placement is what the pod would get on one node: results belong to claims, one
// by one.
type placement struct {
	claims   []*resourcev1.ResourceClaim
	results  []resourcev1.AllocationResult
	extended *resourcev1.ResourceClaim
	mappings []corev1.ContainerExtendedResourceRequest
}

// claimsOf are the claims that a pod names, or why it must wait for one.
func claimsOf(pod *corev1.Pod, l *device.Ledger) ([]*resourcev1.ResourceClaim, error) {
	var all []*resourcev1.ResourceClaim
	for i := range pod.Spec.ResourceClaims {
		name, owned, err := resourceclaim.Name(pod, &pod.Spec.ResourceClaims[i])
		if err != nil {
			return nil, err
		}
		if name == nil {
			continue // made on purpose without a claim
		}
		c := l.Claim(pod.Namespace, *name)
		switch {
		case c == nil:
			return nil, fmt.Errorf("could not find ResourceClaim \"%s/%s\"", pod.Namespace, *name)
		case c.DeletionTimestamp != nil:
			return nil, fmt.Errorf("resourceclaim %q is being deleted", c.Name)
		case owned:
			if err := resourceclaim.IsForPod(pod, c, false); err != nil {
				return nil, err
			}
		}
		all = append(all, c)
	}
	return all, nil
}

// begin looks at a pod's claims. A refusal holds for all nodes.
func (p *Plugin) begin(pod *corev1.Pod, l *device.Ledger) (*attempt, scheduler.Reason) {
	a := &attempt{pod: pod, ledger: l, nodes: map[string]*placement{}, unusable: map[int]bool{}}
	claims, err := claimsOf(pod, l)
	if err != nil {
		return a, refusal(err.Error())
	}
	if extended := a.extendedClaim(); extended != nil {
		claims = append(claims, extended)
	}
	search := false
	for _, c := range claims {
		w := &wanted{ResourceClaim: c}
		a.claims = append(a.claims, w)
		if c.Status.Allocation == nil {
			search = true
			if why := a.searchable(c); why.Refuses() {
				return a, why
			}
			continue
		}
		if s := c.Status.Allocation.NodeSelector; s != nil {
			if w.where, err = nodeaffinity.NewNodeSelector(s); err != nil {
				return a, scheduler.Reason{Text: err.Error(), Final: true, Failed: true}
			}
		}
	}
	if !search {
		return a, scheduler.OK
	}
	if p.programs == nil {
		p.programs = cel.NewCache(maxPrograms, cel.Features{EnableConsumableCapacity: features.ConsumableCapacity})
	}
	//nolint:contextcheck // nothing is waited for
	if a.allocator, err = newAllocator(l, p.programs); err != nil {
		return a, scheduler.Reason{Text: err.Error(), Final: true, Failed: true}
	}
	return a, scheduler.OK
}

// searchable says whether devices for a claim may be looked for at all.
func (a *attempt) searchable(c *resourcev1.ResourceClaim) scheduler.Reason {
	if a.ledger.Pending(c.UID) != nil {
		return refusal(fmt.Sprintf("resource claim %s/%s is in the process of being allocated", c.Namespace, c.Name))
	}
	if c == a.template {
		return scheduler.OK
	}
	for i := range c.Spec.Devices.Requests {
		r := &c.Spec.Devices.Requests[i]
		switch {
		case r.Exactly != nil:
			if why := a.classKnown(r.Exactly.DeviceClassName, r.Name); why.Refuses() {
				return why
			}
		case len(r.FirstAvailable) > 0:
			for j := range r.FirstAvailable {
				if why := a.classKnown(r.FirstAvailable[j].DeviceClassName, r.Name+"/"+r.FirstAvailable[j].Name); why.Refuses() {
					return why
				}
			}
		default:
			return refusal(fmt.Sprintf("resource claim %s/%s, request %s: unknown request type", c.Namespace, c.Name, r.Name))
		}
	}
	return scheduler.OK
}

func (a *attempt) classKnown(class, request string) scheduler.Reason {
	if class == "" {
		return scheduler.Reason{Text: fmt.Sprintf("request %s: unsupported request type", request), Final: true, Failed: true}
	}
	if _, err := a.ledger.Get(class); err != nil {
		return refusal(fmt.Sprintf("request %s: device class %s does not exist", request, class))
	}
	return scheduler.OK
}
