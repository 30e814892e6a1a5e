package clock

import (
	"context"
	"errors"
	"testing"
)

// Everybody who waits hears of a jump, once.
func TestTell(t *testing.T) {
	j := &Jumps{}
	ctx := With(t.Context(), j)
	a, b := From(ctx).Next(), From(ctx).Next()
	j.Tell()
	<-a
	<-b
	select {
	case <-From(ctx).Next():
		t.Error("a jump is told of twice")
	default:
	}
	if From(t.Context()).Next() != nil {
		t.Error("there are jumps where nobody follows the clock")
	}
}

// Following ends with its context. That the kernel tells of a clock that is set cannot be
// tried on a machine that others use.
func TestRun(t *testing.T) {
	ctx, cancel := context.WithCancelCause(t.Context())
	done := make(chan error)
	go func() { done <- (&Jumps{}).Run(ctx) }()
	end := errors.New("enough")
	cancel(end)
	if err := <-done; !errors.Is(err, end) {
		t.Error(err)
	}
}
