package main

import (
	"testing"

	"github.com/sampan-dev/sampan/control/controller/all"
	"github.com/sampan-dev/sampan/control/scheduler"
	"github.com/sampan-dev/sampan/node/agent"
	"github.com/sampan-dev/sampan/reconcile"
)

// owner is a declaration with its name.
type owner struct{ all.Declaration }

func (o owner) Name() string              { return o.Declaration.Name }
func (o owner) Writes() []reconcile.Write { return o.Declaration.Writes }

// No part of a kind has two owners, in the whole of the cluster.
func TestOwners(t *testing.T) {
	controllers, err := all.Declared()
	if err != nil {
		t.Fatal(err)
	}
	owners := []reconcile.Owner{scheduler.Declaration{}, agent.Declaration{}}
	for _, c := range controllers {
		owners = append(owners, owner{c})
	}
	if err := reconcile.CheckOwnership(owners...); err != nil {
		t.Error(err)
	}
}
