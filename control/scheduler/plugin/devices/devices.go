// Package devices gives pods the devices that their claims and extended resources
// ask for: upstream's DynamicResources, with what v1.37 enables by default. That is
// structured allocation over the slices that drivers publish, alternatives in order
// of preference, partitions, shares of a device's capacity, taints, access for
// administrators, conditions to wait for before a pod is bound, and extended
// resources that device classes stand for.
//
// Which devices a claim gets on a node is searched by upstream's own published
// allocator (k8s.io/dynamic-resource-allocation/structured): drivers are written
// against its answers. What is known about devices is scheduler/device.
//
// Facts: pkg/scheduler/framework/plugins/dynamicresources of v1.37.
package devices

import (
	"cmp"
	"context"
	"time"

	corev1 "k8s.io/api/core/v1"
	resourcev1 "k8s.io/api/resource/v1"
	"k8s.io/dynamic-resource-allocation/cel"
	"k8s.io/dynamic-resource-allocation/structured"

	"github.com/sampan-dev/sampan/control/scheduler"
)

const (
	// DefaultFilterTimeout bounds the search for devices on one node.
	DefaultFilterTimeout = 10 * time.Second
	// DefaultBindingTimeout bounds the wait for a device's binding conditions.
	DefaultBindingTimeout = 10 * time.Minute
	// weight of the score; upstream's.
	weight = 2
	// maxPrograms bounds the compiled selectors that are kept.
	maxPrograms = 64
)

// features are those that v1.37 enables by default (pkg/features/kube_features.go).
var features = structured.Features{
	AdminAccess: true, ConsumableCapacity: true, DeviceBindingAndStatus: true, DeviceTaints: true,
	FractionalCapacityRange: true, PartitionableDevices: true, PrioritizedList: true,
}

// Plugin is a filter, and the source of the Score. The goroutine that decides owns
// it.
type Plugin struct {
	filterTimeout, bindingTimeout time.Duration
	// programs is made on first use: its environment costs tens of milliseconds.
	programs *cel.Cache
	// now is the attempt that is being made.
	now *attempt
}

// New makes the plugin. A timeout of 0 is the default; a negative one for the
// filter is none.
func New(filterTimeout, bindingTimeout time.Duration) *Plugin {
	return &Plugin{
		filterTimeout:  cmp.Or(filterTimeout, DefaultFilterTimeout),
		bindingTimeout: cmp.Or(bindingTimeout, DefaultBindingTimeout),
	}
}

// Name implements scheduler.Filter.
func (*Plugin) Name() string { return "DynamicResources" }

// Depends implements scheduler.Filter.
func (*Plugin) Depends() scheduler.Dependence { return scheduler.OnItself }

// Shut implements scheduler.Gate: a pod whose claims are not there is not looked at.
func (p *Plugin) Shut(pod *corev1.Pod, v scheduler.View) string {
	p.now = nil
	if _, err := claimsOf(pod, v.Devices()); err != nil {
		return err.Error()
	}
	return ""
}

// Precheck implements scheduler.Prechecker.
func (p *Plugin) Precheck(pod *corev1.Pod, v scheduler.View) scheduler.Reason {
	var why scheduler.Reason
	p.now, why = p.begin(pod, v.Devices())
	return why
}

// For implements scheduler.Filter.
func (p *Plugin) For(pod *corev1.Pod, v scheduler.View) scheduler.Fit {
	if p.now == nil || p.now.pod != pod {
		if why := p.Precheck(pod, v); why.Refuses() {
			return func(*scheduler.Node) scheduler.Reason { return why }
		}
	}
	if len(p.now.claims) == 0 {
		return nil
	}
	a := p.now
	return func(n *scheduler.Node) scheduler.Reason { return p.fits(a, n) }
}

// fits says whether the pod can have its devices on a node, and remembers which.
func (p *Plugin) fits(a *attempt, n *scheduler.Node) scheduler.Reason {
	own, mappings, why := a.onNode(n)
	if why.Refuses() {
		return why
	}
	if own == nil && a.template != nil && len(a.claims) == 1 {
		return scheduler.OK // the node has the resources by a device plugin
	}
	unusable := p.unusable(a, n)
	if a.allocator == nil {
		return a.usable(unusable)
	}
	var wanted []*resourcev1.ResourceClaim
	for _, w := range a.claims {
		switch {
		case w.Status.Allocation != nil:
		case w.ResourceClaim == a.template:
			if own != nil {
				wanted = append(wanted, own)
			}
		default:
			wanted = append(wanted, w.ResourceClaim)
		}
	}
	results, why := p.allocate(a, n, wanted)
	if why.Refuses() {
		return why
	}
	if why = a.usable(unusable); why.Refuses() {
		return why
	}
	a.nodes[n.Name] = &placement{claims: wanted, results: results, extended: own, mappings: mappings}
	return scheduler.OK
}

// usable refuses a node where some claims cannot be used. If that is all that is wrong
// there they are remembered: giving their devices back may help.
func (a *attempt) usable(not []int) scheduler.Reason {
	if len(not) == 0 {
		return scheduler.OK
	}
	for _, i := range not {
		a.unusable[i] = true
	}
	return refusal("resourceclaim not available on the node")
}

// unusable are the claims, by index, that have devices which cannot be used on a node,
// or which failed.
func (p *Plugin) unusable(a *attempt, n *scheduler.Node) (not []int) {
	for i, w := range a.claims {
		if w.Status.Allocation == nil {
			continue
		}
		usable := w.where == nil || w.where.Match(n.Node)
		if usable {
			ready, err := ready(w.ResourceClaim)
			usable = err == nil && (ready || !p.overdue(w.ResourceClaim))
		}
		if !usable {
			not = append(not, i)
		}
	}
	return not
}

// allocate searches devices on one node.
func (p *Plugin) allocate(a *attempt, n *scheduler.Node, wanted []*resourcev1.ResourceClaim) ([]resourcev1.AllocationResult, scheduler.Reason) {
	ctx := context.Background()
	if p.filterTimeout > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, p.filterTimeout)
		defer cancel()
	}
	results, err := a.allocator.Allocate(ctx, n.Node, wanted)
	switch {
	case is(err, context.DeadlineExceeded):
		return nil, scheduler.Reason{Text: "node " + n.Name + ": timed out trying to allocate devices", Failed: true}
	case is(err, structured.ErrFailedAllocationOnNode):
		return nil, refusal(err.Error())
	case err != nil: // a claim or class is wrong: no other node would help
		return nil, scheduler.Reason{Text: err.Error(), Failed: true}
	case len(results) != len(wanted):
		return nil, refusal("cannot allocate all claims")
	}
	return results, scheduler.OK
}

// refusal is one that no eviction would change: the end of a pod frees its devices
// only later, when its claims are released.
func refusal(text string) scheduler.Reason { return scheduler.Reason{Text: text, Final: true} }
