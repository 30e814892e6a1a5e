package endpointslice

import (
	"fmt"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"

	"github.com/sampan-dev/sampan/control/controller"
)

// endpointOf is what a slice says of a pod.
func endpointOf(svc *corev1.Service, pod *corev1.Pod, ip, zone string) discoveryv1.Endpoint {
	serving, _ := controller.Ready(pod)
	terminating := pod.DeletionTimestamp != nil
	ready := svc.Spec.PublishNotReadyAddresses || serving && !terminating
	e := discoveryv1.Endpoint{
		Addresses:  []string{ip},
		Conditions: discoveryv1.EndpointConditions{Ready: &ready, Serving: &serving, Terminating: &terminating},
		TargetRef:  &corev1.ObjectReference{Kind: "Pod", Namespace: pod.Namespace, Name: pod.Name, UID: pod.UID},
	}
	if pod.Spec.NodeName != "" {
		e.NodeName = &pod.Spec.NodeName
	}
	if zone != "" {
		e.Zone = &zone
	}
	if controller.Named(pod, svc) {
		e.Hostname = &pod.Spec.Hostname
	}
	return e
}

// portsOf are the ports of a pod that the service leads to; ports that the pod
// does not have are left out.
func portsOf(svc *corev1.Service, pod *corev1.Pod) []discoveryv1.EndpointPort {
	ports := []discoveryv1.EndpointPort{}
	for i := range svc.Spec.Ports {
		sp := &svc.Spec.Ports[i]
		n, err := controller.PortOf(pod, sp)
		if err != nil {
			continue
		}
		ports = append(ports, discoveryv1.EndpointPort{Name: &sp.Name, Protocol: &sp.Protocol, Port: &n, AppProtocol: sp.AppProtocol})
	}
	return ports
}

// keyOf tells groups apart: the order of ports does not matter.
func keyOf(kind discoveryv1.AddressType, ports []discoveryv1.EndpointPort) string {
	all := make([]string, 0, len(ports))
	for _, p := range ports {
		all = append(all, fmt.Sprintf("%s %s %d %s", deref(p.Name), deref(p.Protocol), deref(p.Port), deref(p.AppProtocol)))
	}
	slices.Sort(all)
	return string(kind) + "|" + strings.Join(all, "|")
}

// identity tells endpoints apart over time: a pod and its address.
func identity(e discoveryv1.Endpoint) string {
	uid := ""
	if e.TargetRef != nil {
		uid = string(e.TargetRef.UID)
	}
	return strings.Join(e.Addresses, ",") + "/" + uid
}

func deref[V any](p *V) V {
	var zero V
	if p == nil {
		return zero
	}
	return *p
}
