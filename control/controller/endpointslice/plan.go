package endpointslice

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/sampan-dev/sampan/client"
	"github.com/sampan-dev/sampan/control/controller"
)

const (
	// managedBy marks the slices of this controller, as upstream's.
	managedBy = "endpointslice-controller.k8s.io"
	// maxEndpoints bounds a slice: upstream's default.
	maxEndpoints = 100
)

// plan is what to do for one service.
type plan struct {
	create, update, remove []*discoveryv1.EndpointSlice
}

// group is endpoints that share address type and ports, and so slices.
type group struct {
	addressType discoveryv1.AddressType
	ports       []discoveryv1.EndpointPort
	endpoints   []discoveryv1.Endpoint
	slices      []*discoveryv1.EndpointSlice // those there are
}

// decide compares the pods behind a service with its slices. zone says where a
// node is, "" when it has not said; trigger is when the cause of the change
// happened, "" when nothing new has.
func decide(svc *corev1.Service, pods []*corev1.Pod, have []*discoveryv1.EndpointSlice, zone func(node string) string, trigger string) plan {
	var p plan
	groups := wanted(svc, pods, zone)
	for _, s := range have {
		g := groups[keyOf(s.AddressType, s.Ports)]
		switch {
		case s.DeletionTimestamp != nil:
		case g == nil || !ownedBy(s, svc):
			p.remove = append(p.remove, s)
		default:
			g.slices = append(g.slices, s)
		}
	}
	for _, k := range slices.Sorted(maps.Keys(groups)) {
		p.fill(svc, groups[k], trigger)
	}
	return p
}

// ownedBy says whether a slice is this service's. Those of one that had its name before
// go with that one: what is written into them would go too.
func ownedBy(s *discoveryv1.EndpointSlice, svc *corev1.Service) bool {
	return slices.ContainsFunc(s.OwnerReferences, func(ref metav1.OwnerReference) bool {
		return ref.UID == svc.UID && ref.Kind == client.Services.Kind && ref.APIVersion == "v1"
	})
}

// wanted sorts the pods' endpoints into groups. An address type without any gets
// an empty group, whose slice says that somebody has looked.
func wanted(svc *corev1.Service, pods []*corev1.Pod, zone func(string) string) map[string]*group {
	groups := map[string]*group{}
	for _, family := range controller.Families(svc) {
		kind := discoveryv1.AddressType(family)
		found := false
		for _, pod := range pods {
			ip, ok := controller.Address(pod, family)
			if !ok || !controller.Serves(pod, true) {
				continue
			}
			found = true
			ports := portsOf(svc, pod)
			k := keyOf(kind, ports)
			if groups[k] == nil {
				groups[k] = &group{addressType: kind, ports: ports}
			}
			groups[k].endpoints = append(groups[k].endpoints, endpointOf(svc, pod, ip, zone(pod.Spec.NodeName)))
		}
		if !found {
			groups[keyOf(kind, nil)] = &group{addressType: kind}
		}
	}
	return groups
}

