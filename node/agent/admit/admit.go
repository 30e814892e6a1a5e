// Package admit decides whether a node takes a pod that has been bound to it:
// the last look before it runs, since the scheduler may have been wrong or
// somebody may have bound it by hand. Pure. Reasons and texts are upstream's.
package admit

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	apiresource "k8s.io/apimachinery/pkg/api/resource"
	"k8s.io/component-helpers/resource"
	"k8s.io/component-helpers/scheduling/corev1/nodeaffinity"

	"github.com/sampan-dev/sampan/node/agent/spec"
	"github.com/sampan-dev/sampan/node/agent/static"
)

// Refusal is why a pod may not run here; it becomes the pod's reason and message.
type Refusal struct{ Reason, Message string }

// Node is what the decision is made against.
type Node struct {
	Node        *corev1.Node
	Allocatable corev1.ResourceList
	// Pods are the ones that already have their place here.
	Pods []*corev1.Pod
	// Requests is what one of Pods requests, where somebody has it at hand; nil
	// where it is to be worked out.
	Requests func(*corev1.Pod) corev1.ResourceList
	// UnsafeSysctls are patterns of sysctls that are allowed besides the safe
	// ones; a trailing * stands for the rest of a name.
	UnsafeSysctls []string
	// Pressures are the conditions by which the node says what it is short of.
	Pressures []corev1.NodeConditionType
	// AppArmor says that the node's kernel confines processes by AppArmor.
	AppArmor bool
	// Counted says that somebody else counts a resource, when the pod is given
	// its share of it; nil for nobody.
	Counted func(corev1.ResourceName) bool
}

func (n Node) allows(sysctl string) bool {
	for _, pattern := range n.UnsafeSysctls {
		pattern = strings.ReplaceAll(pattern, "/", ".")
		if prefix, open := strings.CutSuffix(pattern, "*"); pattern == sysctl || (open && strings.HasPrefix(sysctl, prefix)) {
			return true
		}
	}
	return slices.Contains(safeSysctls, sysctl)
}

// Pod returns nil when the node takes the pod.
func Pod(pod *corev1.Pod, node Node) *Refusal {
	for _, check := range []func(*corev1.Pod, Node) *Refusal{operatingSystem, sysctls, pressure, resources, affinity, hostPorts, taints, appArmor} {
		if r := check(pod, node); r != nil {
			r.Message = rejected + r.Message
			return r
		}
	}
	return nil
}

// rejected begins the message of every refusal.
const rejected = "Pod was rejected: "

// Refuse is a refusal for a reason found elsewhere.
func Refuse(reason, message string) *Refusal { return &Refusal{reason, rejected + message} }

// Said is the message without what all refusals begin with, as events have it.
func (r *Refusal) Said() string { return strings.TrimPrefix(r.Message, rejected) }

// checks are those that more room doesn't change.
var checks = []func(*corev1.Pod, Node) *Refusal{operatingSystem, sysctls, pressure, affinity, hostPorts, taints, appArmor}

// pressure keeps pods off a node that is short of something: all but critical
// ones, and when it is only memory all but those that have requested some, or
// that say they tolerate it.
func pressure(pod *corev1.Pod, node Node) *Refusal {
	if len(node.Pressures) == 0 || Critical(pod) {
		return nil
	}
	if len(node.Pressures) == 1 && node.Pressures[0] == corev1.NodeMemoryPressure {
		if spec.QoS(pod) != corev1.PodQOSBestEffort {
			return nil
		}
		taint := corev1.Taint{Key: corev1.TaintNodeMemoryPressure, Effect: corev1.TaintEffectNoSchedule}
		if slices.ContainsFunc(pod.Spec.Tolerations, func(t corev1.Toleration) bool { return tolerates(t, taint) }) {
			return nil
		}
	}
	return &Refusal{"Evicted", fmt.Sprintf("The node had condition: %v. ", node.Pressures)}
}

// Resize returns nil when the node has room for the pod as its spec is now.
// Otherwise the reason is Infeasible, when it can never fit here, or Deferred.
func Resize(pod *corev1.Pod, node Node) *Refusal {
	if r := resources(pod, Node{Node: node.Node, Allocatable: node.Allocatable}); r != nil {
		return &Refusal{corev1.PodReasonInfeasible, r.Message}
	}
	if r := resources(pod, node); r != nil {
		return &Refusal{corev1.PodReasonDeferred, r.Message}
	}
	return nil
}

