package main

import (
	"context"
	"log/slog"

	"golang.org/x/sync/errgroup"

	"github.com/sampan-dev/sampan/internal/clock"
)

// followClock has everybody who runs below the context that it returns told when the clock
// jumps. A kernel that does not tell is no reason not to start.
func followClock(ctx context.Context, g *errgroup.Group, log *slog.Logger) context.Context {
	jumps := &clock.Jumps{}
	g.Go(func() error {
		if err := jumps.Run(ctx); err != nil && ctx.Err() == nil {
			log.Warn("nobody hears when the clock is set: tokens and certificates may end before they are renewed", "err", err)
		}
		return nil
	})
	return clock.With(ctx, jumps)
}
