package main

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"net/netip"
	"os"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"

	"golang.org/x/sync/errgroup"
	corev1 "k8s.io/api/core/v1"

	"github.com/sampan-dev/sampan/cli"
	"github.com/sampan-dev/sampan/client"
	"github.com/sampan-dev/sampan/control/apiserver/authn"
	"github.com/sampan-dev/sampan/internal/identity"
	"github.com/sampan-dev/sampan/internal/pki"
	"github.com/sampan-dev/sampan/kinds/core"
	"github.com/sampan-dev/sampan/node/agent"
	"github.com/sampan-dev/sampan/node/cri"
	"github.com/sampan-dev/sampan/node/engine"
	"github.com/sampan-dev/sampan/node/exchange"
	"github.com/sampan-dev/sampan/node/image"
	"github.com/sampan-dev/sampan/node/network"
	"github.com/sampan-dev/sampan/node/segment"
)

// started is a container engine, or why there is none.
type started struct {
	cri.Engine
	err     error
	closers []func() error
	// images is our own engine's store, pulls tells of what comes into it.
	images *image.Store
	pulls  *pullTeller
}

func (s started) close() error {
	var err error
	for i := len(s.closers) - 1; i >= 0; i-- {
		err = errors.Join(err, s.closers[i]())
	}
	return err
}

// startEngine connects to another engine, or opens our own with what it is made of.
func (c *cluster) startEngine(ctx context.Context) started {
	if c.ContainerRuntime != "" {
		foreign, err := cri.Dial(ctx, c.ContainerRuntime)
		if err != nil {
			return started{err: err}
		}
		remove, err := network.Answer(loopbackRecord(c.Settings), c.ownAddresses())
		if err != nil {
			return started{err: errors.Join(err, foreign.Close())}
		}
		return started{Engine: foreign, closers: []func() error{foreign.Close, remove}}
	}
	if err := network.Unanswer(loopbackRecord(c.Settings)); err != nil { // of a node that had another engine
		return started{err: err}
	}
	parts, err := openParts(partsConfig{Settings: c.Settings, log: c.log, local: []netip.Addr{c.dns}, direct: []netip.Prefix{c.everywhere}, forwarding: true})
	if err != nil {
		return started{err: errors.Join(err, parts.close())}
	}
	c.segments = segment.New(segment.Config{Pods: []netip.Prefix{c.everywhere}, DNS: c.dns, Domain: c.Domain, Log: c.log})
	parts.cfg.Network = segmented{Network: parts.cfg.Network, segments: c.segments}
	pulls := &pullTeller{timeline: c.timeline}
	parts.cfg.OnPull, parts.cfg.Runtimes, parts.cfg.NoSELinux = pulls.begin, c.RuntimeHandlers, !c.SELinux
	own, err := engine.New(parts.cfg)
	if err != nil {
		return started{err: errors.Join(err, parts.close())}
	}
	return started{Engine: own, closers: append(parts.closers, own.Close), images: parts.cfg.Images, pulls: pulls}
}

// segmented has pods kept to their networks by name before anything runs in them.
type segmented struct {
	engine.Network
	segments *segment.Segments
}

// Attach connects a pod, and keeps it to its networks.
func (n segmented) Attach(ctx context.Context, a network.Attachment) (network.Result, error) {
	got, err := n.Network.Attach(ctx, a)
	if err != nil {
		return got, err
	}
	return got, n.segments.Attached(ctx, segment.Attachment{UID: a.PodUID, Namespace: a.PodNamespace, Name: a.PodName, Hostname: a.Hostname, Labels: a.Labels, IPs: got.IPs})
}

// Detach undoes that.
func (n segmented) Detach(ctx context.Context, a network.Attachment) error {
	err := n.Network.Detach(ctx, a)
	if err == nil {
		n.segments.Detached(a.PodUID)
	}
	return err
}

// loopbackRecord is the file that names the node's addresses on its loopback device.
func loopbackRecord(s cli.Settings) string { return filepath.Join(s.RunDir, "answers") }

// ownAddresses are those that the node has on the bridge of its pods, and that no other
// engine's network gives it: that of DNS, and on a machine without any network its own.
func (c *cluster) ownAddresses() []netip.Addr {
	all := []netip.Addr{c.dns}
	if c.address == gatewayOf(c.pods) {
		all = append(all, c.address)
	}
	return all
}

// nodeParts are what the node stands on, whether the control plane is in this
// process or elsewhere.
type nodeParts struct {
	engine started
	// self is the node's own connection to the API server, proxy the service proxy's.
	self, proxy client.Transport
	// certificate is what the kubelet API is served with, roots are the authorities
	// of those who show it a certificate; callers says who calls the registry,
	// which only a server has.
	roots       *x509.CertPool
	certificate func(*tls.ClientHelloInfo) (*tls.Certificate, error)
	callers     *authn.Authenticator
	// showing is the certificate towards other nodes, origin says which images are
	// the cluster's own.
	showing func(*tls.CertificateRequestInfo) (*tls.Certificate, error)
	origin  exchange.Origin
	// server is HOST:PORT of the API server.
	server string
}

