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
	"github.com/sampan-dev/sampan/control/controller/attachdetach"
	"github.com/sampan-dev/sampan/control/controller/bootstraptoken"
	"github.com/sampan-dev/sampan/control/controller/cronjob"
	"github.com/sampan-dev/sampan/control/controller/csrapproving"
	"github.com/sampan-dev/sampan/control/controller/csrcleaning"
	"github.com/sampan-dev/sampan/control/controller/csrsigning"
	"github.com/sampan-dev/sampan/control/controller/daemonset"
	"github.com/sampan-dev/sampan/control/controller/deployment"
	"github.com/sampan-dev/sampan/control/controller/devicetaint"
	"github.com/sampan-dev/sampan/control/controller/discard"
	"github.com/sampan-dev/sampan/control/controller/disruption"
	"github.com/sampan-dev/sampan/control/controller/endpoints"
	"github.com/sampan-dev/sampan/control/controller/endpointslice"
	"github.com/sampan-dev/sampan/control/controller/endpointslicemirroring"
	"github.com/sampan-dev/sampan/control/controller/ephemeralvolume"
	"github.com/sampan-dev/sampan/control/controller/expand"
	"github.com/sampan-dev/sampan/control/controller/gc"
	"github.com/sampan-dev/sampan/control/controller/giveup"
	"github.com/sampan-dev/sampan/control/controller/horizontalpodautoscaler"
	"github.com/sampan-dev/sampan/control/controller/job"
	"github.com/sampan-dev/sampan/control/controller/legacytoken"
	"github.com/sampan-dev/sampan/control/controller/loadbalancer"
	"github.com/sampan-dev/sampan/control/controller/localpath"
	"github.com/sampan-dev/sampan/control/controller/namespace"
	"github.com/sampan-dev/sampan/control/controller/node"
	"github.com/sampan-dev/sampan/control/controller/nodeipam"
	"github.com/sampan-dev/sampan/control/controller/nodettl"
	"github.com/sampan-dev/sampan/control/controller/podgc"
	"github.com/sampan-dev/sampan/control/controller/pvbinder"
	"github.com/sampan-dev/sampan/control/controller/pvcprotection"
	"github.com/sampan-dev/sampan/control/controller/pvprotection"
	"github.com/sampan-dev/sampan/control/controller/replicaset"
	"github.com/sampan-dev/sampan/control/controller/replicationcontroller"
	"github.com/sampan-dev/sampan/control/controller/resourceclaim"
	"github.com/sampan-dev/sampan/control/controller/resourcequota"
	"github.com/sampan-dev/sampan/control/controller/rootca"
	"github.com/sampan-dev/sampan/control/controller/served"
	"github.com/sampan-dev/sampan/control/controller/serviceaccount"
	"github.com/sampan-dev/sampan/control/controller/servicecidr"
	"github.com/sampan-dev/sampan/control/controller/statefulset"
	"github.com/sampan-dev/sampan/control/controller/storageversionmigrator"
	"github.com/sampan-dev/sampan/control/controller/taint"
	"github.com/sampan-dev/sampan/control/controller/tokensecret"
	"github.com/sampan-dev/sampan/control/controller/trustbundle"
	"github.com/sampan-dev/sampan/control/controller/ttlafterfinished"
	"github.com/sampan-dev/sampan/internal/pki"
	"github.com/sampan-dev/sampan/reconcile"
)

// Config of all controllers.
type Config struct {
	// Transport gives a component's own connection: see controller.Config.
	Transport func(component string) client.Transport
	// Kinds are the kinds that the API server serves, for the collector and the
	// end of namespaces.
	Kinds *controller.Kinds
	// RootCA is the certificate of the API server's authority as PEM, which
	// every namespace gets.
	RootCA []byte
	// Authority signs approved requests for certificates; nil signs none.
	Authority *pki.Authority
	// TokenKey signs the tokens in secrets of service accounts; nil signs none.
	TokenKey *pki.TokenKey
	// NodeRanges are shared out among nodes for their pods; without any, nodes have
	// what they bring themselves.
	NodeRanges nodeipam.Config
	// NoLoadBalancer leaves services of type LoadBalancer to somebody else.
	NoLoadBalancer bool
	// LocalPath makes volumes for claims, of directories on nodes.
	LocalPath bool
	// Log defaults to slog.Default().
	Log *slog.Logger
}

