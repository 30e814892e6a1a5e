package serviceip

import (
	"context"
	"errors"
	"fmt"
	"math/big"
	"net/netip"
	"slices"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/util/validation/field"
)

// holding is what one service has of what there is one of.
type holding struct {
	addrs map[netip.Addr]struct{}
	ports map[int32]struct{}
}

// holdings reads a service: only what is really its own.
func holdings(s *corev1.Service) holding {
	h := newHolding()
	if s.Spec.Type != corev1.ServiceTypeExternalName {
		for _, text := range s.Spec.ClusterIPs {
			if addr, err := netip.ParseAddr(text); err == nil {
				h.addrs[addr] = struct{}{}
			}
		}
	}
	if usesNodePorts(s) {
		for _, p := range s.Spec.Ports {
			if p.NodePort != 0 {
				h.ports[p.NodePort] = struct{}{}
			}
		}
	}
	if checksHealth(s) && s.Spec.HealthCheckNodePort != 0 {
		h.ports[s.Spec.HealthCheckNodePort] = struct{}{}
	}
	return h
}

func newHolding() holding {
	return holding{addrs: map[netip.Addr]struct{}{}, ports: map[int32]struct{}{}}
}

func usesNodePorts(s *corev1.Service) bool {
	return s.Spec.Type == corev1.ServiceTypeNodePort || s.Spec.Type == corev1.ServiceTypeLoadBalancer
}

// checksHealth: such a service needs a port on which each node says whether it
// has an endpoint.
func checksHealth(s *corev1.Service) bool {
	return s.Spec.Type == corev1.ServiceTypeLoadBalancer && s.Spec.ExternalTrafficPolicy == corev1.ServiceExternalTrafficPolicyLocal
}

// claim is one write under way.
type claim struct {
	a      *Allocator
	svc    *corev1.Service
	dryRun bool
	had    holding // by the old service: still taken, and the new one's to keep
	took   holding // for the new one
	book   *ports  // while node ports are given
}

// finish frees what the new service does not get, or the old one no longer has.
func (c *claim) finish(ctx context.Context, stored bool) {
	gone := c.took
	if stored {
		gone = c.had.without(holdings(c.svc))
	}
	if !c.dryRun {
		c.a.freePorts(ctx, gone)
		c.a.release(ctx, c.svc, gone)
	}
}

// without is what h has and now has not.
func (h holding) without(now holding) holding {
	gone := newHolding()
	for addr := range h.addrs {
		if _, kept := now.addrs[addr]; !kept {
			gone.addrs[addr] = struct{}{}
		}
	}
	for port := range h.ports {
		if _, kept := now.ports[port]; !kept {
			gone.ports[port] = struct{}{}
		}
	}
	return gone
}

// addresses gives the service an address of each of its families.
func (c *claim) addresses(ctx context.Context) error {
	s := &c.svc.Spec
	if s.Type == corev1.ServiceTypeExternalName || (len(s.ClusterIPs) > 0 && s.ClusterIPs[0] == corev1.ClusterIPNone) {
		return nil
	}
	ips := make([]string, max(len(s.IPFamilies), len(s.ClusterIPs)))
	copy(ips, s.ClusterIPs)
	for i, f := range s.IPFamilies {
		text, err := c.address(ctx, f, ips[i])
		if err != nil {
			return err
		}
		ips[i] = text
	}
	s.ClusterIPs = ips
	if len(ips) > 0 {
		s.ClusterIP = ips[0]
	}
	return nil
}

// address reserves the address asked for, or picks one when none is.
func (c *claim) address(ctx context.Context, f corev1.IPFamily, asked string) (string, error) {
	path := field.NewPath("spec", "clusterIPs")
	if asked == "" {
		addr, err := c.pick(ctx, f)
		switch {
		case apierrors.IsInvalid(err): // the service has no name to record, say; what else fails may be tried again
			return "", invalid(c.svc, field.ErrorList{field.Invalid(path, c.svc.Spec.ClusterIPs, fmt.Sprintf("failed to allocate IP: %v", err))})
		case err != nil:
			return "", apierrors.NewInternalError(fmt.Errorf("failed to allocate a serviceIP for Service %q: %w", c.svc.Name, err))
		}
		c.took.addrs[addr] = struct{}{}
		return addr.String(), nil
	}
	addr, err := netip.ParseAddr(asked)
	if err != nil {
		return "", apierrors.NewInternalError(fmt.Errorf("failed to parse service IP %q", asked))
	}
	if _, mine := c.had.addrs[addr]; mine {
		return asked, nil
	}
	if err := c.take(ctx, f, addr); err != nil {
		return "", invalid(c.svc, field.ErrorList{field.Invalid(path, c.svc.Spec.ClusterIPs, fmt.Sprintf("failed to allocate IP %v: %v", asked, err))})
	}
	c.took.addrs[addr] = struct{}{}
	return asked, nil
}