func operatingSystem(pod *corev1.Pod, _ Node) *Refusal {
	if pod.Spec.OS != nil && pod.Spec.OS.Name != corev1.Linux {
		return &Refusal{"PodOSNotSupported", "Failed to admit pod as the OS field doesn't match node OS"}
	}
	return nil
}

// safeSysctls are namespaced and harmless to others; all else is forbidden
// unless the node's administrator allows it.
var safeSysctls = []string{
	"kernel.shm_rmid_forced", "net.ipv4.ip_local_port_range", "net.ipv4.tcp_syncookies", "net.ipv4.ping_group_range",
	"net.ipv4.ip_unprivileged_port_start", "net.ipv4.ip_local_reserved_ports", "net.ipv4.tcp_keepalive_time",
	"net.ipv4.tcp_fin_timeout", "net.ipv4.tcp_keepalive_intvl", "net.ipv4.tcp_keepalive_probes",
	"net.ipv4.tcp_rmem", "net.ipv4.tcp_wmem", "net.ipv4.tcp_slow_start_after_idle", "net.ipv4.tcp_notsent_lowat",
}

func sysctls(pod *corev1.Pod, node Node) *Refusal {
	if pod.Spec.SecurityContext == nil {
		return nil
	}
	for _, s := range pod.Spec.SecurityContext.Sysctls {
		name := strings.ReplaceAll(s.Name, "/", ".")
		switch {
		case !node.allows(name):
			return &Refusal{"SysctlForbidden", fmt.Sprintf("forbidden sysctl: %q not allowlisted", name)}
		case strings.HasPrefix(name, "net.") && pod.Spec.HostNetwork:
			return &Refusal{"SysctlForbidden", fmt.Sprintf("forbidden sysctl: %q not allowed with host Net enabled", name)}
		case strings.HasPrefix(name, "user.") && !spec.OwnUsers(pod):
			return &Refusal{"SysctlForbidden", fmt.Sprintf("forbidden sysctl: %q not allowed with host User enabled", name)}
		case strings.HasPrefix(name, "kernel.shm") && pod.Spec.HostIPC:
			return &Refusal{"SysctlForbidden", fmt.Sprintf("forbidden sysctl: %q not allowed with host IPC enabled", name)}
		}
	}
	return nil
}

// appArmor keeps pods away that want to be confined where nothing confines, as the
// kubelet's AppArmorAdmitHandler does.
func appArmor(pod *corev1.Pod, node Node) *Refusal {
	if node.AppArmor || !wantsAppArmor(pod) {
		return nil
	}
	return &Refusal{"AppArmor", "Cannot enforce AppArmor: AppArmor is not enabled on the host"}
}

func wantsAppArmor(pod *corev1.Pod) bool {
	confined := func(p *corev1.AppArmorProfile) bool {
		return p != nil && p.Type != corev1.AppArmorProfileTypeUnconfined
	}
	if sc := pod.Spec.SecurityContext; sc != nil && confined(sc.AppArmorProfile) {
		return true
	}
	asks := func(c corev1.Container) bool {
		return c.SecurityContext != nil && confined(c.SecurityContext.AppArmorProfile)
	}
	return slices.ContainsFunc(pod.Spec.InitContainers, asks) || slices.ContainsFunc(pod.Spec.Containers, asks)
}

func resources(pod *corev1.Pod, node Node) *Refusal {
	if limit := node.Allocatable.Pods().Value(); limit > 0 && int64(len(node.Pods))+1 > limit {
		return insufficient("pods", 1, int64(len(node.Pods)), limit)
	}
	wants := resource.PodRequests(unclaimed(pod), resource.PodResourcesOptions{})
	used := node.used(wants)
	var names []corev1.ResourceName
	for name := range wants {
		names = append(names, name)
	}
	slices.Sort(names)
	for _, name := range names {
		q, have := wants[name], node.allocatable(name)
		if have == nil {
			continue
		}
		want, capacity := amount(name, q.MilliValue(), q.Value()), amount(name, have.MilliValue(), have.Value())
		if want > 0 && want > capacity-used[name] {
			return insufficient(name, want, used[name], capacity)
		}
	}
	return nil
}

// unclaimed is a pod without the requests that a ResourceClaim stands for.
func unclaimed(pod *corev1.Pod) *corev1.Pod {
	if pod.Status.ExtendedResourceClaimStatus == nil {
		return pod
	}
	pod = pod.DeepCopy()
	for _, list := range [][]corev1.Container{pod.Spec.InitContainers, pod.Spec.Containers} {
		for i := range list {
			maps.DeleteFunc(list[i].Resources.Requests, func(name corev1.ResourceName, _ apiresource.Quantity) bool {
				return spec.Claimed(pod, list[i].Name, name)
			})
		}
	}
	return pod
}

