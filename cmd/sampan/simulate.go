package main

import (
	"context"
	"log/slog"
	"os"
	"time"

	"github.com/sampan-dev/sampan/cli"
	"github.com/sampan-dev/sampan/client"
	"github.com/sampan-dev/sampan/client/explain"
	"github.com/sampan-dev/sampan/control/fork"
	"github.com/sampan-dev/sampan/control/scheduler"
	kinds "github.com/sampan-dev/sampan/kinds/all"
)

// simulate answers a "what if" on a fork of the live cluster.
func simulate(ctx context.Context, q cli.Simulation) (*explain.Forecast, error) {
	log := slog.New(slog.DiscardHandler)
	if q.Log {
		log = slog.New(slog.NewTextHandler(os.Stderr, nil))
	}
	f, err := fork.Open(ctx, fork.Config{
		Live: q.Live, Kinds: kinds.Kinds(), Log: log,
		Scheduler: func(t client.Transport) (*scheduler.Scheduler, error) {
			return newScheduler(placing{Placing: q.Placing}, t, uint64(time.Now().UnixNano()), nil, log)
		},
	})
	if err != nil {
		return nil, err
	}
	defer f.Close()
	if q.Drain != "" {
		return f.Drain(ctx, q.Drain)
	}
	return f.Apply(ctx, q.Namespace, q.Objects)
}
