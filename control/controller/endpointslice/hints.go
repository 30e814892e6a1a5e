package endpointslice

import (
	"cmp"
	"fmt"
	"maps"
	"math"
	"slices"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
)

// overload is how much more traffic than its fair share an endpoint may get so that
// traffic stays in its zone, as upstream's.
const overload = 0.2

// Why the endpoints of a service are not spread over zones, in upstream's words.
const (
	fewFacts     = "Insufficient Node information: allocatable CPU or zone not specified on one or more nodes"
	fewEndpoints = "Insufficient number of endpoints"
	tooUneven    = "Unable to allocate minimum required endpoints to each zone without exceeding overload threshold"
	unplaced     = "One or more endpoints do not have a zone specified"
)

// verdict is what has become of the hints of a service that asks for a spread over
// zones: the reason why there are none, or "".
type verdict string

// spread says whether a service asks for a spread over zones by its annotation. Who
// does that is not asked for a traffic distribution.
func spread(svc *corev1.Service) bool {
	// The old name goes first, as long as upstream knows it.
	mode, ok := svc.Annotations[corev1.DeprecatedAnnotationTopologyAwareHints]
	if !ok {
		mode = svc.Annotations[corev1.AnnotationTopologyMode]
	}
	return mode == "Auto" || mode == "auto"
}

// hint tells proxies in one family's drafts whose traffic an endpoint is for.
func (p *plan) hint(svc *corev1.Service, family discoveryv1.AddressType, drafts []*draft, shares map[string]float64) {
	if spread(svc) {
		why := verdict(spreadOver(shares, drafts))
		if p.hints[family] = why; why == "" {
			return
		}
	}
	want := near(svc)
	for _, d := range drafts {
		for i := range d.next.Endpoints {
			d.next.Endpoints[i].Hints = want(&d.next.Endpoints[i])
		}
	}
}

// distribution is the traffic distribution that a service is given, "" when it asks for
// none that is known, or for a spread.
func distribution(svc *corev1.Service) string {
	if svc.Spec.TrafficDistribution == nil || spread(svc) {
		return ""
	}
	switch d := *svc.Spec.TrafficDistribution; d {
	case corev1.ServiceTrafficDistributionPreferSameNode, corev1.ServiceTrafficDistributionPreferClose, corev1.ServiceTrafficDistributionPreferSameZone:
		return d
	}
	return ""
}

// near gives each endpoint to who is near it, where the service wants that: to its
// zone, or to its node and after that its zone.
func near(svc *corev1.Service) func(*discoveryv1.Endpoint) *discoveryv1.EndpointHints {
	zones, nodes := false, false
	switch distribution(svc) {
	case corev1.ServiceTrafficDistributionPreferSameNode:
		zones, nodes = true, true
	case corev1.ServiceTrafficDistributionPreferClose, corev1.ServiceTrafficDistributionPreferSameZone:
		zones = true
	}
	return func(e *discoveryv1.Endpoint) *discoveryv1.EndpointHints {
		var h discoveryv1.EndpointHints
		if zones && *e.Conditions.Ready && e.Zone != nil {
			h.ForZones = []discoveryv1.ForZone{{Name: *e.Zone}}
		}
		if nodes && *e.Conditions.Ready && e.NodeName != nil {
			h.ForNodes = []discoveryv1.ForNode{{Name: *e.NodeName}}
		}
		if h.ForZones == nil && h.ForNodes == nil {
			return nil
		}
		return &h
	}
}

// quota is how many endpoints a zone shall have: want by its share, of which it may
// have as few as least and as many as most.
type quota struct {
	want        float64
	least, most int
}

// quotas deals n endpoints to zones by their shares, or says why that cannot be.
func quotas(shares map[string]float64, n int) (map[string]quota, string) {
	if len(shares) < 2 {
		return nil, fewFacts
	}
	if n < len(shares) {
		return nil, fmt.Sprintf("%s (%d endpoints, %d zones)", fewEndpoints, n, len(shares))
	}
	all, spare := map[string]quota{}, n
	for zone, share := range shares {
		want := share * float64(n)
		least := int(math.Ceil(want / (1 + overload)))
		all[zone] = quota{want: max(want, float64(least)), least: least}
		spare -= least
	}
	if spare < 0 {
		return nil, fmt.Sprintf("%s (%d endpoints, %d zones)", tooUneven, n, len(shares))
	}
	for zone, q := range all {
		q.most = q.least + spare
		all[zone] = q
	}
	return all, ""
}

