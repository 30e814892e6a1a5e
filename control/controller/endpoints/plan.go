package endpoints

import (
	"cmp"
	"fmt"
	"maps"
	"math"
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

// stamp says when the cause of what is written happened, "" when nothing new has.
func stamp(e *corev1.Endpoints, trigger string) {
	if trigger == "" {
		delete(e.Annotations, corev1.EndpointsLastChangeTriggerTime)
		return
	}
	if e.Annotations == nil {
		e.Annotations = map[string]string{}
	}
	e.Annotations[corev1.EndpointsLastChangeTriggerTime] = trigger
}

// subsetsOf puts ports that the same addresses have together, which is the canonical
// form: an address is in several subsets if some of its ports are not everybody's.
func subsetsOf(svc *corev1.Service, pods []*corev1.Pod) []corev1.EndpointSubset {
	family := controller.Families(svc)[0]
	byPort := map[string]*corev1.EndpointSubset{} // each with one port at most
	for _, pod := range pods {
		ip, ok := controller.Address(pod, family)
		if !ok || !controller.Serves(pod, svc.Spec.PublishNotReadyAddresses) {
			continue
		}
		ready, _ := controller.Ready(pod)
		ready = ready || svc.Spec.PublishNotReadyAddresses
		ports := portsOf(svc, pod)
		for i := range ports {
			put(byPort, ports[i:i+1], addressOf(svc, pod, ip), ready)
		}
		if len(svc.Spec.Ports) == 0 && controller.Headless(svc) {
			put(byPort, nil, addressOf(svc, pod, ip), ready)
		}
	}
	merged := map[string]*corev1.EndpointSubset{}
	for _, key := range slices.Sorted(maps.Keys(byPort)) {
		s := byPort[key]
		sortAddresses(s.Addresses)
		sortAddresses(s.NotReadyAddresses)
		who := members(s)
		if merged[who] == nil {
			merged[who] = s
			continue
		}
		merged[who].Ports = append(merged[who].Ports, s.Ports...)
	}
	sorted := make([]corev1.EndpointSubset, 0, len(merged))
	for _, s := range merged {
		slices.SortFunc(s.Ports, comparePorts)
		sorted = append(sorted, *s)
	}
	slices.SortFunc(sorted, func(a, b corev1.EndpointSubset) int { return slices.CompareFunc(a.Ports, b.Ports, comparePorts) })
	return sorted
}

// put adds an address to the subset of a port, or of none.
func put(subsets map[string]*corev1.EndpointSubset, port []corev1.EndpointPort, a corev1.EndpointAddress, ready bool) {
	key := ""
	if len(port) > 0 {
		p := &port[0]
		key = fmt.Sprintf("%s %d %s", p.Name, p.Port, p.Protocol)
		if p.AppProtocol != nil {
			key += " " + *p.AppProtocol
		}
	}
	if subsets[key] == nil {
		subsets[key] = &corev1.EndpointSubset{Ports: slices.Clone(port)}
	}
	if s := subsets[key]; ready {
		s.Addresses = append(s.Addresses, a)
	} else {
		s.NotReadyAddresses = append(s.NotReadyAddresses, a)
	}
}

func sortAddresses(all []corev1.EndpointAddress) {
	slices.SortFunc(all, func(a, b corev1.EndpointAddress) int {
		return cmp.Or(strings.Compare(a.IP, b.IP), strings.Compare(string(a.TargetRef.UID), string(b.TargetRef.UID)))
	})
}

// members names a subset's addresses, which are in order.
func members(s *corev1.EndpointSubset) string {
	var out strings.Builder
	for _, list := range [][]corev1.EndpointAddress{s.Addresses, s.NotReadyAddresses} {
		for _, a := range list {
			out.WriteString(a.IP + " " + string(a.TargetRef.UID) + "|")
		}
		out.WriteString("/")
	}
	return out.String()
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
	return ports
}

func comparePorts(a, b corev1.EndpointPort) int {
	return cmp.Or(strings.Compare(a.Name, b.Name), cmp.Compare(a.Port, b.Port), strings.Compare(string(a.Protocol), string(b.Protocol)))
}

// truncate cuts e down to maxAddresses, those that are not ready first, and of each
// subset about the same share.
func truncate(e *corev1.Endpoints) bool {
	ready, others := 0, 0
	for _, s := range e.Subsets {
		ready, others = ready+len(s.Addresses), others+len(s.NotReadyAddresses)
	}
	if ready+others <= maxAddresses {
		return false
	}
	room, of := maxAddresses-ready, others
	if ready > maxAddresses {
		room, of = maxAddresses, ready
	}
	left := room
	share := func(all []corev1.EndpointAddress) []corev1.EndpointAddress {
		n := min(len(all), left, int(math.Ceil(float64(len(all))/float64(of)*float64(room))))
		left -= n
		return all[:n:n]
	}
	for i := range e.Subsets {
		s := &e.Subsets[i]
		if ready > maxAddresses {
			s.Addresses, s.NotReadyAddresses = share(s.Addresses), nil
		} else {
			s.NotReadyAddresses = share(s.NotReadyAddresses)
		}
	}
	return true
}

// same says whether a and b say the same, whenever it came about.
func same(a, b *corev1.Endpoints) bool {
	return equality.Semantic.DeepEqual(a.Subsets, b.Subsets) && maps.Equal(a.Labels, b.Labels) && maps.Equal(a.Annotations, b.Annotations)
}
