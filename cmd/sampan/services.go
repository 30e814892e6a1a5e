package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"time"

	"golang.org/x/sync/errgroup"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/intstr"

	"github.com/sampan-dev/sampan/client"
	"github.com/sampan-dev/sampan/node/dns"
	"github.com/sampan-dev/sampan/node/peers"
	"github.com/sampan-dev/sampan/node/proxy"
	"github.com/sampan-dev/sampan/node/segment"
)

// healthWait bounds how long somebody may take to ask for the health of the proxy.
const healthWait = 5 * time.Second

// startServices starts the DNS server, the routes to other nodes and, once the node
// has a range for its pods, the service proxy.
func (c *cluster) startServices(ctx context.Context, g *errgroup.Group, p nodeParts) error {
	if c.segments == nil { // another engine's pods are known when they run
		c.segments = segment.New(segment.Config{Pods: []netip.Prefix{c.everywhere}, DNS: c.dns, Domain: c.Domain, Log: c.log})
	}
	names, err := dns.New(dns.Config{
		Transport: p.self, Neighbours: c.segments,
		Domain: c.Domain, Listen: []string{net.JoinHostPort(c.dns.String(), "53")},
		ResolvConf: "/etc/resolv.conf", Log: c.log,
	})
	if err != nil {
		return err
	}
	ways := peers.New(peers.Config{Transport: p.self, NodeName: c.NodeName, Log: c.log})
	g.Go(func() error { return names.Run(ctx) })
	g.Go(func() error { return c.segments.Run(ctx, p.self) })
	g.Go(func() error { return ways.Run(ctx) })
	g.Go(func() error { return c.proxy(ctx, p) })
	return nil
}

// proxy runs the service proxy.
func (c *cluster) proxy(ctx context.Context, p nodeParts) error {
	own := c.pods
	if c.given {
		var err error
		if own, err = c.ownRange(ctx, p.self); err != nil {
			return err
		}
	}
	services, err := proxy.New(proxy.Config{
		Transport: p.proxy, NodeName: c.NodeName, NodeIPs: []netip.Addr{c.address},
		PodCIDRs: []netip.Prefix{own}, Local: []netip.Addr{c.dns}, Loopback: true, Log: c.log,
	})
	if err != nil {
		return err
	}
	g, ctx := errgroup.WithContext(ctx)
	for _, address := range []string{fmt.Sprintf(":%d", proxy.HealthPort), fmt.Sprintf("127.0.0.1:%d", proxy.DebugPort)} {
		g.Go(func() error { return c.tellHealth(ctx, address, services.Handler()) })
	}
	g.Go(func() error { return services.Run(ctx) })
	return g.Wait()
}

// tellHealth serves what load balancers ask. Where the port is somebody else's, as
// that of another cluster on this machine, nobody can ask, and all else works.
func (c *cluster) tellHealth(ctx context.Context, address string, h http.Handler) error {
	l, err := (&net.ListenConfig{}).Listen(ctx, "tcp", address)
	if err != nil {
		c.log.Warn("load balancers cannot ask for the health of the service proxy", "error", err)
		return nil
	}
	s := &http.Server{Handler: h, ReadHeaderTimeout: healthWait, IdleTimeout: healthWait, MaxHeaderBytes: 1 << 13,
		ErrorLog: slog.NewLogLogger(c.log.Handler(), slog.LevelDebug)}
	defer context.AfterFunc(ctx, func() { _ = s.Close() })()
	if err := s.Serve(l); !errors.Is(err, http.ErrServerClosed) {
		return fmt.Errorf("serve the service proxy's health at %s: %w", address, err)
	}
	return nil
}

// announceDNS makes the Service by which people and programs know the DNS
// server's address. It has no endpoints: every node answers at the address itself.
func (c *cluster) announceDNS(ctx context.Context, admin client.Transport) error {
	port := func(name string, protocol corev1.Protocol) corev1.ServicePort {
		return corev1.ServicePort{Name: name, Protocol: protocol, Port: 53, TargetPort: intstr.FromInt32(53)}
	}
	_, err := client.Services.Get(ctx, admin, metav1.NamespaceSystem, "kube-dns")
	if !apierrors.IsNotFound(err) {
		return nil // it is there from an earlier start, or we are being stopped
	}
	_, err = client.Services.Create(ctx, admin, &corev1.Service{
		ObjectMeta: metav1.ObjectMeta{
			Namespace: metav1.NamespaceSystem, Name: "kube-dns",
			Labels: map[string]string{"k8s-app": "kube-dns", "kubernetes.io/cluster-service": "true"},
		},
		Spec: corev1.ServiceSpec{
			ClusterIP: c.dns.String(),
			Ports:     []corev1.ServicePort{port("dns", corev1.ProtocolUDP), port("dns-tcp", corev1.ProtocolTCP)},
		},
	})
	if err == nil || apierrors.IsAlreadyExists(err) || errors.Is(err, context.Canceled) {
		return nil
	}
	c.log.Error("the DNS server answers, but has no Service", "address", c.dns, "error", err)
	return nil
}