// spreadOver gives every ready endpoint to one zone, so that every zone has its share
// and as many as can stay with their own. Slices that have not changed and still do
// are left as they are. It changes nothing when it returns a reason.
func spreadOver(shares map[string]float64, drafts []*draft) (why string) {
	n := 0
	for _, d := range drafts {
		for i := range d.next.Endpoints {
			if *d.next.Endpoints[i].Conditions.Ready {
				n++
			}
		}
	}
	want, why := quotas(shares, n)
	if why != "" {
		return why
	}
	given := map[string]int{}
	var open []*discoveryv1.Endpoint
	for _, d := range drafts {
		if !d.changed && stays(d.next.Endpoints, want, given) {
			continue
		}
		for i := range d.next.Endpoints {
			open = append(open, &d.next.Endpoints[i])
		}
	}
	for _, e := range open {
		if *e.Conditions.Ready && e.Zone == nil {
			return unplaced
		}
	}
	hand(open, want, given)
	return ""
}

// stays says whether the hints of a slice's endpoints are complete, and fit beside
// those that have been given already; then they are counted among them.
func stays(endpoints []discoveryv1.Endpoint, want map[string]quota, given map[string]int) bool {
	here := map[string]int{}
	for i := range endpoints {
		e := &endpoints[i]
		if !*e.Conditions.Ready {
			continue
		}
		if e.Hints == nil || len(e.Hints.ForZones) == 0 || len(e.Hints.ForNodes) > 0 {
			return false
		}
		for _, z := range e.Hints.ForZones {
			here[z.Name]++
		}
	}
	for zone, n := range here {
		if q, ok := want[zone]; !ok || n+given[zone] > q.most {
			return false
		}
	}
	for zone, n := range here {
		given[zone] += n
	}
	return true
}

// hand gives endpoints to their own zones first, and then from those that have most
// too many to those that lack most.
func hand(open []*discoveryv1.Endpoint, want map[string]quota, given map[string]int) {
	for _, e := range open {
		e.Hints = nil
		if *e.Conditions.Ready {
			e.Hints = &discoveryv1.EndpointHints{ForZones: []discoveryv1.ForZone{{Name: *e.Zone}}}
			given[*e.Zone]++
		}
	}
	gives, takes := moves(want, given)
	zones := slices.Sorted(maps.Keys(takes))
	for _, e := range open {
		if e.Hints == nil || gives[*e.Zone] == 0 {
			continue
		}
		to := slices.IndexFunc(zones, func(zone string) bool { return takes[zone] > 0 })
		if to < 0 {
			return
		}
		e.Hints.ForZones[0].Name = zones[to]
		gives[*e.Zone]--
		takes[zones[to]]--
	}
}

// moves are how many endpoints zones give away and get. Who differs from what it
// should have by less than a half is left alone.
func moves(want map[string]quota, given map[string]int) (gives, takes map[string]int) {
	over, under := map[string]float64{}, map[string]float64{}
	for zone, q := range want {
		switch d := float64(given[zone]) - q.want; {
		case d > 0:
			over[zone] = d
		case d < 0:
			under[zone] = -d
		}
	}
	gives, takes = map[string]int{}, map[string]int{}
	for {
		from, much := most(over)
		to, lack := most(under)
		if much < 0.5 || lack < 0.5 || much < 1 && lack < 1 {
			return gives, takes
		}
		gives[from]++
		over[from]--
		takes[to]++
		under[to]--
	}
}

// most is the zone with the greatest number, of several the first by name.
func most(zones map[string]float64) (zone string, n float64) {
	for _, z := range slices.SortedFunc(maps.Keys(zones), cmp.Compare) {
		if zones[z] > n {
			zone, n = z, zones[z]
		}
	}
	return zone, n
}

// sharesOf are the shares of the CPU of all ready nodes that zones have. They are nil
// when a node has not said where it is or what it has, or when there is but one zone.
// Nodes of the control plane do not count.
func sharesOf(nodes []*corev1.Node) map[string]float64 {
	total, zones := int64(0), map[string]float64{}
	for _, n := range nodes {
		if !counts(n) {
			continue
		}
		zone, cpu := n.Labels[corev1.LabelTopologyZone], n.Status.Allocatable.Cpu().MilliValue()
		if zone == "" || cpu == 0 {
			return nil
		}
		total += cpu
		zones[zone] += float64(cpu)
	}
	if len(zones) < 2 {
		return nil
	}
	for zone := range zones {
		zones[zone] /= float64(total)
	}
	return zones
}

func counts(n *corev1.Node) bool {
	for _, role := range []string{"control-plane", "master"} {
		if _, ok := n.Labels["node-role.kubernetes.io/"+role]; ok {
			return false
		}
	}
	return slices.ContainsFunc(n.Status.Conditions, func(c corev1.NodeCondition) bool {
		return c.Type == corev1.NodeReady && c.Status == corev1.ConditionTrue
	})
}

// alike says whether two states of a node, nil for none, have the same share in it.
func alike(a, b *corev1.Node) bool {
	if a == nil || b == nil {
		return a == b
	}
	if !counts(a) || !counts(b) {
		return counts(a) == counts(b)
	}
	return a.Labels[corev1.LabelTopologyZone] == b.Labels[corev1.LabelTopologyZone] &&
		a.Status.Allocatable.Cpu().Cmp(*b.Status.Allocatable.Cpu()) == 0
}
