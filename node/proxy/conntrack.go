package proxy

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// stale matches the tracked UDP flows that a change has made wrong: towards a
// changed front, but not to one of its endpoints. UDP has no end of connection,
// so a client that keeps its port would talk to a dead endpoint for ever, or
// past a service that has only come after it.
type stale struct {
	fronts map[front]backing
	nodes  []netip.Addr
}

func newStale(s *state, nodes []netip.Addr) *stale {
	m := &stale{map[front]backing{}, nodes}
	for f := range s.changed {
		if f.proto != unix.IPPROTO_UDP || f.place.outside() {
			continue
		}
		m.fronts[f] = backing{}
		if claims := s.claims[f]; len(claims) > 0 {
			m.fronts[f] = claims[0].backing
		}
	}
	return m
}

// MatchConntrackFlow implements netlink.CustomConntrackFilter.
func (m *stale) MatchConntrackFlow(flow *netlink.ConntrackFlow) bool {
	if flow.Forward.Protocol != unix.IPPROTO_UDP {
		return false
	}
	dst, _ := netip.AddrFromSlice(flow.Forward.DstIP)
	src, _ := netip.AddrFromSlice(flow.Reverse.SrcIP)
	dst, src = dst.Unmap(), src.Unmap()
	if !dst.IsValid() || !src.IsValid() {
		return false
	}
	b, ok := m.fronts[front{atAddress, flow.Forward.Protocol, netip.AddrPortFrom(dst, flow.Forward.DstPort)}]
	if !ok {
		any := unspecified(familyOf(dst))
		b, ok = m.fronts[front{atNode, flow.Forward.Protocol, netip.AddrPortFrom(any, flow.Forward.DstPort)}]
		// Of flows that were never translated, most to such a port have nothing
		// to do with this node's.
		if ok && src == dst && !slices.Contains(m.nodes, dst) {
			return false
		}
	}
	return ok && !slices.Contains(b.endpoints, netip.AddrPortFrom(src, flow.Reverse.SrcPort))
}

// forget deletes the flows that m matches.
func forget(h *netlink.Handle, families []uint8, m *stale) error {
	if len(m.fronts) == 0 {
		return nil
	}
	var errs []error
	for _, family := range families {
		if _, err := h.ConntrackDeleteFilters(netlink.ConntrackTable, netlink.InetFamily(family), m); err != nil {
			errs = append(errs, fmt.Errorf("forget UDP flows: %w", err))
		}
	}
	return errors.Join(errs...)
}
