package main

import (
	"context"
	"net/netip"

	"golang.org/x/sync/errgroup"

	"github.com/sampan-dev/sampan/internal/identity"
	"github.com/sampan-dev/sampan/node/proxy"
)

// startServices starts the service proxy and the DNS server.
func (c *cluster) startServices(ctx context.Context, g *errgroup.Group, p *controlPlane) error {
	services, err := proxy.New(proxy.Config{
		Transport: p.component(identity.Identity{Name: "system:kube-proxy", Groups: []string{identity.Authenticated}}),
		NodeName:  c.NodeName, NodeIPs: []netip.Addr{c.address},
		PodCIDRs: []netip.Prefix{c.pods}, Local: []netip.Addr{c.dns}, Log: c.log,
	})
	if err != nil {
		return err
	}
	g.Go(func() error { return services.Run(ctx) })
	return nil
}
