// Package pause notes for how long a request has stood still for reasons that are
// not the server's own: in a queue, or at a server that users have named. What
// remains of its duration is what upstream's apiserver_request_sli_duration_seconds
// tells.
package pause

import (
	"context"
	"sync/atomic"
	"time"
)

// Clock adds up the pauses of one request. Safe for concurrent use.
type Clock struct{ nanos atomic.Int64 }

type key struct{}

// With returns a context in which Add adds to c.
func With(ctx context.Context, c *Clock) context.Context {
	return context.WithValue(ctx, key{}, c)
}

// Add notes a pause of the request that ctx belongs to, if it has a clock.
func Add(ctx context.Context, d time.Duration) {
	if c, ok := ctx.Value(key{}).(*Clock); ok {
		c.nanos.Add(int64(d))
	}
}

// Total is the sum of the pauses so far.
func (c *Clock) Total() time.Duration { return time.Duration(c.nanos.Load()) }