// ports gives the service its node ports, all in one change of the book.
func (c *claim) ports(ctx context.Context) error {
	if !usesNodePorts(c.svc) && !checksHealth(c.svc) {
		return nil
	}
	asked, health := slices.Clone(c.svc.Spec.Ports), c.svc.Spec.HealthCheckNodePort
	try := func(p *ports) error {
		c.book, c.took = p, newHolding()
		copy(c.svc.Spec.Ports, asked)
		c.svc.Spec.HealthCheckNodePort = health
		return c.nodePorts()
	}
	err := c.a.change(ctx, c.dryRun, try)
	if err == nil {
		return nil
	}
	c.took = newHolding() // nothing was written down
	var status apierrors.APIStatus
	if errors.As(err, &status) {
		return err
	}
	return apierrors.NewInternalError(err)
}

// nodePorts gives each port of the service one on the nodes. Ports of one number
// (TCP and UDP) share theirs.
func (c *claim) nodePorts() error {
	s := &c.svc.Spec
	automatic := s.AllocateLoadBalancerNodePorts == nil || *s.AllocateLoadBalancerNodePorts || s.Type != corev1.ServiceTypeLoadBalancer
	if usesNodePorts(c.svc) {
		for i := range s.Ports {
			if err := c.nodePort(i, automatic); err != nil {
				return err
			}
		}
	}
	if !checksHealth(c.svc) {
		return nil
	}
	port, err := c.port(s.HealthCheckNodePort)
	if err != nil {
		return apierrors.NewInternalError(fmt.Errorf("failed to allocate requested HealthCheck NodePort %v: %w", s.HealthCheckNodePort, err))
	}
	s.HealthCheckNodePort = port
	return nil
}

func (c *claim) nodePort(i int, automatic bool) error {
	p := &c.svc.Spec.Ports[i]
	if p.NodePort == 0 && len(c.had.ports) == 0 {
		p.NodePort = twin(c.svc.Spec.Ports, i)
	}
	if p.NodePort == 0 && !automatic {
		return nil
	}
	asked := p.NodePort
	port, err := c.port(asked)
	switch {
	case err != nil && asked == 0:
		return apierrors.NewInternalError(fmt.Errorf("failed to allocate a nodePort: %w", err))
	case err != nil:
		path := field.NewPath("spec", "ports").Index(i).Child("nodePort")
		return invalid(c.svc, field.ErrorList{field.Invalid(path, asked, err.Error())})
	}
	p.NodePort = port
	return nil
}

// twin is the node port of another port with the same number, if it has one.
func twin(ports []corev1.ServicePort, i int) int32 {
	for j, p := range ports {
		if j != i && p.Port == ports[i].Port && p.Protocol != ports[i].Protocol && p.NodePort != 0 {
			return p.NodePort
		}
	}
	return 0
}

// port reserves the port asked for, or picks one for 0. What this service holds
// already, it may name again.
func (c *claim) port(asked int32) (int32, error) {
	if _, mine := c.had.ports[asked]; mine && asked != 0 {
		return asked, nil
	}
	if _, mine := c.took.ports[asked]; mine && asked != 0 {
		return asked, nil
	}
	first, last := c.a.cfg.FirstPort, c.a.cfg.LastPort
	if asked == 0 {
		picked, ok := c.book.free()
		if !ok {
			return 0, fmt.Errorf("range is full")
		}
		asked = picked
	} else if asked < first || asked > last {
		return 0, fmt.Errorf("provided port is not in the valid range. The range of valid ports is %d-%d", first, last)
	} else if c.book.has(asked) {
		return 0, fmt.Errorf("provided port is already allocated")
	}
	c.book.set(asked, 1)
	c.took.ports[asked] = struct{}{}
	return asked, nil
}

// usable leaves out the range's own address and, for IPv4, its broadcast.
func usable(r netip.Prefix, addr netip.Addr) bool {
	if !r.Contains(addr) || addr == r.Addr() {
		return false
	}
	return !addr.Is4() || addr != offset(r, 1<<hostBits(r)-1)
}

func hostBits(r netip.Prefix) int { return r.Addr().BitLen() - r.Bits() }

// offset is the n-th address of the range.
func offset(r netip.Prefix, n uint64) netip.Addr {
	base := new(big.Int).SetBytes(r.Addr().AsSlice())
	base.Add(base, new(big.Int).SetUint64(n))
	raw := make([]byte, r.Addr().BitLen()/8)
	addr, _ := netip.AddrFromSlice(base.FillBytes(raw))
	return addr
}
