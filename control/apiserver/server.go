package apiserver

import (
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log"
	"log/slog"
	"net"
	"net/http"
	"slices"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"golang.org/x/sync/errgroup"
	flowcontrolv1 "k8s.io/api/flowcontrol/v1"

	"github.com/sampan-dev/sampan/control/apiserver/aggregate"
	"github.com/sampan-dev/sampan/control/apiserver/atrest"
	"github.com/sampan-dev/sampan/control/apiserver/authn"
	"github.com/sampan-dev/sampan/control/apiserver/authz"
	"github.com/sampan-dev/sampan/control/apiserver/authz/impersonate"
	"github.com/sampan-dev/sampan/control/apiserver/crd"
	"github.com/sampan-dev/sampan/control/apiserver/flow"
	"github.com/sampan-dev/sampan/control/apiserver/metricsapi"
	"github.com/sampan-dev/sampan/control/apiserver/openapi"
	"github.com/sampan-dev/sampan/control/apiserver/resource"
	"github.com/sampan-dev/sampan/control/apiserver/serviceip"
	"github.com/sampan-dev/sampan/control/apiserver/watchdog"
	"github.com/sampan-dev/sampan/control/apiserver/webhook"
	"github.com/sampan-dev/sampan/internal/gather"
	"github.com/sampan-dev/sampan/internal/identity"
	"github.com/sampan-dev/sampan/internal/pki"
)

// Limits of the listener; what a request may be is resource's to say.
const (
	maxHeader         = 1 << 20
	readHeaderTimeout = 32 * time.Second
	idleTimeout       = 90 * time.Second
	// shutdownWait is how long requests under way may take to finish.
	shutdownWait = 5 * time.Second
)

// self is the server as a user of its own API.
var self = identity.Identity{Name: "system:apiserver", Groups: []string{identity.Masters, identity.Authenticated}}

// kubeletClient is who the server is to nodes: not an administrator, for a node
// could lead the connection astray.
const kubeletClient = "kube-apiserver-kubelet-client"

// Server is one API server. All its methods may be called concurrently.
type Server struct {
	cfg       Config
	resources *resource.Server
	own       *resource.Local
	tokens    *authn.Tokens
	authn     *authn.Authenticator
	sources   *authn.Sources
	authz     *authz.Authorizer
	borrow    *impersonate.Gate
	mayConfig *authz.Settings
	defaults  *authz.Defaults
	policy    *policy
	addresses *serviceip.Allocator
	dynamic   *dynamic
	serving   *pki.Holder
	handshake atomic.Pointer[tls.Config] // another one when the Trust has changed
	kubelet   *pki.Holder
	audit     *auditLog
	metrics   *metrics
	order     *flow.Order
	rotation  *atrest.Rotation
	webhooks  *webhook.Caller
	crds      *crd.Definitions
	schemas   *openapi.Handler
	front     *pki.Holder
	remotes   *aggregate.Aggregator
	usage     *metricsapi.API
	handler   http.Handler
	ready     chan struct{}
	stopping  chan struct{}
	grace     time.Duration // shutdownWait, but in tests
}

