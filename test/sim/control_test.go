// Package sim_test runs the real control plane over the store in memory and
// false time: the API server with authentication, authorisation, admission and
// validation, and what decides through it.
package sim_test

import (
	"context"
	"log/slog"
	"net/netip"
	"path/filepath"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/sampan-dev/sampan/client"
	"github.com/sampan-dev/sampan/control/apiserver"
	"github.com/sampan-dev/sampan/control/controller"
	controllers "github.com/sampan-dev/sampan/control/controller/all"
	"github.com/sampan-dev/sampan/control/controller/nodeipam"
	"github.com/sampan-dev/sampan/control/scheduler"
	"github.com/sampan-dev/sampan/control/store/memory"
	"github.com/sampan-dev/sampan/internal/identity"
	"github.com/sampan-dev/sampan/internal/pki"
	kindtable "github.com/sampan-dev/sampan/kinds/all"
)

// plane is a control plane in a bubble; admin may do everything.
type plane struct {
	*testing.T
	server  *apiserver.Server
	admin   client.Transport
	metrics *scheduler.Metrics // of schedule; may be nil
}

// start brings up an API server and all controllers; it returns when both are at
// rest.
func start(t *testing.T) *plane { return startWith(t, func(*apiserver.Config) {}) }

// startWith is start with an API server that is configured otherwise.
func startWith(t *testing.T, tune func(*apiserver.Config)) *plane {
	p := boot(t, tune)
	p.settle()
	return p
}

// boot brings up an API server and all controllers and returns when the server is
// ready. It needs no bubble. The controllers run in a context that has been through
// with.
func boot(t *testing.T, tune func(*apiserver.Config), with ...func(context.Context) context.Context) *plane {
	dir := t.TempDir()
	authority, err := pki.Open(filepath.Join(dir, "pki"), time.Now)
	if err != nil {
		t.Fatal(err)
	}
	tokens, err := pki.OpenTokenKey(filepath.Join(dir, "tokens.key"))
	if err != nil {
		t.Fatal(err)
	}
	objects := memory.New(memory.Config{})
	log := slog.New(slog.NewTextHandler(t.Output(), &slog.HandlerOptions{Level: slog.LevelWarn}))
	cfg := apiserver.Config{Store: objects, Kinds: kindtable.Kinds(), Authority: authority, TokenKey: tokens, Log: log}
	tune(&cfg)
	server, err := apiserver.New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	p := &plane{T: t, server: server}
	p.admin = server.Local(identity.Identity{Name: "admin", Groups: []string{identity.Masters, identity.Authenticated}})
	ctx, stop := context.WithCancel(context.Background())
	var running sync.WaitGroup
	t.Cleanup(func() {
		stop()
		running.Wait()
		_ = objects.Close()
	})
	running.Go(func() { _ = server.Run(ctx) })
	<-server.Ready()
	working := ctx
	for _, w := range with {
		working = w(working)
	}
	running.Go(func() {
		_ = controllers.Start(working, controllers.Config{
			Transport: p.component, Kinds: controller.NewKinds(stored()...), RootCA: authority.PEM(), Log: log,
			Authority: authority, TokenKey: tokens, NodeRanges: nodeipam.Config{Clusters: []netip.Prefix{netip.MustParsePrefix("10.42.0.0/16")}},
		})
	})
	return p
}

// component connects a controller as upstream's user for it.
func (p *plane) component(name string) client.Transport {
	if name == "" {
		return p.server.Local(identity.Identity{Name: "system:kube-controller-manager", Groups: []string{identity.Authenticated}})
	}
	return p.server.Local(identity.ServiceAccount("kube-system", name, ""))
}

// settle lets everything happen that takes no time, and retries.
func (p *plane) settle() {
	for range 3 {
		synctest.Wait()
		time.Sleep(time.Second)
	}
	synctest.Wait()
}

// stored are the kinds to look after, one version each.
func stored() []controller.Kind {
	var all []controller.Kind
	seen := map[string]bool{}
	for _, k := range kindtable.Kinds() {
		if k.Storage == "" || seen[k.Storage] {
			continue
		}
		seen[k.Storage] = true
		all = append(all, controller.Kind{GroupVersionResource: k.GVR(), Kind: k.GVK.Kind, Namespaced: k.Namespaced})
	}
	return all
}
