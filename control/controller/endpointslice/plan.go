package endpointslice

import (
	"cmp"
	"maps"
	"slices"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/sampan-dev/sampan/client"
	"github.com/sampan-dev/sampan/control/controller"
	"github.com/sampan-dev/sampan/control/controller/measure"
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
	// hints say, for each address type of a service that is spread over zones, what
	// has become of that.
	hints map[discoveryv1.AddressType]verdict
	// lost are pods whose node is not there: nothing leads to them.
	lost []*corev1.Pod
	// looks are what it comes to, by address type.
	looks map[discoveryv1.AddressType]*measure.Sliced
}

// places is what a plan needs to know of the nodes.
type places struct {
	// zone of a node, "" when it has not said; ok is false when there is no such node.
	zone func(node string) (zone string, ok bool)
	// shares of the cluster's CPU that zones have, nil when that cannot be told.
	shares map[string]float64
}

// group is endpoints that share address type and ports, and so slices.
type group struct {
	addressType discoveryv1.AddressType
	ports       []discoveryv1.EndpointPort
	endpoints   []discoveryv1.Endpoint
	slices      []*discoveryv1.EndpointSlice // those there are
}

// draft is a slice as it shall be.
type draft struct {
	was     *discoveryv1.EndpointSlice // nil: there is none yet
	next    *discoveryv1.EndpointSlice
	changed bool // before hints were looked at
}

// decide compares the pods behind a service with its slices.
func decide(svc *corev1.Service, pods []*corev1.Pod, have []*discoveryv1.EndpointSlice, at places) plan {
	p := plan{hints: map[discoveryv1.AddressType]verdict{}, looks: map[discoveryv1.AddressType]*measure.Sliced{}}
	groups := p.wanted(svc, pods, at)
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
	drafts := map[discoveryv1.AddressType][]*draft{}
	for _, k := range slices.Sorted(maps.Keys(groups)) {
		g := groups[k]
		if p.looks[g.addressType] == nil {
			p.looks[g.addressType] = &measure.Sliced{}
		}
		drafts[g.addressType] = append(drafts[g.addressType], p.fill(svc, g)...)
	}
	for _, family := range slices.Sorted(maps.Keys(drafts)) {
		p.hint(svc, family, drafts[family], at.shares)
		for _, d := range drafts[family] {
			switch {
			case d.was == nil:
				p.create = append(p.create, d.next)
			case !equality.Semantic.DeepEqual(d.was.Endpoints, d.next.Endpoints) || !maps.Equal(d.was.Labels, d.next.Labels):
				p.update = append(p.update, d.next)
			}
		}
	}
	p.reuse(svc)
	for _, s := range slices.Concat(p.create, p.update, p.remove) {
		if look := p.looks[s.AddressType]; look != nil {
			look.Changed++
		}
	}
	if svc.DeletionTimestamp != nil {
		p.create = nil // the collector removes slices as it finds them: there would be no end
	}
	return p
}

// reuse makes of every slice that would go and one that would come an update: one
// write instead of two, and nobody sees the service without it.
func (p *plan) reuse(svc *corev1.Service) {
	p.remove = slices.DeleteFunc(p.remove, func(old *discoveryv1.EndpointSlice) bool {
		i := slices.IndexFunc(p.create, func(s *discoveryv1.EndpointSlice) bool { return s.AddressType == old.AddressType })
		if i < 0 || !ownedBy(old, svc) {
			return false
		}
		next := old.DeepCopy()
		next.Ports, next.Endpoints, next.Labels = p.create[i].Ports, p.create[i].Endpoints, p.create[i].Labels
		p.create = slices.Delete(p.create, i, i+1)
		p.update = append(p.update, next)
		return true
	})
}

// stamp says in what is written when the cause of the change happened, "" when nothing
// new has.
func (p *plan) stamp(trigger string) {
	for _, s := range slices.Concat(p.create, p.update) {
		if trigger == "" {
			delete(s.Annotations, corev1.EndpointsLastChangeTriggerTime)
			continue
		}
		if s.Annotations == nil {
			s.Annotations = map[string]string{}
		}
		s.Annotations[corev1.EndpointsLastChangeTriggerTime] = trigger
	}
}

// ownedBy says whether a slice is this service's. Those of one that had its name before
// go with that one: what is written into them would go too.
func ownedBy(s *discoveryv1.EndpointSlice, svc *corev1.Service) bool {
	return slices.ContainsFunc(s.OwnerReferences, func(ref metav1.OwnerReference) bool {
		return ref.UID == svc.UID && ref.Kind == client.Services.Kind && ref.APIVersion == "v1"
	})
}