// New checks cfg and puts the parts together; nothing runs yet, but Handler and
// Local may be given out.
func New(cfg Config) (*Server, error) {
	if err := cfg.complete(); err != nil {
		return nil, err
	}
	calls := timed(cfg.Store, cfg.Kinds)
	cfg.Store = calls
	s := &Server{cfg: cfg, ready: make(chan struct{}), stopping: make(chan struct{}), grace: shutdownWait, metrics: newMetrics()}
	s.metrics.registry.MustRegister(calls.seconds, calls.asked, calls.failed)
	var err error
	s.addresses, err = serviceip.New(serviceip.Config{Ranges: cfg.ServiceRanges, List: s.services,
		Objects: &ownReader{server: s}, Book: cfg.Store, Now: cfg.Now, Log: cfg.Log})
	if err != nil {
		return nil, fmt.Errorf("api server: %w", err)
	}
	if s.defaults, err = authz.Bootstrap(); err != nil {
		return nil, fmt.Errorf("api server: %w", err)
	}
	if err := s.certificates(); err != nil {
		return nil, err
	}
	if s.audit, err = openAudit(cfg.AuditPath, cfg.Log); err != nil {
		return nil, fmt.Errorf("api server: %w", err)
	}
	if err := s.audit.configure(cfg.AuditPolicy, cfg.AuditWebhook); err != nil {
		return nil, errors.Join(err, s.audit.close())
	}
	reader := &ownReader{server: s}
	s.policy = newPolicy(cfg.Log)
	if err := s.authorizer(reader); err != nil {
		return nil, err
	}
	s.tokens = authn.NewTokens(authn.TokensConfig{Issuer: cfg.issuer(), Longest: cfg.LongestToken, Sign: cfg.TokenKey, Objects: reader, Writer: reader, Notes: tokenNotes, Now: cfg.Now, Log: cfg.Log})
	if err := s.authenticator(reader); err != nil {
		return nil, err
	}
	s.custom(reader)
	s.dynamic = s.newDynamic(reader)
	if s.resources, err = resource.New(s.resourceConfig(reader)); err != nil {
		return nil, fmt.Errorf("api server: %w", err)
	}
	s.own = s.resources.Local(self, "sampan-apiserver")
	s.policy.objects = s.own
	s.remotes = s.newAggregator()
	s.order = flow.New(flow.Config{Asks: s.resources.Asks, Stored: s.resources.Stored, Now: cfg.Now, Log: cfg.Log})
	s.metrics.server = s
	s.metrics.registry.MustRegister(slices.Concat(cfg.Collectors, s.dynamic.metrics(), []prometheus.Collector{s.order, s.borrow, s.audit, s.authn, s.authz, s.sources.Reloads, s.remotes})...)
	s.rotation = s.newRotation()
	if s.handler, err = s.routes(); err != nil {
		return nil, fmt.Errorf("api server: %w", err)
	}
	return s, nil
}

// certificates issues what the server shows: to clients, and to nodes.
func (s *Server) certificates() error {
	names := append([]string{s.addresses.First().String()}, s.cfg.Names...)
	if a := s.cfg.Advertise.Addr(); a.IsValid() {
		names = append(names, a.String())
	}
	var err error
	if s.serving, err = s.cfg.Authority.Hold(pki.ServerLeaf(s.cfg.Domain, names)); err != nil {
		return fmt.Errorf("api server: %w", err)
	}
	s.kubelet, err = s.cfg.Authority.Hold(pki.Leaf{CommonName: kubeletClient, Client: true})
	if err != nil {
		return fmt.Errorf("api server: %w", err)
	}
	return s.certifyFront()
}

// Local is the transport of one component of the same process.
func (s *Server) Local(id identity.Identity) *resource.Local {
	return s.resources.Local(id, id.Name)
}

// Handler is the whole server as the listener has it: authentication, and all
// that follows. The caller's certificate is taken from the request's TLS state.
func (s *Server) Handler() http.Handler { return s.handler }

// Ready is closed once the objects that every cluster has exist and roles are
// known: from then on everybody is served.
func (s *Server) Ready() <-chan struct{} { return s.ready }

// Tokens issues and checks service-account tokens.
func (s *Server) Tokens() *authn.Tokens { return s.tokens }

