package loadbalancer

import (
	"cmp"
	"fmt"
	"slices"

	corev1 "k8s.io/api/core/v1"
)

// wants says whether a service is to be reached at the nodes.
func wants(s *corev1.Service) bool {
	return s.Spec.Type == corev1.ServiceTypeLoadBalancer && s.Spec.LoadBalancerClass == nil && s.DeletionTimestamp == nil
}

// concerned says whether a service wants that, or did.
func concerned(s *corev1.Service) bool {
	return wants(s) || s.Spec.LoadBalancerClass == nil && slices.Contains(s.Finalizers, finalizer)
}

// local says that only nodes with endpoints of the service take part: the others
// would drop what comes.
func local(s *corev1.Service) bool {
	return s.Spec.ExternalTrafficPolicy == corev1.ServiceExternalTrafficPolicyLocal
}

// eligible says whether a node takes part: unless it is excluded, on its way out
// or not ready.
func eligible(n *corev1.Node) bool {
	if _, out := n.Labels[corev1.LabelNodeExcludeBalancers]; out || n.DeletionTimestamp != nil {
		return false
	}
	if slices.ContainsFunc(n.Spec.Taints, func(t corev1.Taint) bool { return t.Key == "ToBeDeletedByClusterAutoscaler" }) {
		return false
	}
	return slices.ContainsFunc(n.Status.Conditions, func(c corev1.NodeCondition) bool {
		return c.Type == corev1.NodeReady && c.Status == corev1.ConditionTrue
	})
}

// addresses are those of a node that clients outside can reach: the external ones,
// or where there are none the internal ones.
func addresses(n *corev1.Node) []string {
	of := func(kind corev1.NodeAddressType) (all []string) {
		for _, a := range n.Status.Addresses {
			if a.Type == kind {
				all = append(all, a.Address)
			}
		}
		return all
	}
	if all := of(corev1.NodeExternalIP); len(all) > 0 {
		return all
	}
	return of(corev1.NodeInternalIP)
}

// conflict is pure: why a service cannot have its ports; "" when it can. Of two
// services the older comes first.
func conflict(s *corev1.Service, others []*corev1.Service, reserved map[int32]string) string {
	for _, p := range s.Spec.Ports {
		if who, ok := reserved[p.Port]; ok && p.Protocol == corev1.ProtocolTCP {
			return fmt.Sprintf("port %d/%s is used by %s", p.Port, p.Protocol, who)
		}
		for _, o := range others {
			if o.UID == s.UID || !wants(o) || !before(o, s) {
				continue
			}
			for _, q := range o.Spec.Ports {
				if q.Port == p.Port && q.Protocol == p.Protocol {
					return fmt.Sprintf("port %d/%s is used by service %s/%s", p.Port, p.Protocol, o.Namespace, o.Name)
				}
			}
		}
	}
	return ""
}

func before(a, b *corev1.Service) bool {
	return cmp.Or(a.CreationTimestamp.Compare(b.CreationTimestamp.Time), cmp.Compare(a.Namespace, b.Namespace), cmp.Compare(a.Name, b.Name)) < 0
}
