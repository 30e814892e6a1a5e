// Package all is the list of the controllers that a control plane runs.
package all

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"

	"github.com/sampan-dev/sampan/client"
	"github.com/sampan-dev/sampan/control/controller"
	"github.com/sampan-dev/sampan/control/controller/deployment"
	"github.com/sampan-dev/sampan/control/controller/replicaset"
	"github.com/sampan-dev/sampan/reconcile"
)

// Config of all controllers.
type Config struct {
	// Transport gives a component's own connection: see controller.Config.
	Transport func(component string) client.Transport
	// Log defaults to slog.Default().
	Log *slog.Logger
}

// Set is every controller with the mirrors they share.
type Set struct {
	Controllers []controller.Controller
	mirrors     *controller.Mirrors
	log         *slog.Logger
}

// New makes all controllers. It fails when two of them claim to own the same
// part of a kind.
func New(cfg Config) (*Set, error) {
	if cfg.Transport == nil {
		return nil, errors.New("controllers: no transport")
	}
	if cfg.Log == nil {
		cfg.Log = slog.Default()
	}
	mirrors := controller.NewMirrors(cfg.Transport(""), cfg.Log)
	shared := controller.Config{Transport: cfg.Transport, Mirrors: mirrors, Log: cfg.Log}
	s := &Set{mirrors: mirrors, log: cfg.Log}
	for _, build := range []func() (controller.Controller, error){
		func() (controller.Controller, error) { return deployment.New(shared) },
		func() (controller.Controller, error) { return replicaset.New(shared) },
	} {
		made, err := build()
		if err != nil {
			return nil, fmt.Errorf("make controller: %w", err)
		}
		s.Controllers = append(s.Controllers, made)
	}
	owners := make([]reconcile.Owner, len(s.Controllers))
	for i, c := range s.Controllers {
		owners[i] = c
	}
	if err := reconcile.CheckOwnership(owners...); err != nil {
		return nil, fmt.Errorf("controllers: %w", err)
	}
	return s, nil
}

// Run runs them until ctx ends and all have returned.
func (s *Set) Run(ctx context.Context) error {
	var running sync.WaitGroup
	running.Go(func() { _ = s.mirrors.Run(ctx) }) // ends only with ctx
	for _, c := range s.Controllers {
		running.Go(func() {
			if err := c.Run(ctx); err != nil && ctx.Err() == nil {
				s.log.Error("controller ended", "controller", c.Name(), "err", err)
			}
		})
	}
	running.Wait()
	return context.Cause(ctx)
}

// Start makes all controllers and runs them until ctx ends.
func Start(ctx context.Context, cfg Config) error {
	s, err := New(cfg)
	if err != nil {
		return err
	}
	return s.Run(ctx)
}
