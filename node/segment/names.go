package segment

import (
	"net/netip"
	"slices"
	"strings"
)

// Names are the addresses that a name in canonical form means to the pod that has the
// address from, nil when there is nobody of its networks called so. The pod's own
// search domains may be behind the name.
func (s *Segments) Names(from netip.Addr, name string) []netip.Addr {
	s.mu.RLock()
	defer s.mu.RUnlock()
	p := s.view.byAddr[from]
	if p == nil {
		return nil
	}
	name = strings.TrimSuffix(name, ".")
	if rest, ok := strings.CutSuffix(name, "."+strings.TrimSuffix(s.cfg.Domain, ".")); ok {
		name = strings.TrimSuffix(strings.TrimSuffix(rest, ".svc"), "."+p.namespace)
	}
	return s.view.find(p, name)
}

// Called is the name of the pod with an address to the pod that has the address from,
// "" when they are on no network together.
func (s *Segments) Called(from, ip netip.Addr) string {
	s.mu.RLock()
	defer s.mu.RUnlock()
	asks, p := s.view.byAddr[from], s.view.byAddr[ip]
	if asks == nil || p == nil {
		return ""
	}
	var shared []string
	for n := range p.on {
		if asks.on[n] && n.name != Bridge && n.name != None {
			shared = append(shared, n.name)
		}
	}
	if len(shared) == 0 {
		return ""
	}
	return p.name + "." + slices.Min(shared) + "."
}

// Confined says whether an address is that of a pod without a way out, for which nobody
// else is to be asked either.
func (s *Segments) Confined(from netip.Addr) bool {
	s.mu.RLock()
	defer s.mu.RUnlock()
	p := s.view.byAddr[from]
	return p != nil && !s.view.outward(p)
}