// Set is every controller with the mirrors they share.
type Set struct {
	Controllers []controller.Controller
	// components are, by controller, the names under which it asks for connections.
	components [][]string
	mirrors    *controller.Mirrors
	log        *slog.Logger
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
	if err := s.build(shared, cfg); err != nil {
		return nil, fmt.Errorf("make controllers: %w", err)
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

// build is the list.
func (s *Set) build(shared controller.Config, cfg Config) error {
	var asked []string
	shared.Transport = func(component string) client.Transport {
		asked = append(asked, component)
		return controller.Prudent(cfg.Transport(component))
	}
	var errs []error
	add := func(c controller.Controller, err error) {
		s.Controllers, errs = append(s.Controllers, c), append(errs, err)
		s.components, asked = append(s.components, asked), nil
	}
	add(as(deployment.New(shared)))
	add(as(replicaset.New(shared)))
	add(as(replicationcontroller.New(shared)))
	add(as(statefulset.New(shared)))
	add(as(daemonset.New(shared)))
	add(as(job.New(shared)))
	add(as(cronjob.New(shared)))
	add(as(ttlafterfinished.New(shared)))
	add(as(discard.New(shared)))
	add(as(giveup.New(shared)))
	add(as(horizontalpodautoscaler.New(shared, cfg.Kinds)))
	add(as(disruption.New(shared, cfg.Kinds)))
	add(as(disruption.NewCleaner(shared)))
	add(as(endpointslice.New(shared)))
	add(as(endpoints.New(shared)))
	add(as(endpointslicemirroring.New(shared)))
	add(as(serviceaccount.New(shared)))
	add(as(rootca.New(shared, cfg.RootCA)))
	add(as(served.New(shared, cfg.Kinds)))
	add(as(namespace.New(shared, cfg.Kinds)))
	add(as(resourcequota.New(shared, cfg.Kinds)))
	add(as(pvbinder.New(shared)))
	add(as(ephemeralvolume.New(shared)))
	if cfg.LocalPath {
		add(as(localpath.New(shared)))
	}
	add(as(resourceclaim.New(shared)))
	add(as(resourceclaim.NewReleaser(shared)))
	evictor, err := devicetaint.New(shared)
	add(as(evictor, err))
	add(as(devicetaint.NewTeller(shared, evictor)))
	add(as(attachdetach.New(shared)))
	add(as(expand.New(shared)))
	add(as(pvprotection.New(shared)))
	add(as(pvcprotection.New(shared)))
	add(as(servicecidr.New(shared)))
	add(as(node.New(shared)))
	add(as(nodettl.New(shared)))
	if len(cfg.NodeRanges.Clusters) > 0 {
		add(as(nodeipam.New(shared, cfg.NodeRanges)))
	}
	if !cfg.NoLoadBalancer {
		add(as(loadbalancer.New(shared)))
	}
	add(as(taint.New(shared)))
	add(as(podgc.New(shared)))
	add(as(gc.New(shared, cfg.Kinds)))
	add(as(storageversionmigrator.New(shared, cfg.Kinds)))
	add(as(csrapproving.New(shared, csrapproving.Checks{Client: csrsigning.CheckNodeClient, Serving: csrsigning.CheckNodeServing, Agent: csrsigning.OfAgent})))
	add(as(csrcleaning.New(shared)))
	add(as(csrcleaning.NewPods(shared)))
	add(as(trustbundle.New(shared, cfg.RootCA)))
	add(as(bootstraptoken.NewSigner(shared)))
	add(as(bootstraptoken.NewCleaner(shared)))
	if cfg.Authority != nil {
		add(as(csrsigning.New(shared, cfg.Authority)))
	}
	if cfg.TokenKey != nil {
		add(as(tokensecret.New(shared, cfg.TokenKey, cfg.RootCA)))
		add(as(legacytoken.New(shared)))
	}
	return errors.Join(errs...)
}

// as forgets which controller it is.
func as[C controller.Controller](c C, err error) (controller.Controller, error) { return c, err }

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