// wanted sorts the pods' endpoints into groups. An address type without any gets
// an empty group, whose slice says that somebody has looked. Pods of nodes that are
// not there are left out, unless the service wants them whatever they are.
func (p *plan) wanted(svc *corev1.Service, pods []*corev1.Pod, at places) map[string]*group {
	groups := map[string]*group{}
	lost := map[*corev1.Pod]bool{}
	for _, family := range controller.Families(svc) {
		kind := discoveryv1.AddressType(family)
		found := false
		for _, pod := range pods {
			ip, ok := controller.Address(pod, family)
			if !ok || !controller.Serves(pod, true) {
				continue
			}
			zone, there := at.zone(pod.Spec.NodeName)
			if !there && !svc.Spec.PublishNotReadyAddresses {
				if !lost[pod] {
					p.lost = append(p.lost, pod)
				}
				lost[pod] = true
				continue
			}
			found = true
			ports := portsOf(svc, pod)
			k := keyOf(kind, ports)
			if groups[k] == nil {
				groups[k] = &group{addressType: kind, ports: ports}
			}
			groups[k].endpoints = append(groups[k].endpoints, endpointOf(svc, pod, ip, zone))
		}
		if !found {
			groups[keyOf(kind, nil)] = &group{addressType: kind}
		}
	}
	return groups
}

// fill distributes a group over its slices, those of which nothing is left going: who
// has a place keeps it, newcomers go to slices that change anyway, then to the one
// that they fill best, then to new ones.
func (p *plan) fill(svc *corev1.Service, g *group) []*draft {
	missing := map[string]discoveryv1.Endpoint{}
	for _, e := range g.endpoints {
		missing[identity(e)] = e
	}
	var drafts []*draft
	look := p.looks[g.addressType]
	for _, s := range g.slices {
		d := keep(svc, s, missing)
		look.Removed += len(s.Endpoints) - len(d.next.Endpoints)
		drafts = append(drafts, d)
	}
	look.Added += len(missing)
	look.Endpoints += len(g.endpoints)
	look.Ideal += (len(g.endpoints) + maxEndpoints - 1) / maxEndpoints
	queue := slices.SortedFunc(maps.Values(missing), func(a, b discoveryv1.Endpoint) int { return cmp.Compare(identity(a), identity(b)) })
	drafts = slices.DeleteFunc(drafts, func(d *draft) bool {
		gone := len(d.next.Endpoints) == 0 && len(g.endpoints) > 0
		if gone {
			p.remove = append(p.remove, d.was)
		}
		return gone
	})
	if len(g.endpoints) == 0 && len(drafts) > 1 { // one empty slice says it all
		for _, d := range drafts[1:] {
			p.remove = append(p.remove, d.was)
		}
		drafts = drafts[:1]
	}
	for _, d := range slices.SortedStableFunc(slices.Values(drafts), fullest) {
		if d.changed {
			queue = d.take(queue)
		}
	}
	for len(queue) > 0 || len(drafts) == 0 {
		d := bestOf(drafts, len(queue))
		if d == nil {
			d = &draft{next: newSlice(svc, g)}
			drafts = append(drafts, d)
		}
		d.changed = true
		queue = d.take(queue)
	}
	look.Slices += len(drafts)
	return drafts
}

// keep drafts a slice with those of its endpoints that are still wanted, as they are
// now, and takes them out of missing.
func keep(svc *corev1.Service, s *discoveryv1.EndpointSlice, missing map[string]discoveryv1.Endpoint) *draft {
	d := &draft{was: s, next: s.DeepCopy()}
	d.next.Endpoints = d.next.Endpoints[:0]
	for i := range s.Endpoints {
		id := identity(s.Endpoints[i])
		want, ok := missing[id]
		if !ok {
			continue
		}
		delete(missing, id)
		want.Hints = s.Endpoints[i].Hints.DeepCopy()
		d.next.Endpoints = append(d.next.Endpoints, want)
	}
	setLabels(d.next, svc)
	d.changed = !equality.Semantic.DeepEqual(s.Endpoints, d.next.Endpoints) || !maps.Equal(s.Labels, d.next.Labels)
	return d
}

func fullest(a, b *draft) int { return cmp.Compare(len(b.next.Endpoints), len(a.next.Endpoints)) }

// bestOf finds the slice that has the least room left when n more are in it, nil when
// there is none that takes them all.
func bestOf(drafts []*draft, n int) *draft {
	var best *draft
	for _, d := range drafts {
		if !d.changed && n < maxEndpoints && len(d.next.Endpoints)+n <= maxEndpoints && (best == nil || fullest(d, best) < 0) {
			best = d
		}
	}
	return best
}

// take fills the slice up with endpoints, and returns the others.
func (d *draft) take(queue []discoveryv1.Endpoint) []discoveryv1.Endpoint {
	n := min(len(queue), maxEndpoints-len(d.next.Endpoints))
	d.next.Endpoints = append(d.next.Endpoints, queue[:n]...)
	return queue[n:]
}

func newSlice(svc *corev1.Service, g *group) *discoveryv1.EndpointSlice {
	s := &discoveryv1.EndpointSlice{
		ObjectMeta: metav1.ObjectMeta{
			Namespace:       svc.Namespace,
			GenerateName:    svc.Name + "-",
			OwnerReferences: []metav1.OwnerReference{client.Services.Owner(svc)},
		},
		AddressType: g.addressType,
		Ports:       g.ports,
		Endpoints:   []discoveryv1.Endpoint{},
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
