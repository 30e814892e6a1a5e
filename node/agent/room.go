package agent

import (
	"fmt"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/component-helpers/resource"

	"github.com/sampan-dev/sampan/internal/apparmor"
	"github.com/sampan-dev/sampan/node/agent/admit"
	"github.com/sampan-dev/sampan/node/agent/class"
	"github.com/sampan-dev/sampan/node/agent/pressure"
	"github.com/sampan-dev/sampan/node/agent/spec"
)

// admit decides whether the node takes a pod that it was given.
func (a *Agent) admit(pod *corev1.Pod) *admit.Refusal {
	if r := a.refuseFalling(); r != nil {
		return r
	}
	if r := a.refuseWhole(pod); r != nil {
		return r
	}
	node, ok := a.nodes.Get("", a.cfg.NodeName)
	if !ok {
		node = a.registry.Initial() // a static pod that comes before the API server
	}
	place := admit.Node{Node: node, Allocatable: a.node.Allocatable, Pods: a.placed(pod.UID), UnsafeSysctls: a.cfg.Kubelet.AllowedUnsafeSysctls, Pressures: a.pressures(), AppArmor: apparmor.Enabled(), Counted: a.places.devices.Knows,
		Requests: func(p *corev1.Pod) corev1.ResourceList { return a.asks(p).requests }}
	refusal := admit.Pod(pod, place)
	if refusal == nil {
		return nil
	}
	victims, ok := admit.Victims(pod, place)
	if !ok {
		return refusal
	}
	for _, v := range victims {
		a.preempt(v.UID, strings.TrimPrefix(refusal.Reason, "OutOf"))
	}
	return nil
}

// resizable decides whether a pod's changed resources fit.
func (a *Agent) resizable(m *machine) *admit.Refusal {
	if what := a.places.static(); what != "" && spec.QoS(m.pod) == corev1.PodQOSGuaranteed {
		return &admit.Refusal{Reason: corev1.PodReasonInfeasible, Message: "Resize is infeasible for Guaranteed Pods alongside " + what + " Manager static policy"}
	}
	return admit.Resize(m.pod, admit.Node{Allocatable: a.node.Allocatable, Pods: a.placed(m.uid)})
}

// placed are the pods that have room here, but for one.
func (a *Agent) placed(but types.UID) []*corev1.Pod {
	a.mu.Lock()
	defer a.mu.Unlock()
	list := make([]*corev1.Pod, 0, len(a.machines))
	for _, m := range a.machines {
		if p := m.admitted(); p != nil && m.uid != but {
			list = append(list, p)
		}
	}
	return list
}

// enforce keeps all pods together from what is reserved, if anything is.
func (a *Agent) enforce() {
	if len(a.cfg.Reserved) == 0 || !slices.Contains(a.cfg.Kubelet.EnforceNodeAllocatable, "pods") {
		return
	}
	pids := a.cfg.Reserved["pid"]
	limits := class.Limits{Memory: a.node.Memory - a.cfg.Reserved.Memory().Value(), Shares: spec.Shares(a.node.Allocatable.Cpu().MilliValue())}
	if limit, ok := pressure.MaxPids(); ok && pids.Value() > 0 {
		limits.Pids = limit - pids.Value()
	}
	if err := a.classes.Limit(limits); err != nil {
		a.cfg.Log.Warn("what is reserved for the system is not kept from pods", "err", err)
		a.events.EventRef(a.registry.Reference(), corev1.EventTypeWarning, "FailedNodeAllocatableEnforcement", fmt.Sprintf("Failed to update Node Allocatable Limits %q: %v", "kubepods", err))
		return
	}
	a.events.EventRef(a.registry.Reference(), corev1.EventTypeNormal, "NodeAllocatableEnforced", "Updated Node Allocatable limit across pods")
}

// asked is what a pod, as it was then, has requested, and how much CPU of that, in
// thousandths, as a burstable one.
type asked struct {
	pod       *corev1.Pod
	requests  corev1.ResourceList
	burstable int64
}

// asks works out what a pod has requested once: it is wanted with every pod that comes,
// and with every change of any of them.
func (a *Agent) asks(pod *corev1.Pod) asked {
	known := a.asked[pod.UID]
	if known.pod != pod {
		known = asked{pod, resource.PodRequests(pod, resource.PodResourcesOptions{}), spec.BurstableRequest(pod)}
		a.asked[pod.UID] = known
	}
	return known
}

// share gives the burstable pods the CPU that those placed here have requested.
func (a *Agent) share() {
	total := int64(0)
	pods := a.placed("")
	a.reserve(pods)
	for _, pod := range pods {
		total += a.asks(pod).burstable
	}
	if len(a.asked) > len(pods) { // some are gone
		a.forget(pods)
	}
	if err := a.classes.Set(spec.Shares(total)); err != nil && !a.shareless {
		a.shareless = true // not again with every pod
		a.cfg.Log.Warn("the classes of pods have no CPU shares", "err", err)
	}
}

// forget drops what others than these pods have requested.
func (a *Agent) forget(but []*corev1.Pod) {
	here := make(map[types.UID]asked, len(but))
	for _, pod := range but {
		here[pod.UID] = a.asks(pod)
	}
	a.asked = here
}

// reserve keeps the memory that pods request, where the configuration wants that; else
// it takes back, once, what an agent of another configuration has reserved.
func (a *Agent) reserve(pods []*corev1.Pod) {
	sums, want := map[corev1.PodQOSClass]int64{}, a.node.MemoryQoS.Reserve
	for _, pod := range pods {
		if !want {
			break
		}
		class, bytes := spec.ReservedMemory(pod)
		sums[class] += bytes
	}
	r := class.Reserved{Guaranteed: sums[corev1.PodQOSGuaranteed], Burstable: sums[corev1.PodQOSBurstable]}
	a.tally.MemoryReserved(r.Guaranteed, r.Burstable)
	if err := a.classes.Reserve(r); err != nil && want && !a.reserveless {
		a.reserveless = true // not again with every pod
		a.cfg.Log.Warn("the memory that pods request is not reserved for them", "err", err)
	}
}
