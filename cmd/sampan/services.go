package main

import (
	"context"
	"errors"
	"net"
	"net/netip"

	"golang.org/x/sync/errgroup"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/intstr"

	"github.com/sampan-dev/sampan/client"
	"github.com/sampan-dev/sampan/internal/identity"
	"github.com/sampan-dev/sampan/node/dns"
	"github.com/sampan-dev/sampan/node/proxy"
)

// startServices starts the service proxy and the DNS server.
func (c *cluster) startServices(ctx context.Context, g *errgroup.Group, p *controlPlane) error {
	services, err := proxy.New(proxy.Config{
		Transport: p.component(identity.Identity{Name: "system:kube-proxy", Groups: []string{identity.Authenticated}}),
		NodeName:  c.NodeName, NodeIPs: []netip.Addr{c.address},
		PodCIDRs: []netip.Prefix{c.pods}, Local: []netip.Addr{c.dns}, Loopback: true, Log: c.log,
	})
	if err != nil {
		return err
	}
	names, err := dns.New(dns.Config{
		Transport: p.component(c.nodeUser()),
		Domain:    c.Domain, Listen: []string{net.JoinHostPort(c.dns.String(), "53")},
		ResolvConf: "/etc/resolv.conf", Log: c.log,
	})
	if err != nil {
		return err
	}
	g.Go(func() error { return services.Run(ctx) })
	g.Go(func() error { return names.Run(ctx) })
	g.Go(func() error { return c.announceDNS(ctx, p) })
	return nil
}

// announceDNS makes the Service by which people and programs know the DNS
// server's address. It has no endpoints: every node answers at the address itself.
func (c *cluster) announceDNS(ctx context.Context, p *controlPlane) error {
	admin := p.admin()
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
