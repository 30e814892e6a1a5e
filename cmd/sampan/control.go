package main

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"os"
	"path/filepath"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"golang.org/x/sync/errgroup"

	"github.com/sampan-dev/sampan/client"
	"github.com/sampan-dev/sampan/control/apiserver"
	"github.com/sampan-dev/sampan/control/apiserver/admit"
	"github.com/sampan-dev/sampan/control/apiserver/atrest"
	"github.com/sampan-dev/sampan/control/apiserver/authn"
	"github.com/sampan-dev/sampan/control/controller"
	"github.com/sampan-dev/sampan/control/controller/all"
	"github.com/sampan-dev/sampan/control/controller/measure"
	"github.com/sampan-dev/sampan/control/controller/nodeipam"
	"github.com/sampan-dev/sampan/control/scheduler"
	"github.com/sampan-dev/sampan/control/store"
	"github.com/sampan-dev/sampan/control/store/etcd"
	"github.com/sampan-dev/sampan/internal/identity"
	"github.com/sampan-dev/sampan/internal/pki"
	kinds "github.com/sampan-dev/sampan/kinds/all"
	"github.com/sampan-dev/sampan/reconcile"
)

// controlPlane is a running control plane.
type controlPlane struct {
	server *apiserver.Server
	queues *reconcile.Metrics // of the controllers
	counts *measure.Metrics   // of the controllers, too
	placed *scheduler.Metrics
	close  func()
}

// component is the in-process connection of a component with its own user.
func (p *controlPlane) component(id identity.Identity) client.Transport { return p.server.Local(id) }

// admin is the connection of the program itself, as the server's own user.
func (p *controlPlane) admin() client.Transport {
	return p.component(identity.Identity{Name: "system:apiserver", Groups: []string{identity.Masters, identity.Authenticated}})
}

// controller is the connection of a controller, with upstream's user for it.
func (p *controlPlane) controller(name string) client.Transport {
	if name == "" {
		return p.component(identity.Identity{Name: "system:kube-controller-manager", Groups: []string{identity.Authenticated}})
	}
	return p.component(identity.ServiceAccount("kube-system", name, ""))
}

// startControl starts store, API server, scheduler and controllers, in the order
// in which they need each other, and returns when the API is ready.
func (c *cluster) startControl(ctx context.Context, g *errgroup.Group, listener net.Listener) (*controlPlane, error) {
	objects, closeStore, err := c.openStore(ctx)
	if err != nil {
		listener.Close()
		return nil, err
	}
	c.report("store")
	how, err := c.placing()
	if err != nil {
		listener.Close()
		closeStore()
		return nil, err
	}
	records := &answers{timeline: c.timeline, placing: how}
	plane := &controlPlane{queues: reconcile.NewMetrics(), counts: measure.New(), placed: scheduler.NewMetrics(), close: closeStore}
	extra := c.extra(records)
	extra[scheduler.DemandPath] = plane.placed.Demand()
	server, err := c.newServer(ctx, objects, listener, extra, plane.queues, plane.counts, plane.placed)
	if err != nil {
		listener.Close()
		closeStore()
		return nil, err
	}
	g.Go(func() error { return server.Run(ctx) })
	plane.server = server
	select {
	case <-server.Ready():
	case <-ctx.Done():
		closeStore()
		return nil, errors.Join(g.Wait(), context.Cause(ctx))
	}
	if err := c.startDeciders(ctx, g, plane, records); err != nil {
		closeStore()
		return nil, err
	}
	c.report("API server on " + listener.Addr().String())
	return plane, nil
}

// startDeciders writes the way in, and starts the scheduler and the controllers.
func (c *cluster) startDeciders(ctx context.Context, g *errgroup.Group, plane *controlPlane, records *answers) error {
	if err := c.writeKubeconfig(ctx, g); err != nil {
		return err
	}
	tokens, err := pki.OpenTokenKey(filepath.Join(c.DataDir, "pki", "service-account.key"))
	if err != nil {
		return err
	}
	candidate, err := c.candidate()
	if err != nil {
		return err
	}
	g.Go(func() error {
		return c.lead(ctx, plane, "kube-scheduler", candidate, func(ctx context.Context) error {
			how := placing{Placing: records.placing, metrics: plane.placed}
			placing, err := newScheduler(how, plane.component(schedulerUser), uint64(time.Now().UnixNano()), c.timeline, c.log)
			if err != nil {
				return err
			}
			records.decisions.Store(placing.Records())
			return placing.Run(ctx)
		})
	})
	g.Go(func() error {
		return c.lead(ctx, plane, "kube-controller-manager", candidate, func(ctx context.Context) error {
			return all.Start(plane.counts.With(plane.queues.With(ctx)), all.Config{
				Transport: plane.controller, Kinds: controller.NewKinds(controller.Stored(kinds.With(c.FeatureGates))...), RootCA: c.authority.PEM(), Log: c.log,
				Authority: c.authority, TokenKey: tokens, NodeRanges: c.nodeRanges(), LocalPath: true,
			})
		})
	})
	return nil
}

// nodeRanges is how pod addresses are shared out among nodes.
func (c *cluster) nodeRanges() nodeipam.Config {
	ranges := nodeipam.Config{Clusters: []netip.Prefix{c.everywhere}, Reserved: []netip.Prefix{c.services}}
	if !c.given {
		ranges.Own = map[string]netip.Prefix{c.NodeName: c.pods}
	}
	return ranges
}