// Run serves until ctx ends or a part fails; then it lets requests under way
// finish for a moment and frees everything.
func (s *Server) Run(ctx context.Context) error {
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error { return s.resources.Run(ctx) })
	g.Go(func() error { return s.serving.Run(ctx, s.cfg.Log, nil) })
	g.Go(func() error { return s.kubelet.Run(ctx, s.cfg.Log, nil) })
	g.Go(func() error { return s.front.Run(ctx, s.cfg.Log, nil) })
	g.Go(func() error { return s.aggregateOthers(ctx) })
	g.Go(func() error { return s.followSettings(ctx) })
	g.Go(func() error { return s.aggregateRoles(ctx) })
	g.Go(func() error { return s.dynamic.run(ctx) })
	g.Go(func() error { return s.checkTypes(ctx) })
	g.Go(func() error { return s.keepOrder(ctx) })
	g.Go(func() error { return s.keepSealed(ctx) })
	g.Go(func() error { return s.crds.Run(ctx, s.own, s.resources) })
	g.Go(func() error { return s.start(ctx, g) })
	if s.cfg.Listener != nil {
		g.Go(func() error { return s.listen(ctx) })
	}
	err := g.Wait()
	s.webhooks.Close()
	s.usage.Close()
	err = errors.Join(err, s.audit.close())
	if ctx.Err() != nil && errors.Is(err, context.Canceled) {
		return nil
	}
	return err
}

// keepOrder follows flow schemas and priority levels, where they are served.
func (s *Server) keepOrder(ctx context.Context) error {
	if !s.served(flowcontrolv1.SchemeGroupVersion.WithResource("flowschemas")) {
		return nil
	}
	return s.order.Run(ctx, flow.Objects{
		Producer: s.resources.Local(self, flow.ProducerAgent), Consumer: s.resources.Local(self, flow.ConsumerAgent)})
}

// start makes what must be there and opens the gate.
func (s *Server) start(ctx context.Context, g *errgroup.Group) error {
	if err := s.bootstrap(ctx); err != nil {
		return fmt.Errorf("api server: make the first objects: %w", err)
	}
	g.Go(func() error { return s.keepAddresses(ctx) })
	g.Go(func() error { return s.keepOwnService(ctx) })
	g.Go(func() error { return s.keepLease(ctx) })
	g.Go(func() error { return s.trackTokens(ctx) })
	// Only now: its first list then has the roles that every cluster starts with.
	g.Go(func() error { return s.policy.run(ctx) })
	select {
	case <-s.policy.synced:
	case <-ctx.Done():
		return context.Cause(ctx)
	}
	if err := s.customKnown(ctx); err != nil {
		return err
	}
	close(s.ready)
	s.cfg.Log.Info("api server is ready", "advertise", s.cfg.Advertise.String())
	return nil
}

// listen serves the listener until ctx ends.
func (s *Server) listen(ctx context.Context) error {
	srv := &http.Server{
		Handler:           s.handler,
		ReadHeaderTimeout: readHeaderTimeout,
		IdleTimeout:       idleTimeout,
		MaxHeaderBytes:    maxHeader,
		TLSConfig:         s.listenerTLS(),
		ErrorLog:          log.New(quiet{s.cfg.Log, s.metrics.handshakes}, "", 0),
		HTTP2:             &http.HTTP2Config{MaxConcurrentStreams: 250},
		BaseContext:       func(net.Listener) context.Context { return context.WithoutCancel(ctx) },
		ConnContext:       watchdog.Over,
	}
	stopped := make(chan struct{})
	go func() {
		defer close(stopped)
		<-ctx.Done()
		close(s.stopping)
		grace, cancel := context.WithTimeout(context.WithoutCancel(ctx), s.grace)
		defer cancel()
		if srv.Shutdown(grace) != nil {
			_ = srv.Close() // watches do not end by themselves
		}
	}()
	err := srv.Serve(tls.NewListener(gather.Listener{Listener: s.cfg.Listener}, srv.TLSConfig))
	if errors.Is(err, http.ErrServerClosed) {
		<-stopped
		return context.Cause(ctx)
	}
	return fmt.Errorf("api server: serve: %w", err)
}

// quiet turns the HTTP server's complaints about its clients into debug lines.
type quiet struct {
	log        *slog.Logger
	handshakes prometheus.Counter
}

func (q quiet) Write(line []byte) (int, error) {
	if bytes.Contains(line, []byte("TLS handshake error from")) {
		q.handshakes.Inc()
	}
	q.log.Debug("http", "message", string(line))
	return len(line), nil
}
