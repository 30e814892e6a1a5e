package dns

import (
	"context"
	"log/slog"
	"net/netip"
	"strings"
	"sync"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"

	"github.com/sampan-dev/sampan/client"
	"github.com/sampan-dev/sampan/client/informer"
)

// The indexes of the mirrors.
const (
	byService = "service" // slices by namespace/service
	byHost    = "host"    // slices by namespace/service/host
	byAddress = "address" // services by their addresses, slices by those of named endpoints
)

// mirror is what the cluster's names are made of. Reading needs no API server.
type mirror struct {
	services   *informer.Informer[*corev1.Service]
	slices     *informer.Informer[*discoveryv1.EndpointSlice]
	namespaces *informer.Informer[*corev1.Namespace]
}

func newMirror(t client.Transport, log *slog.Logger) *mirror {
	opts := informer.Options{Log: log}
	m := &mirror{
		services:   informer.New(t, client.Services, opts),
		slices:     informer.New(t, client.EndpointSlices, opts),
		namespaces: informer.New(t, client.Namespaces, opts),
	}
	m.services.AddIndex(byAddress, func(s *corev1.Service) []string { return texts(clusterIPs(s)) })
	m.slices.AddIndex(byService, func(s *discoveryv1.EndpointSlice) []string { return []string{serviceOf(s)} })
	m.slices.AddIndex(byHost, func(s *discoveryv1.EndpointSlice) []string {
		return each(s, func(e *discoveryv1.Endpoint) []string { return []string{serviceOf(s) + "/" + hostOf(e)} })
	})
	m.slices.AddIndex(byAddress, func(s *discoveryv1.EndpointSlice) []string {
		return each(s, func(e *discoveryv1.Endpoint) []string {
			if e.Hostname == nil || *e.Hostname == "" {
				return nil
			}
			return texts(parse(e.Addresses))
		})
	})
	return m
}

func (m *mirror) run(ctx context.Context, wg *sync.WaitGroup) {
	wg.Go(func() { _ = m.services.Run(ctx) }) // each ends with ctx only
	wg.Go(func() { _ = m.slices.Run(ctx) })
	wg.Go(func() { _ = m.namespaces.Run(ctx) })
}

// synced tells whether a missing object is known to be missing.
func (m *mirror) synced() bool {
	for _, ch := range []<-chan struct{}{m.services.Synced(), m.slices.Synced(), m.namespaces.Synced()} {
		select {
		case <-ch:
		default:
			return false
		}
	}
	return true
}

func (m *mirror) namespace(name string) bool {
	_, ok := m.namespaces.Get("", name)
	return ok
}

func (m *mirror) service(namespace, name string) (*corev1.Service, bool) {
	return m.services.Get(namespace, name)
}

// endpoint is a ready endpoint's address and the ports of its slice.
type endpoint struct {
	host  string
	addr  netip.Addr
	ports []discoveryv1.EndpointPort
}

// endpoints are the ready ones of a service: those of a service that publishes
// the others too are marked ready by whoever makes the slices.
func (m *mirror) endpoints(namespace, service string) []endpoint {
	return ready(m.slices.ByIndex(byService, namespace+"/"+service), "")
}

// host are those of endpoints that have a host name.
func (m *mirror) host(namespace, service, host string) []endpoint {
	return ready(m.slices.ByIndex(byHost, namespace+"/"+service+"/"+host), host)
}

// named is what an address is called in the cluster, below the domain.
func (m *mirror) named(ip netip.Addr) []string {
	var names []string
	for _, s := range m.services.ByIndex(byAddress, ip.String()) {
		names = append(names, s.Name+"."+s.Namespace+".svc")
	}
	for _, s := range m.slices.ByIndex(byAddress, ip.String()) {
		for _, e := range ready([]*discoveryv1.EndpointSlice{s}, "") {
			service := s.Labels[discoveryv1.LabelServiceName]
			if e.addr == ip && service != "" {
				names = append(names, e.host+"."+service+"."+s.Namespace+".svc")
			}
		}
	}
	return names
}

// ready flattens slices; host, when not empty, is the only one wanted.
func ready(slices []*discoveryv1.EndpointSlice, host string) []endpoint {
	var out []endpoint
	seen := map[netip.Addr]int{}
	for _, s := range slices {
		for i := range s.Endpoints {
			e := &s.Endpoints[i]
			if (e.Conditions.Ready != nil && !*e.Conditions.Ready) || (host != "" && hostOf(e) != host) {
				continue
			}
			for _, ip := range parse(e.Addresses) {
				if at, twice := seen[ip]; twice { // with other ports, or in two slices for a moment
					out[at].ports = append(out[at].ports[:len(out[at].ports):len(out[at].ports)], s.Ports...)
					continue
				}
				seen[ip] = len(out)
				out = append(out, endpoint{hostOf(e), ip, s.Ports})
			}
		}
	}
	return out
}

// hostOf is an endpoint's host name, or one made of its address.
func hostOf(e *discoveryv1.Endpoint) string {
	if e.Hostname != nil && *e.Hostname != "" {
		return strings.ToLower(*e.Hostname)
	}
	if len(e.Addresses) == 0 {
		return ""
	}
	return strings.NewReplacer(".", "-", ":", "-").Replace(e.Addresses[0])
}

func serviceOf(s *discoveryv1.EndpointSlice) string {
	return s.Namespace + "/" + s.Labels[discoveryv1.LabelServiceName]
}

func each(s *discoveryv1.EndpointSlice, values func(*discoveryv1.Endpoint) []string) []string {
	seen := map[string]bool{}
	var out []string
	for i := range s.Endpoints {
		for _, v := range values(&s.Endpoints[i]) {
			if !seen[v] {
				seen[v] = true
				out = append(out, v)
			}
		}
	}
	return out
}

// clusterIPs are a service's own addresses; a headless one has none.
func clusterIPs(s *corev1.Service) []netip.Addr {
	if len(s.Spec.ClusterIPs) > 0 {
		return parse(s.Spec.ClusterIPs)
	}
	return parse([]string{s.Spec.ClusterIP})
}

func parse(in []string) []netip.Addr {
	var out []netip.Addr
	for _, s := range in {
		if ip, err := netip.ParseAddr(s); err == nil {
			out = append(out, ip.Unmap().WithZone(""))
		}
	}
	return out
}

func texts(ips []netip.Addr) []string {
	var out []string
	for _, ip := range ips {
		out = append(out, ip.String())
	}
	return out
}