// partsOf are the parts of a node beside its control plane.
func (c *cluster) partsOf(ctx context.Context, g *errgroup.Group, control *controlPlane, e started) (nodeParts, error) {
	serving, err := c.authority.Hold(pki.KubeletLeaf(c.NodeName, []string{"localhost", c.address.String(), "127.0.0.1"}))
	if err != nil {
		return nodeParts{}, err
	}
	g.Go(func() error { return serving.Run(ctx, c.log, nil) })
	own, err := c.authority.Hold(pki.NodeLeaf(c.NodeName))
	if err != nil {
		return nodeParts{}, err
	}
	g.Go(func() error { return own.Run(ctx, c.log, nil) })
	return nodeParts{
		engine: e, self: control.component(c.nodeUser()),
		proxy:       control.component(identity.Identity{Name: "system:kube-proxy", Groups: []string{identity.Authenticated}}),
		certificate: serving.GetCertificate,
		roots:       c.authority.Pool(),
		callers:     authn.New(authn.Config{ClientCAs: c.authority.Pool(), Tokens: control.server.Tokens()}),
		showing:     own.GetClientCertificate, origin: c.origin.find,
		server: netip.AddrPortFrom(c.address, uint16(c.Port)).String(),
	}, nil
}

// startNode starts the agent, the service proxy, the DNS server and the routes to
// other nodes.
func (c *cluster) startNode(ctx context.Context, g *errgroup.Group, p nodeParts) (err error) {
	cfg := podDirs(c.Settings)
	cfg.NodeName, cfg.NodeIPs, cfg.Transport, cfg.Engine = c.NodeName, []string{c.address.String()}, p.self, p.engine.Engine
	cfg.Server = p.server
	cfg.ClusterDNS, cfg.ClusterDomain = []string{c.dns.String()}, c.Domain
	if !c.given {
		cfg.PodCIDR = c.PodCIDR
	}
	cfg.TLS = &tls.Config{MinVersion: tls.VersionTLS12, GetCertificate: p.certificate, ClientAuth: tls.RequestClientCert, ClientCAs: p.roots}
	cfg.Sharing = c.share(p)
	cfg.ClientCAs, cfg.Ending = p.roots, powerless(ctx, g)
	cfg.Kubelet, cfg.TuneKernel, cfg.Endpoint = c.kubelet, c.tuneKernel, c.ContainerRuntime
	if cfg.Endpoint == "" {
		cfg.Endpoint = "unix://" + filepath.Join(c.RunDir, "cri.sock")
	}
	cfg.CredentialProviders, cfg.CredentialPrograms = c.Credentials.Config, c.Credentials.Programs
	cfg.PreparePod = preparePod
	cfg.Timeline, cfg.Log, cfg.Flags = c.timeline, c.log, c.Flags
	kubelet, err := agent.New(cfg)
	if err != nil {
		return err
	}
	g.Go(func() error { return kubelet.Run(ctx) })
	if c.ContainerRuntime == "" {
		g.Go(func() error { return cri.Serve(ctx, filepath.Join(c.RunDir, "cri.sock"), p.engine.Engine) })
	}
	return c.startServices(ctx, g, p)
}

// powerless closes when somebody tells that the machine goes down, by the signal
// that is for it: SIGPWR.
func powerless(ctx context.Context, g *errgroup.Group) <-chan struct{} {
	told, ending := make(chan os.Signal, 1), make(chan struct{})
	signal.Notify(told, syscall.SIGPWR)
	g.Go(func() error {
		defer signal.Stop(told)
		select {
		case <-told:
			close(ending)
		case <-ctx.Done():
		}
		return nil
	})
	return ending
}

// preparePod makes of a static pod's manifest what the API server would.
func preparePod(pod *corev1.Pod) error {
	rules := core.Pod().Strategy
	rules.Default(pod)
	return rules.Validate(pod).ToAggregate()
}

// nodeUser is this node as a user of the API.
func (c *cluster) nodeUser() identity.Identity {
	return identity.Identity{Name: identity.NodePrefix + c.NodeName, Groups: []string{identity.Nodes, identity.Agents, identity.Authenticated}}
}

// podDirs says where the agent keeps what belongs to pods.
func podDirs(s cli.Settings) agent.Config {
	return agent.Config{
		Root:        filepath.Join(s.DataDir, "pods"), // and logs beside it, unless podLogsDir says otherwise
		SeccompRoot: filepath.Join(s.DataDir, "seccomp"), CgroupRoot: strings.TrimPrefix(s.Cgroup(), "/"),
	}
}

// awaitNode returns once the node says that it is ready.
func (c *cluster) awaitNode(ctx context.Context, t client.Transport) error {
	err := await(ctx, client.Nodes, t, c.NodeName, func(n *corev1.Node) (bool, error) { return nodeReady(n), nil })
	if err == nil {
		c.report("node " + c.NodeName)
	}
	return err
}

func nodeReady(n *corev1.Node) bool {
	for _, c := range n.Status.Conditions {
		if c.Type == corev1.NodeReady {
			return c.Status == corev1.ConditionTrue
		}
	}
	return false
}