// newServer assembles the API server.
func (c *cluster) newServer(ctx context.Context, objects store.Store, l net.Listener, extra map[string]http.Handler, more ...prometheus.Collector) (*apiserver.Server, error) {
	tokens, err := pki.OpenTokenKey(filepath.Join(c.DataDir, "pki", "service-account.key"))
	if err != nil {
		return nil, err
	}
	ring, err := atrest.OpenRing(filepath.Join(c.DataDir, "pki", "secrets.keys"), filepath.Join(c.DataDir, "pki", "secrets.key"))
	if err != nil {
		return nil, err
	}
	var encryption *atrest.Keeper
	if c.EncryptionConfig != "" {
		if encryption, err = atrest.OpenKeeper(ctx, c.EncryptionConfig, c.log); err != nil {
			return nil, err
		}
	}
	trust, err := c.trust()
	if err != nil {
		return nil, err
	}
	front, err := pki.Open(filepath.Join(c.DataDir, "pki", "front-proxy"), time.Now)
	if err != nil {
		return nil, err
	}
	var components map[string]func(context.Context) error
	if len(c.EtcdServers) == 0 { // else whoever was elected has a lease
		components = c.lone.checks()
	}
	return apiserver.New(apiserver.Config{
		FrontProxy: front, Trust: trust, Components: components,
		Store: objects, Kinds: kinds.With(c.FeatureGates), Authority: c.authority, TokenKey: tokens, Listener: l,
		Advertise: netip.AddrPortFrom(c.address, uint16(c.Port)), Names: []string{c.NodeName, "127.0.0.1", "::1", c.pods.Masked().Addr().Next().String()},
		ServiceRanges: []netip.Prefix{c.services}, Domain: c.Domain,
		AuditPath: filepath.Join(c.DataDir, "audit.log"), AuditPolicy: c.AuditPolicy, AuditWebhook: c.AuditWebhook, Extra: extra, Collectors: more,
		Ring: ring, Encryption: encryption,
		LongestToken: c.Access.LongestToken, Authentication: c.authentication(), AuthorizationPath: c.Access.Authorization,
		Admission: admit.Switches{Enable: c.Access.Enable, Disable: c.Access.Disable}, AdmissionPath: c.Access.Admission,
		Timeline: c.timeline, Log: c.log, Flags: c.Flags,
	})
}

// trust is whose certificates count besides the cluster's own; nil is nobody's.
func (c *cluster) trust() (*apiserver.Trust, error) {
	a := c.Access
	if a.ClientCA == "" && a.RequestHeaderCA == "" && len(a.Shown) == 0 {
		return nil, nil //nolint:nilnil // there is nothing to follow
	}
	return apiserver.OpenTrust(apiserver.TrustFiles{
		ClientCA: a.ClientCA, RequestHeaderCA: a.RequestHeaderCA, RequestHeaderNames: a.RequestHeaderNames, Shown: a.Shown}, c.log)
}

// authentication is who else issues tokens.
func (c *cluster) authentication() authn.Settings {
	a := c.Access
	return authn.Settings{
		ConfigPath: a.Authentication, WebhookPath: a.TokenWebhook,
		OIDC: authn.OIDC{
			IssuerURL: a.OIDC.Issuer, ClientID: a.OIDC.Client, CAPath: a.OIDC.CAFile,
			UsernameClaim: a.OIDC.UsernameClaim, UsernamePrefix: a.OIDC.UsernamePrefix,
			GroupsClaim: a.OIDC.GroupsClaim, GroupsPrefix: a.OIDC.GroupsPrefix,
		},
	}
}

// openStore opens the external etcd, or starts the embedded one.
func (c *cluster) openStore(ctx context.Context) (store.Store, func(), error) {
	if len(c.EtcdServers) > 0 {
		secure, err := c.etcdTLS()
		if err != nil {
			return nil, nil, err
		}
		s, err := etcd.Open(etcd.Config{Endpoints: c.EtcdServers, TLS: secure, Log: c.log})
		if err != nil {
			return nil, nil, err
		}
		return s, func() { _ = s.Close() }, nil
	}
	s, err := etcd.Start(ctx, etcd.EmbedConfig{Dir: filepath.Join(c.DataDir, "etcd"), Log: c.log})
	if err != nil {
		return nil, nil, err
	}
	c.embedded = s
	return s.Store(), func() { _ = s.Close() }, nil
}

// etcdTLS reads the files for TLS with external members; nil when none are given.
func (c *cluster) etcdTLS() (*tls.Config, error) {
	if c.EtcdCA == "" && c.EtcdCert == "" {
		return nil, nil
	}
	cfg := &tls.Config{MinVersion: tls.VersionTLS12}
	if c.EtcdCA != "" {
		authority, err := os.ReadFile(c.EtcdCA)
		if err != nil {
			return nil, fmt.Errorf("--etcd-cafile: %w", err)
		}
		cfg.RootCAs = x509.NewCertPool()
		if !cfg.RootCAs.AppendCertsFromPEM(authority) {
			return nil, fmt.Errorf("--etcd-cafile %q holds no certificate", c.EtcdCA)
		}
	}
	if c.EtcdCert != "" {
		own, err := tls.LoadX509KeyPair(c.EtcdCert, c.EtcdKey)
		if err != nil {
			return nil, fmt.Errorf("--etcd-certfile and --etcd-keyfile: %w", err)
		}
		cfg.Certificates = []tls.Certificate{own}
	}
	return cfg, nil
}
