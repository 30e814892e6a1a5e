package main

import (
	"context"

	"golang.org/x/sync/errgroup"
)

// startServices starts the service proxy and the DNS server.
func (c *cluster) startServices(ctx context.Context, g *errgroup.Group, p *controlPlane) error {
	return nil
}
