package endpointslicemirroring

import (
	"cmp"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/sampan-dev/sampan/client"
	"github.com/sampan-dev/sampan/control/controller/measure"
)

// maxEndpoints bounds what is mirrored of a subset, and so a slice: upstream's
// default, and as many as an EndpointSlice may have.
const maxEndpoints = 1000

// plan is what to do for one Endpoints.
type plan struct {
	create, update, remove []*discoveryv1.EndpointSlice
	// invalid and surplus count addresses that are not mirrored.
	invalid, surplus int
}

// group is the endpoints of one slice: one address type, one set of ports.
type group struct {
	addressType discoveryv1.AddressType
	ports       []discoveryv1.EndpointPort
	endpoints   []discoveryv1.Endpoint
}

// decide compares an Endpoints with its slices: one slice for each set of ports
// and address type. A slice that has no group any more takes over one that has no
// slice yet.
func decide(e *corev1.Endpoints, have []*discoveryv1.EndpointSlice) plan {
	var p plan
	groups := p.wanted(e)
	have = slices.SortedFunc(slices.Values(have), func(a, b *discoveryv1.EndpointSlice) int { return cmp.Compare(a.Name, b.Name) })
	for _, s := range have {
		key := keyOf(s.AddressType, s.Ports)
		g := groups[key]
		switch {
		case s.DeletionTimestamp != nil:
		case g == nil:
			p.remove = append(p.remove, s)
		default:
			delete(groups, key)
			if next := sliceOf(e, g, s); changed(s, next) {
				p.update = append(p.update, next)
			}
		}
	}
	for _, key := range slices.Sorted(maps.Keys(groups)) {
		g := groups[key]
		free := slices.IndexFunc(p.remove, func(s *discoveryv1.EndpointSlice) bool { return s.AddressType == g.addressType })
		if free < 0 {
			p.create = append(p.create, sliceOf(e, g, nil))
			continue
		}
		p.update = append(p.update, sliceOf(e, g, p.remove[free]))
		p.remove = slices.Delete(p.remove, free, free+1)
	}
	return p
}

// compare counts what the plan changes of the slices that there are.
func (p plan) compare(have []*discoveryv1.EndpointSlice) measure.Mirrored {
	m := measure.Mirrored{Skipped: p.invalid + p.surplus, Slices: len(have) + len(p.create) - len(p.remove)}
	old := map[string]discoveryv1.Endpoint{}
	for _, s := range have {
		m.Endpoints += len(s.Endpoints)
		for _, e := range s.Endpoints {
			old[s.Name+"/"+strings.Join(e.Addresses, ",")] = e
		}
	}
	for _, s := range p.create {
		m.Added += len(s.Endpoints)
	}
	for _, s := range p.remove {
		m.Removed += len(s.Endpoints)
	}
	for _, s := range p.update {
		at := slices.IndexFunc(have, func(o *discoveryv1.EndpointSlice) bool { return o.Name == s.Name })
		kept := 0
		for _, e := range s.Endpoints {
			was, known := old[s.Name+"/"+strings.Join(e.Addresses, ",")]
			if !known {
				m.Added++
				continue
			}
			if kept++; !equality.Semantic.DeepEqual(was, e) {
				m.Updated++
			}
		}
		if at >= 0 {
			m.Removed += max(0, len(have[at].Endpoints)-kept)
		}
	}
	m.Endpoints += m.Added - m.Removed
	return m
}

// wanted sorts the addresses into groups.
func (p *plan) wanted(e *corev1.Endpoints) map[string]*group {
	groups := map[string]*group{}
	for _, s := range repack(e.Subsets) {
		taken := 0
		for _, a := range s.addresses {
			if taken == maxEndpoints {
				p.surplus++
				continue
			}
			ip, err := netip.ParseAddr(a.IP)
			if err != nil {
				p.invalid++
				continue
			}
			taken++
			kind := discoveryv1.AddressTypeIPv4
			if ip = ip.Unmap(); ip.Is6() {
				kind = discoveryv1.AddressTypeIPv6
			}
			key := keyOf(kind, s.ports)
			if groups[key] == nil {
				groups[key] = &group{addressType: kind, ports: s.ports}
			}
			groups[key].endpoints = append(groups[key].endpoints, endpointOf(a, ip))
		}
	}
	return groups
}

func endpointOf(a address, ip netip.Addr) discoveryv1.Endpoint {
	e := discoveryv1.Endpoint{
		Addresses: []string{ip.String()}, Conditions: discoveryv1.EndpointConditions{Ready: &a.ready},
		TargetRef: a.TargetRef, NodeName: a.NodeName,
	}
	if a.Hostname != "" {
		e.Hostname = &a.Hostname
	}
	return e
}