// used is how much of what a pod wants the others have.
func (n Node) used(wants corev1.ResourceList) map[corev1.ResourceName]int64 {
	requests := n.Requests
	if requests == nil {
		requests = func(p *corev1.Pod) corev1.ResourceList {
			return resource.PodRequests(p, resource.PodResourcesOptions{})
		}
	}
	sums := make(map[corev1.ResourceName]int64, len(wants))
	if len(wants) == 0 {
		return sums
	}
	for _, other := range n.Pods {
		list := requests(other)
		for name := range wants {
			q := list[name]
			sums[name] += amount(name, q.MilliValue(), q.Value())
		}
	}
	return sums
}

// allocatable is how much of a resource there is for pods. It is nil for an
// extended resource that neither the agent nor the Node knows: such a one is
// accounted for by somebody else, and no reason to refuse a pod, as upstream.
func (n Node) allocatable(name corev1.ResourceName) *apiresource.Quantity {
	if n.Counted != nil && n.Counted(name) {
		return nil
	}
	have, known := n.Allocatable[name]
	if known || !spec.Extended(name) {
		return &have
	}
	if n.Node == nil {
		return nil
	}
	if have, known = n.Node.Status.Allocatable[name]; !known {
		return nil
	}
	return &have
}

// amount counts CPU in thousandths and everything else in units.
func amount(name corev1.ResourceName, milli, units int64) int64 {
	if name == corev1.ResourceCPU {
		return milli
	}
	return units
}

// outOf begins the reasons of those for whom the node has not enough of something.
const outOf = "OutOf"

// Short reports whether the pod was refused for want of a resource.
func (r *Refusal) Short() bool { return strings.HasPrefix(r.Reason, outOf) }

func insufficient(name corev1.ResourceName, want, used, capacity int64) *Refusal {
	return &Refusal{outOf + string(name), fmt.Sprintf(
		"Node didn't have enough resource: %s, requested: %d, used: %d, capacity: %d", name, want, used, capacity)}
}

func affinity(pod *corev1.Pod, node Node) *Refusal {
	ok, err := nodeaffinity.GetRequiredNodeAffinity(pod).Match(node.Node)
	if err != nil || !ok {
		return &Refusal{"NodeAffinity", "Predicate NodeAffinity failed: node(s) didn't match Pod's node affinity/selector"}
	}
	return nil
}

type port struct {
	number   int32
	protocol corev1.Protocol
}

func hostPorts(pod *corev1.Pod, node Node) *Refusal {
	taken := map[port][]string{}
	for _, other := range node.Pods {
		eachHostPort(other, func(p port, ip string) { taken[p] = append(taken[p], ip) })
	}
	clash := false
	eachHostPort(pod, func(p port, ip string) {
		for _, have := range taken[p] {
			clash = clash || have == ip || have == "" || ip == ""
		}
	})
	if clash {
		return &Refusal{"NodePorts", "Predicate NodePorts failed: node(s) didn't have free ports for the requested pod ports"}
	}
	return nil
}

func eachHostPort(pod *corev1.Pod, fn func(p port, ip string)) {
	for i := range pod.Spec.Containers {
		for _, p := range pod.Spec.Containers[i].Ports {
			if p.HostPort == 0 {
				continue
			}
			ip := p.HostIP
			if ip == "0.0.0.0" || ip == "::" {
				ip = ""
			}
			protocol := p.Protocol
			if protocol == "" {
				protocol = corev1.ProtocolTCP
			}
			fn(port{p.HostPort, protocol}, ip)
		}
	}
}

func taints(pod *corev1.Pod, node Node) *Refusal {
	if static.Is(pod) {
		return nil // a node's taints are about who may come to it, not about who is its own
	}
	for _, t := range node.Node.Spec.Taints {
		if t.Effect != corev1.TaintEffectNoExecute {
			continue
		}
		if !slices.ContainsFunc(pod.Spec.Tolerations, func(tol corev1.Toleration) bool { return tolerates(tol, t) }) {
			return &Refusal{"TaintToleration", "Predicate TaintToleration failed: node(s) had taints that the pod didn't tolerate"}
		}
	}
	return nil
}

func tolerates(tol corev1.Toleration, t corev1.Taint) bool {
	if tol.Effect != "" && tol.Effect != t.Effect {
		return false
	}
	if tol.Key != "" && tol.Key != t.Key {
		return false
	}
	if tol.Operator == corev1.TolerationOpExists {
		return true
	}
	return tol.Key != "" && tol.Value == t.Value
}
