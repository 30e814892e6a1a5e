package fork

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/sampan-dev/sampan/client"
	"github.com/sampan-dev/sampan/control/apiserver"
	"github.com/sampan-dev/sampan/control/controller"
	"github.com/sampan-dev/sampan/control/controller/all"
	"github.com/sampan-dev/sampan/control/scheduler"
	"github.com/sampan-dev/sampan/control/store"
	"github.com/sampan-dev/sampan/control/store/memory"
	"github.com/sampan-dev/sampan/internal/identity"
	"github.com/sampan-dev/sampan/internal/pki"
	"github.com/sampan-dev/sampan/kinds"
)

// quiet is for how long nothing must have been written for a fork to have come
// to rest: longer than the scheduler's first back-off, during which it waits for
// what an eviction frees.
const quiet = 2500 * time.Millisecond

// absent are the controllers that a fork does without: they judge by the clock or
// by heartbeats, or do nothing that a forecast is about.
var absent = []string{
	"node", "cronjob", "ttlafterfinished", "horizontalpodautoscaler", "csrapproving", "csrsigning", "csrcleaning",
	"bootstrapsigner", "tokencleaner", "tokensecret", "trustbundle", "storageversionmigrator", "disruption-cleaner",
	"attachdetach",
}

// collector is the controller that must not act where owners may be missing.
const collector = "gc"

// Config of a fork.
type Config struct {
	// Live is the caller's connection to the live cluster; it is only read.
	Live client.Transport
	// Kinds is the table of what is served.
	Kinds []*kinds.Kind
	// Scheduler makes the scheduler as the live cluster has it.
	Scheduler func(t client.Transport) (*scheduler.Scheduler, error)
	// ServiceRanges hold the services' addresses; nil means the default.
	ServiceRanges []netip.Prefix
	// Log gets what goes wrong within; nil discards it.
	Log *slog.Logger
}

// Fork is a running copy of a cluster. Close it.
type Fork struct {
	cfg     Config
	dir     string
	objects store.Store
	server  *apiserver.Server
	admin   client.Transport
	placing *scheduler.Scheduler
	base    *copied
	written atomic.Int64 // when something was last written, as Unix nanoseconds
	stop    context.CancelFunc
	running sync.WaitGroup
}

// Open reads the live cluster and starts its copy.
func Open(ctx context.Context, cfg Config) (f *Fork, err error) {
	if cfg.Live == nil || cfg.Scheduler == nil || len(cfg.Kinds) == 0 {
		return nil, errors.New("fork: no live cluster, scheduler or kinds")
	}
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	f = &Fork{cfg: cfg, objects: memory.New(memory.Config{}), stop: func() {}}
	defer func() {
		if err != nil {
			f.Close()
			f = nil
		}
	}()
	if f.dir, err = os.MkdirTemp("", "sampan-fork"); err != nil {
		return nil, fmt.Errorf("fork: %w", err)
	}
	if f.base, err = read(ctx, cfg.Live, cfg.Kinds, f.objects); err != nil {
		return nil, fmt.Errorf("fork: %w", err)
	}
	inner, stop := context.WithCancel(context.WithoutCancel(ctx))
	f.stop = stop
	if err = f.serve(ctx, inner); err != nil {
		return nil, fmt.Errorf("fork: %w", err)
	}
	return f, nil
}

// serve starts the API server and, when it is ready, all who decide.
func (f *Fork) serve(ctx, inner context.Context) error {
	authority, err := pki.Open(filepath.Join(f.dir, "pki"), time.Now)
	if err != nil {
		return err
	}
	tokens, err := pki.OpenTokenKey(filepath.Join(f.dir, "tokens.key"))
	if err != nil {
		return err
	}
	f.server, err = apiserver.New(apiserver.Config{
		Store: f.objects, Kinds: f.cfg.Kinds, Authority: authority, TokenKey: tokens, ServiceRanges: f.cfg.ServiceRanges, Log: f.cfg.Log,
	})
	if err != nil {
		return err
	}
	f.admin = f.server.Local(identity.Identity{Name: "simulation", Groups: []string{identity.Masters, identity.Authenticated}})
	ended := make(chan error, 1)
	f.running.Go(func() { ended <- f.server.Run(inner) })
	select {
	case <-f.server.Ready():
	case err := <-ended:
		return errors.Join(errors.New("the API server has ended"), err)
	case <-ctx.Done():
		return context.Cause(ctx)
	}
	if err := f.listen(inner); err != nil {
		return err
	}
	if err := f.decide(inner, authority.PEM()); err != nil {
		return err
	}
	h := newHands(f.admin, f.base.pods, f.cfg.Log)
	f.running.Go(func() { h.run(inner) })
	return nil
}

// decide starts the scheduler and the controllers.
func (f *Fork) decide(ctx context.Context, rootCA []byte) (err error) {
	f.placing, err = f.cfg.Scheduler(f.server.Local(identity.Identity{Name: "system:kube-scheduler", Groups: []string{identity.Authenticated}}))
	if err != nil {
		return err
	}
	set, err := all.New(all.Config{Transport: f.component, Kinds: controller.NewKinds(controller.Stored(f.cfg.Kinds)...), RootCA: rootCA, LocalPath: true, Log: f.cfg.Log})
	if err != nil {
		return err
	}
	set.Controllers = slices.DeleteFunc(set.Controllers, func(c controller.Controller) bool {
		return slices.Contains(absent, c.Name()) || c.Name() == collector && len(f.base.unread) > 0
	})
	f.running.Go(func() { _ = f.placing.Run(ctx) })
	f.running.Go(func() { _ = set.Run(ctx) })
	return nil
}

func (f *Fork) component(name string) client.Transport {
	if name == "" {
		return f.server.Local(identity.Identity{Name: "system:kube-controller-manager", Groups: []string{identity.Authenticated}})
	}
	return f.server.Local(identity.ServiceAccount("kube-system", name, ""))
}

// listen notes when something is written that matters.
func (f *Fork) listen(ctx context.Context) error {
	now, err := f.objects.Revision(ctx)
	if err != nil {
		return err
	}
	w, err := f.objects.Watch(ctx, registry, now)
	if err != nil {
		return err
	}
	f.touch()
	f.running.Go(func() {
		defer w.Stop()
		for {
			events, err := w.Next(ctx)
			if err != nil {
				return
			}
			for _, e := range events {
				if e.Type != store.Progress && !strings.HasPrefix(e.Entry.Key, registry+"events/") && !strings.HasPrefix(e.Entry.Key, registry+"leases/") {
					f.touch()
				}
			}
		}
	})
	return nil
}

func (f *Fork) touch() { f.written.Store(time.Now().UnixNano()) }

// Settle waits until the fork has come to rest, and says whether it has before
// ctx ended.
func (f *Fork) Settle(ctx context.Context) bool {
	for {
		rest := quiet - time.Since(time.Unix(0, f.written.Load()))
		if rest <= 0 {
			return true
		}
		timer := time.NewTimer(rest)
		select {
		case <-timer.C:
		case <-ctx.Done():
			timer.Stop()
			return false
		}
	}
}

// Admin is an administrator's connection to the fork.
func (f *Fork) Admin() client.Transport { return f.admin }

// Close ends the fork and forgets it.
func (f *Fork) Close() {
	f.stop()
	f.running.Wait()
	_ = f.objects.Close()
	_ = os.RemoveAll(f.dir)
}
