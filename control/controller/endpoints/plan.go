package endpoints

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/sampan-dev/sampan/control/controller"
)

const (
	managedByLabel = "endpoints.kubernetes.io/managed-by"
	// maxAddresses bounds one object; beyond, only slices are complete.
	maxAddresses = 1000
	overCapacity = "truncated"
)

// wanted is the object as it should be.
func wanted(svc *corev1.Service, pods []*corev1.Pod) *corev1.Endpoints {
	e := &corev1.Endpoints{
		ObjectMeta: metav1.ObjectMeta{Namespace: svc.Namespace, Name: svc.Name, Labels: labelsOf(svc)},
		Subsets:    subsetsOf(svc, pods),
	}
	if truncate(e) {
		e.Annotations = map[string]string{corev1.EndpointsOverCapacity: overCapacity}
	}
	return e
}

func labelsOf(svc *corev1.Service) map[string]string {
	labels := maps.Clone(svc.Labels)
	if labels == nil {
		labels = map[string]string{}
	}
	delete(labels, corev1.IsHeadlessService)
	if controller.Headless(svc) {
		labels[corev1.IsHeadlessService] = ""
	}
	labels[managedByLabel] = component
	return labels
}

// subsetsOf puts addresses with the same ports together. An address is ready or
// not as a whole, so each pod goes to the subset of the ports that it has.
func subsetsOf(svc *corev1.Service, pods []*corev1.Pod) []corev1.EndpointSubset {
	family := controller.Families(svc)[0]
	subsets := map[string]*corev1.EndpointSubset{}
	for _, pod := range pods {
		ip, ok := controller.Address(pod, family)
		if !ok || !controller.Serves(pod, svc.Spec.PublishNotReadyAddresses) {
			continue
		}
		ports := portsOf(svc, pod)
		if len(ports) == 0 && (len(svc.Spec.Ports) > 0 || !controller.Headless(svc)) {
			continue
		}
		key := fmt.Sprint(ports)
		if subsets[key] == nil {
			subsets[key] = &corev1.EndpointSubset{Ports: ports}
		}
		s, address := subsets[key], addressOf(svc, pod, ip)
		if ready, _ := controller.Ready(pod); ready || svc.Spec.PublishNotReadyAddresses {
			s.Addresses = append(s.Addresses, address)
		} else {
			s.NotReadyAddresses = append(s.NotReadyAddresses, address)
		}
	}
	sorted := make([]corev1.EndpointSubset, 0, len(subsets))
	for _, key := range slices.Sorted(maps.Keys(subsets)) {
		s := subsets[key]
		for _, addresses := range [][]corev1.EndpointAddress{s.Addresses, s.NotReadyAddresses} {
			slices.SortFunc(addresses, func(a, b corev1.EndpointAddress) int {
				return cmp.Or(strings.Compare(a.IP, b.IP), strings.Compare(string(a.TargetRef.UID), string(b.TargetRef.UID)))
			})
		}
		sorted = append(sorted, *s)
	}
	return sorted
}

func addressOf(svc *corev1.Service, pod *corev1.Pod, ip string) corev1.EndpointAddress {
	a := corev1.EndpointAddress{
		IP:        ip,
		TargetRef: &corev1.ObjectReference{Kind: "Pod", Namespace: pod.Namespace, Name: pod.Name, UID: pod.UID},
	}
	if pod.Spec.NodeName != "" {
		a.NodeName = &pod.Spec.NodeName
	}
	if controller.Named(pod, svc) {
		a.Hostname = pod.Spec.Hostname
	}
	return a
}

func portsOf(svc *corev1.Service, pod *corev1.Pod) []corev1.EndpointPort {
	var ports []corev1.EndpointPort
	for i := range svc.Spec.Ports {
		sp := &svc.Spec.Ports[i]
		n, err := controller.PortOf(pod, sp)
		if err != nil {
			continue
		}
		ports = append(ports, corev1.EndpointPort{Name: sp.Name, Port: n, Protocol: sp.Protocol, AppProtocol: sp.AppProtocol})
	}
	slices.SortFunc(ports, func(a, b corev1.EndpointPort) int {
		return cmp.Or(strings.Compare(a.Name, b.Name), cmp.Compare(a.Port, b.Port), strings.Compare(string(a.Protocol), string(b.Protocol)))
	})
	return ports
}

// truncate cuts e down to maxAddresses, those that are not ready first.
func truncate(e *corev1.Endpoints) bool {
	left, cut := maxAddresses, false
	take := func(addresses []corev1.EndpointAddress) []corev1.EndpointAddress {
		n := min(left, len(addresses))
		cut = cut || n < len(addresses)
		left -= n
		return addresses[:n:n]
	}
	for i := range e.Subsets {
		e.Subsets[i].Addresses = take(e.Subsets[i].Addresses)
	}
	for i := range e.Subsets {
		e.Subsets[i].NotReadyAddresses = take(e.Subsets[i].NotReadyAddresses)
	}
	return cut
}

func same(a, b *corev1.Endpoints) bool {
	return equality.Semantic.DeepEqual(a.Subsets, b.Subsets) && maps.Equal(a.Labels, b.Labels) && maps.Equal(a.Annotations, b.Annotations)
}
