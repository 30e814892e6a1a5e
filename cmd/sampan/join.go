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
	"sync/atomic"
	"time"

	"golang.org/x/sync/errgroup"
	certificatesv1 "k8s.io/api/certificates/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	utilnet "k8s.io/apimachinery/pkg/util/net"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/util/connrotation"

	"github.com/sampan-dev/sampan/cli"
	"github.com/sampan-dev/sampan/client"
	"github.com/sampan-dev/sampan/internal/atomicfile"
	"github.com/sampan-dev/sampan/internal/backoff"
	"github.com/sampan-dev/sampan/internal/identity"
	"github.com/sampan-dev/sampan/internal/pace"
	"github.com/sampan-dev/sampan/internal/pki"
	"github.com/sampan-dev/sampan/node/exchange"
)

// membership is what a node keeps of its joining, in the data directory.
type membership struct {
	// Server is HOST:PORT of the API server, Node the name that was joined under.
	Server, Node string
	// Authority is whom the server's certificate is by, as PEM.
	Authority []byte
}

// member is this machine as a node of a cluster whose API server is elsewhere.
type member struct {
	membership
	*cluster
	roots *x509.CertPool
	own   *pki.Holder
	self  client.Transport
	// reset ends all connections to the API server: new ones show a new certificate.
	reset func()
}

// join runs a node of another machine's cluster until ctx ends.
func join(ctx context.Context, o cli.JoinOptions, report cli.Report) error {
	defer pace.Keep()()
	m, err := enrol(ctx, o, report)
	if err != nil {
		return err
	}
	if err := m.learnFacts(ctx, m.self); err != nil {
		return err
	}
	if m.address, err = addressTowards(m.Server); err != nil {
		return err
	}
	report("cluster at " + m.Server)
	ctx, cancel := context.WithCancel(ctx)
	g, ctx := errgroup.WithContext(ctx)
	ctx = followClock(ctx, g, m.log)
	stop := func() {
		cancel()
		_ = g.Wait() // its error is returned by whoever leaves
	}
	defer stop()
	e := m.startEngine(ctx)
	if e.err != nil {
		return e.err
	}
	defer func() { _ = e.close() }()
	defer stop()
	report("container engine")
	serving := &lateCertificate{}
	g.Go(func() error { return m.own.Run(ctx, m.log, func(*tls.Certificate) { m.reset() }) })
	g.Go(func() error { return serving.run(ctx, m) })
	parts := nodeParts{engine: e, self: m.self, proxy: m.self, server: m.Server, certificate: serving.get, roots: m.roots,
		showing: m.own.GetClientCertificate, origin: exchange.Ask(m.Server, towards(m.roots, m.own.GetClientCertificate))}
	if err := m.startNode(ctx, g, parts); err != nil {
		return err
	}
	if err := m.awaitNode(ctx, m.self); err != nil {
		return err
	}
	report(cli.Ready)
	return g.Wait()
}

// enrol makes this machine a node: with a token the first time, from then on with
// the certificate that it got.
func enrol(ctx context.Context, o cli.JoinOptions, report cli.Report) (*member, error) {
	c, err := prepare(cli.UpOptions{
		Settings: o.Settings, NodeName: o.NodeName, ContainerRuntime: o.ContainerRuntime, RuntimeHandlers: o.RuntimeHandlers, SELinux: o.SELinux,
		KubeletConfig: o.KubeletConfig, KubeletConfigDir: o.KubeletConfigDir, Credentials: o.Credentials, Flags: o.Flags, Verbose: o.Verbose,
	}, report)
	if err != nil {
		return nil, err
	}
	c.given = true
	m := &member{cluster: c}
	dir := filepath.Join(o.DataDir, "pki", "node")
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("make directory: %w", err)
	}
	if err := m.remember(ctx, membershipFile(o.Settings), o); err != nil {
		return nil, err
	}
	m.roots = x509.NewCertPool()
	if !m.roots.AppendCertsFromPEM(m.Authority) {
		return nil, fmt.Errorf("the authority in %q is none; remove %q and join again", dir, dir)
	}
	own := &kept{path: filepath.Join(dir, "client.pem"), ask: func() (*tls.Certificate, error) { return m.askClient(ctx, o.Token) }}
	if o.Token != "" {
		own.unfit = ofFormer // the token gets another, which the old one may not
	}
	m.own, err = pki.NewHolder(own.issue, time.Now)
	if err != nil {
		return nil, err
	}
	m.own.Replace(ofFormer)
	if err := atomicfile.WriteJSON(membershipFile(o.Settings), m.membership); err != nil {
		return nil, fmt.Errorf("keep the membership: %w", err)
	}
	report("certificate of node " + c.NodeName)
	m.self, m.reset, err = m.dial()
	return m, err
}

func membershipFile(s cli.Settings) string {
	return filepath.Join(s.DataDir, "pki", "node", "membership.json")
}

// remember reads what an earlier join has kept, or finds out.
func (m *member) remember(ctx context.Context, path string, o cli.JoinOptions) error {
	err := atomicfile.ReadJSON(path, &m.membership)
	if err == nil {
		if o.Server != "" && o.Server != m.Server {
			return fmt.Errorf("this machine is a node of the cluster at %s: sampan down --purge lets it leave", m.Server)
		}
		if o.NodeName != "" && o.NodeName != m.Node {
			return fmt.Errorf("this machine has joined as node %q: sampan down --purge lets it leave", m.Node)
		}
		m.NodeName = m.Node
		return nil
	}
	if !errors.Is(err, os.ErrNotExist) {
		return err
	}
	if o.Server == "" || o.Token == "" || o.CAHash == "" {
		return errors.New("this machine has not joined yet: type what sampan token create prints on the server")
	}
	authority, err := authorityOf(ctx, o.Server, o.CAHash)
	if err != nil {
		return err
	}
	m.membership = membership{Server: o.Server, Node: m.NodeName, Authority: authority}
	return nil
}

