// Package ports keeps two pods from claiming one port of a node.
package ports

import (
	corev1 "k8s.io/api/core/v1"

	"github.com/sampan-dev/sampan/control/scheduler"
)

// Filter is upstream's NodePorts.
type Filter struct{}

// Name implements scheduler.Filter.
func (Filter) Name() string { return "NodePorts" }

// Depends implements scheduler.Filter.
func (Filter) Depends() scheduler.Dependence { return scheduler.OnPods }

// Heeds implements scheduler.Filter.
func (Filter) Heeds() scheduler.ChangeKind { return scheduler.NodeAdded | scheduler.PodRemoved }

// For implements scheduler.Filter.
func (Filter) For(pod *corev1.Pod, _ scheduler.View) scheduler.Fit {
	wanted := scheduler.PodHostPorts(pod)
	if len(wanted) == 0 {
		return nil
	}
	return func(n *scheduler.Node) scheduler.Reason {
		for _, w := range wanted {
			for taken := range n.HostPorts {
				if clash(w, taken) {
					return scheduler.Reason{Text: "node(s) didn't have free ports for the requested pod ports"}
				}
			}
		}
		return scheduler.OK
	}
}

// clash says whether two claims are for the same port: the wildcard address
// overlaps every other.
func clash(a, b scheduler.HostPort) bool {
	return a.Port == b.Port && a.Protocol == b.Protocol &&
		(a.IP == b.IP || wildcard(a.IP) || wildcard(b.IP))
}

func wildcard(ip string) bool { return ip == "0.0.0.0" || ip == "::" }

// Helps implements scheduler.Filter: a pod must have left with a port that this one
// wants.
func (Filter) Helps(pod *corev1.Pod, c scheduler.Change, _ scheduler.View) bool {
	if c.Pod == nil {
		return c.Kind&scheduler.NodeAdded != 0
	}
	for _, left := range scheduler.PodHostPorts(c.Pod) {
		for _, w := range scheduler.PodHostPorts(pod) {
			if clash(w, left) {
				return true
			}
		}
	}
	return false
}
