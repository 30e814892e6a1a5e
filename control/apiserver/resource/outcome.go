package resource

import (
	"context"
	"errors"

	apierrors "k8s.io/apimachinery/pkg/api/errors"

	"github.com/sampan-dev/sampan/control/store"
)

type outcomeKey struct{}

// outcome is who wants to know how one attempt to write ends.
type outcome struct{ told []func(stored bool) }

// OnDone lets an admission rule, while it judges a write, ask how that write
// ends: f is called once, from the same goroutine, when it has been stored or has
// failed. A rule that has set something aside gives it back when stored is false.
// When nobody knows whether it was stored, stored is true. It reports whether
// anybody will call: not outside a write.
func OnDone(ctx context.Context, f func(stored bool)) bool {
	o, ok := ctx.Value(outcomeKey{}).(*outcome)
	if ok {
		o.told = append(o.told, f)
	}
	return ok
}

// withOutcome begins an attempt; done ends it.
func withOutcome(ctx context.Context) (_ context.Context, done func(err error)) {
	o := &outcome{}
	return context.WithValue(ctx, outcomeKey{}, o), func(err error) {
		stored := err == nil || doubtful(err)
		for _, f := range o.told {
			f(stored)
		}
	}
}

// doubtful says whether a write that failed may have happened all the same: the
// answer to it was not awaited, or got lost.
func doubtful(err error) bool {
	for _, sure := range []error{store.ErrExists, store.ErrConflict, store.ErrNotFound, store.ErrTooLarge, store.ErrFull, errAgain} {
		if errors.Is(err, sure) {
			return false
		}
	}
	var status apierrors.APIStatus
	return !errors.As(err, &status) || status.Status().Code >= 500
}