// address is one of a subset.
type address struct {
	corev1.EndpointAddress
	ready bool
}

// subset is addresses that have the same ports.
type subset struct {
	ports     []discoveryv1.EndpointPort
	addresses []address
}

// repack brings subsets into their canonical form: ports that have the same
// addresses are one subset, wherever they were written. An address that is said
// to be both is not ready, and a subset without ports leads nowhere but to
// itself.
func repack(written []corev1.EndpointSubset) []subset {
	ports := map[string]discoveryv1.EndpointPort{}
	members := map[string]map[string]address{}
	for _, s := range written {
		list := s.Ports
		if len(list) == 0 {
			list = []corev1.EndpointPort{{Port: -1}}
		}
		for i := range list {
			port := portOf(&list[i])
			key := keyOf("", []discoveryv1.EndpointPort{port})
			if ports[key] = port; members[key] == nil {
				members[key] = map[string]address{}
			}
			for _, a := range s.Addresses {
				if _, known := members[key][identity(a)]; !known {
					members[key][identity(a)] = address{a, true}
				}
			}
			for _, a := range s.NotReadyAddresses {
				members[key][identity(a)] = address{a, false}
			}
		}
	}
	return merge(ports, members)
}

// merge puts ports with the same addresses together.
func merge(ports map[string]discoveryv1.EndpointPort, members map[string]map[string]address) []subset {
	merged := map[string]*subset{}
	for _, key := range slices.Sorted(maps.Keys(ports)) {
		var all []address
		var same strings.Builder
		for _, id := range slices.Sorted(maps.Keys(members[key])) {
			all = append(all, members[key][id])
			fmt.Fprintf(&same, "%s %t|", id, members[key][id].ready)
		}
		s := merged[same.String()]
		if s == nil {
			// Those that are ready first: they are the last to be cut off.
			slices.SortStableFunc(all, func(a, b address) int { return ordinal(b.ready) - ordinal(a.ready) })
			s = &subset{addresses: all, ports: []discoveryv1.EndpointPort{}}
			merged[same.String()] = s
		}
		if *ports[key].Port != -1 {
			s.ports = append(s.ports, ports[key])
		}
	}
	var out []subset
	for _, key := range slices.Sorted(maps.Keys(merged)) {
		out = append(out, *merged[key])
	}
	return out
}

func ordinal(b bool) int {
	if b {
		return 1
	}
	return 0
}

func portOf(p *corev1.EndpointPort) discoveryv1.EndpointPort {
	return discoveryv1.EndpointPort{Name: &p.Name, Port: &p.Port, Protocol: &p.Protocol, AppProtocol: p.AppProtocol}
}

// identity tells addresses apart: the same IP on behalf of two pods is two.
func identity(a corev1.EndpointAddress) string {
	uid := ""
	if a.TargetRef != nil {
		uid = string(a.TargetRef.UID)
	}
	return a.IP + " " + uid
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

func deref[V any](p *V) V {
	var zero V
	if p == nil {
		return zero
	}
	return *p
}

// sliceOf is a group's slice, in place of an old one if there is one.
func sliceOf(e *corev1.Endpoints, g *group, old *discoveryv1.EndpointSlice) *discoveryv1.EndpointSlice {
	s := &discoveryv1.EndpointSlice{
		ObjectMeta: metav1.ObjectMeta{
			Namespace: e.Namespace, GenerateName: e.Name + "-", Labels: map[string]string{}, Annotations: map[string]string{},
			OwnerReferences: []metav1.OwnerReference{client.Endpoints.Owner(e)},
		},
		AddressType: g.addressType, Ports: g.ports, Endpoints: g.endpoints,
	}
	if old != nil {
		s.GenerateName, s.Name, s.UID, s.ResourceVersion = old.GenerateName, old.Name, old.UID, old.ResourceVersion
	}
	maps.Copy(s.Labels, e.Labels)
	s.Labels[discoveryv1.LabelServiceName], s.Labels[discoveryv1.LabelManagedBy] = e.Name, managedBy
	maps.Copy(s.Annotations, e.Annotations)
	delete(s.Annotations, corev1.EndpointsLastChangeTriggerTime)
	delete(s.Annotations, corev1.LastAppliedConfigAnnotation)
	return s
}

func changed(have, next *discoveryv1.EndpointSlice) bool {
	return !equality.Semantic.DeepEqual(have.Endpoints, next.Endpoints) || !equality.Semantic.DeepEqual(have.Ports, next.Ports) ||
		!equality.Semantic.DeepEqual(have.Labels, next.Labels) || !equality.Semantic.DeepEqual(have.Annotations, next.Annotations) ||
		!equality.Semantic.DeepEqual(have.OwnerReferences, next.OwnerReferences)
}
