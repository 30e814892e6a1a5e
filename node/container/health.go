package container

import (
	"context"
	"fmt"

	"github.com/sampan-dev/sampan/node/container/plan"
)

// Check asks the keeper for a sign of life, and says what is wrong when none has
// come by the end of ctx. A keeper that has died is replaced without being asked
// for: then Check waits for its successor.
func (r *Runtime) Check(ctx context.Context) error {
	answered := make(chan error, 1)
	go func() { // a keeper that is being replaced holds requests up
		_, err := r.keeper.call(ctx, plan.Request{Op: plan.Hello})
		answered <- err
	}()
	select {
	case err := <-answered:
		if err != nil {
			return fmt.Errorf("keeper does not answer: %w", err)
		}
		return nil
	case <-ctx.Done():
		return fmt.Errorf("keeper does not answer: %w", context.Cause(ctx))
	}
}
