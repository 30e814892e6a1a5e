package socket

import (
	"context"
	"sync"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

// How many questions a socket answers, as upstream has it: so many a second, and so many
// at once after a rest.
const (
	perSecond = 100
	burst     = 10
)

// errTooMany is upstream's answer, which clients know.
var errTooMany = status.Error(codes.ResourceExhausted, "rejected by rate limit")

// Limit refuses questions beyond 100 a second, 10 at once: whoever asks in a loop would
// take the agent's time from pods. Each call makes a limit of its own; those who watch
// are not bound by it.
func Limit() grpc.UnaryServerInterceptor {
	b := &bucket{}
	return func(ctx context.Context, req any, _ *grpc.UnaryServerInfo, handle grpc.UnaryHandler) (any, error) {
		if !b.take(time.Now()) {
			return nil, errTooMany
		}
		return handle(ctx, req)
	}
}

// bucket has a token for each question that may be asked now.
type bucket struct {
	mu sync.Mutex
	// full is when it has all its tokens again.
	full time.Time
}

// take reports whether there is a token, and takes it.
func (b *bucket) take(now time.Time) bool {
	const each = time.Second / perSecond
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.full.Before(now) {
		b.full = now
	}
	if b.full.Sub(now) > (burst-1)*each {
		return false
	}
	b.full = b.full.Add(each)
	return true
}
