package webhook

import (
	"context"
	"net"
)

// Dial connects to one of the ready endpoints of a service's port: for those who
// speak to servers of the cluster in another way than by calling webhooks.
func (c *Caller) Dial(ctx context.Context, s Service) (net.Conn, error) { return c.dial(ctx, s) }
