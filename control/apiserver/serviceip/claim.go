package serviceip

import (
	"fmt"
	"math/big"
	"math/rand/v2"
	"net/netip"

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

// claim is one write under way. Its methods run with the allocator's lock held,
// except for finish.
type claim struct {
	a    *Allocator
	svc  *corev1.Service
	had  holding // by the old service: still taken, and the new one's to keep
	took holding // for the new one
}

func (c *claim) finish(stored bool) {
	c.a.mu.Lock()
	defer c.a.mu.Unlock()
	if !stored {
		c.a.free(c.took)
		return
	}
	now := holdings(c.svc)
	gone := newHolding()
	for addr := range c.had.addrs {
		if _, kept := now.addrs[addr]; !kept {
			gone.addrs[addr] = struct{}{}
		}
	}
	for port := range c.had.ports {
		if _, kept := now.ports[port]; !kept {
			gone.ports[port] = struct{}{}
		}
	}
	c.a.free(gone)
}

// addresses gives the service an address of each of its families.
func (c *claim) addresses() error {
	s := &c.svc.Spec
	if s.Type == corev1.ServiceTypeExternalName || (len(s.ClusterIPs) > 0 && s.ClusterIPs[0] == corev1.ClusterIPNone) {
		return nil
	}
	ips := make([]string, max(len(s.IPFamilies), len(s.ClusterIPs)))
	copy(ips, s.ClusterIPs)
	for i, f := range s.IPFamilies {
		text, err := c.address(f, ips[i])
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
func (c *claim) address(f corev1.IPFamily, asked string) (string, error) {
	path := field.NewPath("spec", "clusterIPs")
	if asked == "" {
		addr, ok := c.a.pick(f)
		if !ok {
			return "", apierrors.NewInternalError(fmt.Errorf("failed to allocate a serviceIP for Service %q: range is full", c.svc.Name))
		}
		c.takeAddress(addr)
		return addr.String(), nil
	}
	addr, err := netip.ParseAddr(asked)
	if err != nil {
		return "", apierrors.NewInternalError(fmt.Errorf("failed to parse service IP %q", asked))
	}
	if _, mine := c.had.addrs[addr]; mine {
		return asked, nil
	}
	reason := ""
	if r := c.a.ranges[f]; !usable(r, addr) {
		reason = fmt.Sprintf("the provided IP (%v) is not in the valid range. The range of valid IPs is %s", addr, r)
	} else if _, taken := c.a.addrs[addr]; taken {
		reason = "provided IP is already allocated"
	}
	if reason != "" {
		return "", invalid(c.svc, field.ErrorList{field.Invalid(path, c.svc.Spec.ClusterIPs, fmt.Sprintf("failed to allocate IP %v: %s", asked, reason))})
	}
	c.takeAddress(addr)
	return asked, nil
}

func (c *claim) takeAddress(addr netip.Addr) {
	if c.took.addrs == nil {
		c.took = newHolding()
	}
	c.a.addrs[addr] = struct{}{}
	c.took.addrs[addr] = struct{}{}
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
		picked, ok := c.a.pickPort()
		if !ok {
			return 0, fmt.Errorf("range is full")
		}
		asked = picked
	} else if asked < first || asked > last {
		return 0, fmt.Errorf("provided port is not in the valid range. The range of valid ports is %d-%d", first, last)
	} else if _, taken := c.a.ports[asked]; taken {
		return 0, fmt.Errorf("provided port is already allocated")
	}
	if c.took.ports == nil {
		c.took = newHolding()
	}
	c.a.ports[asked] = struct{}{}
	c.took.ports[asked] = struct{}{}
	return asked, nil
}

// guesses is how often a random one is tried before looking at each in turn.
const guesses = 16

// pick finds a free address, first in the upper part of the range: the lower is
// for people who choose their own, as upstream divides it.
func (a *Allocator) pick(f corev1.IPFamily) (netip.Addr, bool) {
	r := a.ranges[f]
	size := uint64(1) << min(hostBits(r), 32)
	static := min(max(16, size/16), 256)
	if static+2 >= size {
		static = 2
	}
	upper := size - static - 1
	for range guesses {
		if addr := offset(r, static+rand.Uint64N(upper)); a.freeAddr(r, addr) {
			return addr, true
		}
	}
	start := rand.Uint64N(upper)
	for i := range min(upper, 1<<20) {
		if addr := offset(r, static+(start+i)%upper); a.freeAddr(r, addr) {
			return addr, true
		}
	}
	for i := uint64(2); i < static; i++ {
		if addr := offset(r, i); a.freeAddr(r, addr) {
			return addr, true
		}
	}
	return netip.Addr{}, false
}

func (a *Allocator) freeAddr(r netip.Prefix, addr netip.Addr) bool {
	_, taken := a.addrs[addr]
	return !taken && usable(r, addr)
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

func (a *Allocator) pickPort() (int32, bool) {
	first, n := a.cfg.FirstPort, a.cfg.LastPort-a.cfg.FirstPort+1
	start := rand.Int32N(n)
	for i := range n {
		port := first + (start+i)%n
		if _, taken := a.ports[port]; !taken {
			return port, true
		}
	}
	return 0, false
}
