package socket

import (
	"context"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

// TestLimit: ten at once, then one every ten milliseconds, and never more than ten after
// a rest.
func TestLimit(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		limit := Limit()
		ask := func() int {
			for n := 0; ; n++ {
				_, err := limit(t.Context(), nil, nil, func(context.Context, any) (any, error) { return nil, nil })
				if err == nil {
					continue
				}
				if status.Code(err) != codes.ResourceExhausted || status.Convert(err).Message() != "rejected by rate limit" {
					t.Fatalf("refused with %v", err)
				}
				return n
			}
		}
		for _, c := range []struct {
			rest time.Duration
			want int
		}{{0, 10}, {0, 0}, {9 * time.Millisecond, 0}, {time.Millisecond, 1}, {50 * time.Millisecond, 5}, {time.Hour, 10}} {
			time.Sleep(c.rest)
			if got := ask(); got != c.want {
				t.Errorf("after %v: %d answers, want %d", c.rest, got, c.want)
			}
		}
	})
}
