package main

import (
	"context"
	"errors"
	"sync"
)

// lone are the parts of the control plane that this process runs alone, without
// electing anybody: they hold no lease by which others could tell.
type lone struct{ running sync.Map }

// run notes that a part runs, for as long as it does.
func (p *lone) run(ctx context.Context, name string, run func(context.Context) error) error {
	p.running.Store(name, true)
	defer p.running.Delete(name)
	return run(ctx)
}

// checks are for ComponentStatuses.
func (p *lone) checks() map[string]func(context.Context) error {
	check := func(name string) func(context.Context) error {
		return func(context.Context) error {
			if _, runs := p.running.Load(name); !runs {
				return errors.New("not running")
			}
			return nil
		}
	}
	return map[string]func(context.Context) error{
		"scheduler": check("kube-scheduler"), "controller-manager": check("kube-controller-manager")}
}
