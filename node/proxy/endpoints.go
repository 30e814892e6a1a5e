package proxy

import (
	"net/netip"
	"slices"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
)

// endpoint is one of a service's, with where it is reached.
type endpoint struct {
	*discoveryv1.Endpoint
	to netip.AddrPort
}

func (e *endpoint) ready() bool { return e.Conditions.Ready == nil || *e.Conditions.Ready }

// leaving says whether it still serves while it terminates.
func (e *endpoint) leaving() bool {
	c := e.Conditions
	return !e.ready() && c.Serving != nil && *c.Serving && c.Terminating != nil && *c.Terminating
}

func (e *endpoint) forNode(name string) bool {
	return e.Hints != nil && slices.ContainsFunc(e.Hints.ForNodes, func(n discoveryv1.ForNode) bool { return n.Name == name })
}

func (e *endpoint) forZone(name string) bool {
	return e.Hints != nil && slices.ContainsFunc(e.Hints.ForZones, func(z discoveryv1.ForZone) bool { return z.Name == name })
}

// endpoints are all of a port and family that may be reached at all.
func (p *planner) endpoints(port *corev1.ServicePort, family uint8) []endpoint {
	var all []endpoint
	for _, slice := range p.slices {
		number, ok := portOf(slice, port)
		if !ok {
			continue
		}
		for i := range slice.Endpoints {
			e := &slice.Endpoints[i]
			if len(e.Addresses) == 0 {
				continue
			}
			ip, err := netip.ParseAddr(e.Addresses[0])
			if err != nil || familyOf(ip.Unmap()) != family || !reachable(ip) {
				continue
			}
			all = append(all, endpoint{e, netip.AddrPortFrom(ip.Unmap(), number)})
		}
	}
	return all
}

// usable are the ready ones that match or, when there are none, those that still
// serve while they terminate.
func usable(all []endpoint, match func(*endpoint) bool) []netip.AddrPort {
	var ready, leaving []netip.AddrPort
	for i := range all {
		switch e := &all[i]; {
		case !match(e):
		case e.ready():
			ready = append(ready, e.to)
		case e.leaving():
			leaving = append(leaving, e.to)
		}
	}
	if len(ready) == 0 {
		ready = leaving
	}
	slices.SortFunc(ready, netip.AddrPort.Compare)
	ready = slices.Compact(ready)
	return ready[:min(len(ready), maxEndpoints)]
}

// preferred are the endpoints that hints give to this node, or else to its zone; all
// of them where some ready one has no hint, or none is meant for here. That is
// kube-proxy's rule: hints must never leave a node with nothing.
func (s *site) preferred(all []endpoint) func(*endpoint) bool {
	byNode, byZone := true, true // every ready endpoint has such a hint …
	node, zone := false, false   // … and one of them is for here
	for i := range all {
		e := &all[i]
		if !e.ready() {
			continue
		}
		byNode = byNode && e.Hints != nil && len(e.Hints.ForNodes) > 0
		byZone = byZone && e.Hints != nil && len(e.Hints.ForZones) > 0
		node = node || e.forNode(s.name)
		zone = zone || e.forZone(s.zone)
	}
	switch {
	case byNode && node:
		return func(e *endpoint) bool { return e.forNode(s.name) }
	case byZone && zone:
		return func(e *endpoint) bool { return e.forZone(s.zone) }
	}
	return func(*endpoint) bool { return true }
}
