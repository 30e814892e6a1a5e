package main

import (
	"fmt"
	"slices"

	"k8s.io/apimachinery/pkg/runtime/schema"

	"github.com/sampan-dev/sampan/cli"
	"github.com/sampan-dev/sampan/client"
	"github.com/sampan-dev/sampan/control/controller/all"
	"github.com/sampan-dev/sampan/control/scheduler"
	"github.com/sampan-dev/sampan/node/agent"
	"github.com/sampan-dev/sampan/reconcile"
)

// declared is what the scheduler and the agent say of themselves.
type declared interface {
	reconcile.Owner
	Reads() []schema.GroupVersionResource
}

// graph collects what every component declares.
func graph() ([]cli.Component, error) {
	controllers, err := all.Declared()
	if err != nil {
		return nil, fmt.Errorf("ask the controllers: %w", err)
	}
	var out []cli.Component
	for _, d := range []declared{scheduler.Declaration{}, agent.Declaration{}} {
		out = append(out, component(d.Name(), d.Reads(), d.Writes()))
	}
	services := []schema.GroupVersionResource{client.Services.GroupVersionResource, client.EndpointSlices.GroupVersionResource}
	out = append(out, component("proxy", services, nil), component("segment", services, nil), component("dns", append(services, client.Namespaces.GroupVersionResource), nil))
	for _, d := range controllers {
		c := component(d.Name, d.Reads, d.Writes)
		if d.ReadsAll {
			c.Reads = append(c.Reads, cli.AnyKind)
		}
		for _, part := range d.WritesAll {
			c.Writes = append(c.Writes, cli.Change{Kind: cli.AnyKind, Part: part})
		}
		out = append(out, c)
	}
	return out, nil
}

func component(name string, reads []schema.GroupVersionResource, writes []reconcile.Write) cli.Component {
	c := cli.Component{Name: name}
	for _, r := range reads {
		c.Reads = append(c.Reads, r.GroupResource().String())
	}
	slices.Sort(c.Reads)
	for _, w := range writes {
		c.Writes = append(c.Writes, cli.Change{Kind: w.Resource.GroupResource().String(), Part: w.Part})
	}
	return c
}