// fill distributes a group over its slices: who has a place keeps it, newcomers
// go to slices that change anyway, then to those with room, then to new ones.
func (p *plan) fill(svc *corev1.Service, g *group, trigger string) {
	missing := map[string]discoveryv1.Endpoint{}
	for _, e := range g.endpoints {
		missing[identity(e)] = e
	}
	next := make([]*discoveryv1.EndpointSlice, len(g.slices))
	changed := make([]bool, len(g.slices))
	for i, s := range g.slices {
		next[i] = s.DeepCopy()
		next[i].Endpoints = next[i].Endpoints[:0]
		for _, e := range s.Endpoints {
			if want, ok := missing[identity(e)]; ok {
				next[i].Endpoints = append(next[i].Endpoints, want)
				delete(missing, identity(e))
			}
		}
		setLabels(next[i], svc)
		changed[i] = !equality.Semantic.DeepEqual(s.Endpoints, next[i].Endpoints) || !maps.Equal(s.Labels, next[i].Labels)
	}
	queue := slices.SortedFunc(maps.Values(missing), func(a, b discoveryv1.Endpoint) int { return cmp.Compare(identity(a), identity(b)) })
	for _, onlyChanged := range []bool{true, false} {
		for i := range next {
			if onlyChanged && !changed[i] {
				continue
			}
			n := min(len(queue), maxEndpoints-len(next[i].Endpoints))
			if n > 0 {
				next[i].Endpoints = append(next[i].Endpoints, queue[:n]...)
				queue = queue[n:]
				changed[i] = true
			}
		}
	}
	kept := 0
	for i, s := range next {
		switch {
		case len(s.Endpoints) == 0 && (len(g.endpoints) > 0 || kept > 0):
			p.remove = append(p.remove, g.slices[i])
			continue
		case changed[i]:
			setTrigger(s, trigger)
			p.update = append(p.update, s)
		}
		kept++
	}
	for ; len(queue) > 0 || kept == 0; kept++ {
		n := min(len(queue), maxEndpoints)
		s := newSlice(svc, g, queue[:n])
		setTrigger(s, trigger)
		p.create = append(p.create, s)
		queue = queue[n:]
	}
}

func newSlice(svc *corev1.Service, g *group, endpoints []discoveryv1.Endpoint) *discoveryv1.EndpointSlice {
	s := &discoveryv1.EndpointSlice{
		ObjectMeta: metav1.ObjectMeta{
			Namespace:       svc.Namespace,
			GenerateName:    svc.Name + "-",
			OwnerReferences: []metav1.OwnerReference{client.Services.Owner(svc)},
		},
		AddressType: g.addressType,
		Ports:       g.ports,
		Endpoints:   slices.Clone(endpoints),
	}
	if s.Endpoints == nil {
		s.Endpoints = []discoveryv1.Endpoint{}
	}
	setLabels(s, svc)
	return s
}

// setLabels gives s the service's labels and the controller's own.
func setLabels(s *discoveryv1.EndpointSlice, svc *corev1.Service) {
	s.Labels = map[string]string{}
	for k, v := range svc.Labels {
		s.Labels[k] = v
	}
	delete(s.Labels, corev1.IsHeadlessService)
	if controller.Headless(svc) {
		s.Labels[corev1.IsHeadlessService] = ""
	}
	s.Labels[discoveryv1.LabelServiceName] = svc.Name
	s.Labels[discoveryv1.LabelManagedBy] = managedBy
}

func setTrigger(s *discoveryv1.EndpointSlice, trigger string) {
	if trigger == "" {
		delete(s.Annotations, corev1.EndpointsLastChangeTriggerTime)
		return
	}
	if s.Annotations == nil {
		s.Annotations = map[string]string{}
	}
	s.Annotations[corev1.EndpointsLastChangeTriggerTime] = trigger
}

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
	e.Hints = hintsOf(svc, &e)
	return e
}

// hintsOf asks proxies to prefer what is near, where the service wants that.
func hintsOf(svc *corev1.Service, e *discoveryv1.Endpoint) *discoveryv1.EndpointHints {
	if svc.Spec.TrafficDistribution == nil || !*e.Conditions.Ready || e.Zone == nil {
		return nil
	}
	zones := []discoveryv1.ForZone{{Name: *e.Zone}}
	switch *svc.Spec.TrafficDistribution {
	case corev1.ServiceTrafficDistributionPreferClose, corev1.ServiceTrafficDistributionPreferSameZone:
		return &discoveryv1.EndpointHints{ForZones: zones}
	case corev1.ServiceTrafficDistributionPreferSameNode:
		if e.NodeName == nil {
			return nil
		}
		return &discoveryv1.EndpointHints{ForZones: zones, ForNodes: []discoveryv1.ForNode{{Name: *e.NodeName}}}
	}
	return nil
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