// askClient asks for the node's certificate: as the node when it has one, as the
// bearer of the token when it does not.
func (m *member) askClient(ctx context.Context, token string) (*tls.Certificate, error) {
	ctx, cancel := context.WithTimeout(ctx, signedWithin)
	defer cancel()
	ask := request{transport: m.self, signer: certificatesv1.KubeAPIServerClientKubeletSignerName, usage: certificatesv1.UsageClientAuth, node: m.NodeName,
		groups: []string{identity.Nodes, identity.Agents}}
	if m.self == nil {
		if token == "" {
			return nil, errors.New("this node has no certificate that is still good: type what sampan token create prints on the server")
		}
		bearer, err := client.NewHTTP(&rest.Config{Host: "https://" + m.Server, BearerToken: token,
			TLSClientConfig: rest.TLSClientConfig{CAData: m.Authority}})
		if err != nil {
			return nil, err
		}
		ask.transport = bearer
	}
	leaf, err := ask.issue(ctx)
	if apierrors.IsUnauthorized(err) && m.self != nil {
		return nil, fmt.Errorf("the cluster does not take this node's certificate any more: stop the node, and type what sampan token create prints on the server: %w", err)
	}
	if apierrors.IsUnauthorized(err) {
		return nil, fmt.Errorf("the cluster does not know the token, or not any more: sampan token create on the server prints another: %w", err)
	}
	if errors.Is(err, context.DeadlineExceeded) {
		return nil, fmt.Errorf("nobody has signed this node's certificate within %v: sampan kubectl get csr on the server shows why", signedWithin)
	}
	return leaf, err
}

// dial connects as the node.
func (m *member) dial() (client.Transport, func(), error) {
	dialer := connrotation.NewDialer((&net.Dialer{Timeout: handshakeTimeout, KeepAlive: 30 * time.Second}).DialContext)
	over := utilnet.SetTransportDefaults(&http.Transport{
		DialContext: dialer.DialContext, TLSHandshakeTimeout: handshakeTimeout,
		TLSClientConfig: &tls.Config{MinVersion: tls.VersionTLS12, RootCAs: m.roots, GetClientCertificate: m.own.GetClientCertificate},
	})
	self, err := client.NewHTTP(&rest.Config{Host: "https://" + m.Server, Transport: over})
	return self, dialer.CloseAll, err
}

// lateCertificate is the certificate of the kubelet API, which is signed only once
// the API server knows where the node is.
type lateCertificate struct{ holder atomic.Pointer[pki.Holder] }

// get is for the tls.Config.
func (l *lateCertificate) get(hello *tls.ClientHelloInfo) (*tls.Certificate, error) {
	if h := l.holder.Load(); h != nil {
		return h.GetCertificate(hello)
	}
	return nil, errors.New("the certificate of the kubelet API is not signed yet")
}

// run obtains the certificate and keeps it fresh until ctx ends.
func (l *lateCertificate) run(ctx context.Context, m *member) error {
	first := &kept{path: filepath.Join(m.DataDir, "pki", "node", "serving.pem"), ask: func() (*tls.Certificate, error) {
		asking, cancel := context.WithTimeout(ctx, time.Hour) // a request is forgotten after a day
		defer cancel()
		return request{transport: m.self, signer: certificatesv1.KubeletServingSignerName, usage: certificatesv1.UsageServerAuth,
			node: m.NodeName, groups: []string{identity.Nodes}, dns: []string{m.NodeName}, ips: []net.IP{m.address.AsSlice()}}.issue(asking)
	}}
	retry := backoff.Policy{Min: time.Second, Max: time.Minute, Jitter: 0.5}
	for failures := 1; ; failures++ {
		h, err := pki.NewHolder(first.issue, time.Now)
		if err == nil {
			l.holder.Store(h)
			return h.Run(ctx, m.log, nil)
		}
		if ctx.Err() == nil {
			m.log.Warn("the kubelet API has no certificate: logs and exec of this node's pods don't work", "error", err)
		}
		select {
		case <-time.After(retry.After(failures)):
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}

// addressTowards is the address by which this machine reaches the server.
func addressTowards(server string) (netip.Addr, error) {
	conn, err := net.Dial("udp", server) // nothing is sent
	if err != nil {
		return netip.Addr{}, fmt.Errorf("no way to the server %s: %w", server, err)
	}
	defer conn.Close()
	at, err := netip.ParseAddrPort(conn.LocalAddr().String())
	if err != nil {
		return netip.Addr{}, err
	}
	return at.Addr().Unmap(), nil
}

// ownRange waits until the cluster has given the node a range for its pods.
func (c *cluster) ownRange(ctx context.Context, self client.Transport) (own netip.Prefix, err error) {
	err = await(ctx, client.Nodes, self, c.NodeName, func(n *corev1.Node) (bool, error) {
		if n.Spec.PodCIDR == "" {
			return false, nil
		}
		own, err = netip.ParsePrefix(n.Spec.PodCIDR)
		return err == nil, err
	})
	return own, err
}
