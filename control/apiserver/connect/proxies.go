package connect

import (
	"context"
	"crypto/tls"
	"fmt"
	"math/rand/v2"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"strconv"
	"strings"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	utilnet "k8s.io/apimachinery/pkg/util/net"

	"github.com/sampan-dev/sampan/internal/target"
)

// podTransport reaches pods, which have no certificates that anybody here knows.
func podTransport() *http.Transport {
	return &http.Transport{
		DialContext:         dialProxyable,
		TLSHandshakeTimeout: tlsTimeout,
		DisableKeepAlives:   true,
		DisableCompression:  true,
		TLSClientConfig:     &tls.Config{InsecureSkipVerify: true}, //nolint:gosec // "https:pod" promises secrecy only, as upstream's proxy
	}
}

// dialProxyable connects only to addresses that can be a pod's: never to this
// machine itself or to its link (CVE-2020-8555 and its family).
func dialProxyable(ctx context.Context, network, addr string) (net.Conn, error) {
	at, err := netip.ParseAddrPort(addr)
	if err != nil {
		return nil, fmt.Errorf("dial %q: %w", addr, err)
	}
	if !proxyable(at.Addr()) {
		return nil, errNotAllowed
	}
	return (&net.Dialer{Timeout: dialTimeout}).DialContext(ctx, network, addr)
}

var errNotAllowed = apierrors.NewBadRequest("address not allowed")

func proxyable(ip netip.Addr) bool {
	ip = ip.Unmap()
	return !ip.IsLoopback() && !ip.IsLinkLocalUnicast() && !ip.IsMulticast() && !ip.IsUnspecified()
}

// location is where a proxy leads, with the rest of the client's path and query. Who
// reads without any path is sent to one that ends with a slash, so that the links of
// the page that he gets lead back through the proxy.
func location(k call, scheme, host string) *url.URL {
	if scheme == "" {
		scheme = "http"
	}
	return &url.URL{Scheme: scheme, Host: host, Path: k.req.Path, RawQuery: k.r.URL.RawQuery}
}

// split reads "[scheme:]name[:port]".
func split(k call) (scheme, name, port string, err error) {
	scheme, name, port, ok := utilnet.SplitSchemeNamePort(k.req.Target.Name)
	if !ok {
		return "", "", "", apierrors.NewBadRequest(fmt.Sprintf("invalid %s request %q", strings.TrimSuffix(k.req.Target.Resource.Resource, "s"), k.req.Target.Name))
	}
	return scheme, name, port, nil
}

func (c *Connector) podProxy(k call) error {
	scheme, name, port, err := split(k)
	if err != nil {
		return err
	}
	obj, err := c.cfg.Objects.Get(k.r.Context(), core("pods", k.req.Target.Namespace, name), metav1.GetOptions{})
	if err != nil {
		return err
	}
	pod, ok := obj.(*corev1.Pod)
	if !ok {
		return apierrors.NewInternalError(fmt.Errorf("pod %q is a %T", name, obj))
	}
	if ip, err := netip.ParseAddr(pod.Status.PodIP); err != nil || !proxyable(ip) {
		return errNotAllowed
	}
	if port == "" {
		port = firstPort(pod)
	}
	host := pod.Status.PodIP
	if port == "" {
		port = map[string]string{"https": "443"}[scheme]
	}
	if port == "" {
		port = "80"
	}
	c.to(k, location(k, scheme, net.JoinHostPort(host, port)), podTransport(), false)
	return nil
}

func firstPort(pod *corev1.Pod) string {
	for _, ctr := range pod.Spec.Containers {
		for _, p := range ctr.Ports {
			if p.ContainerPort > 0 {
				return strconv.Itoa(int(p.ContainerPort))
			}
		}
	}
	return ""
}

func (c *Connector) nodeProxy(k call) error {
	scheme, name, port, err := split(k)
	if err != nil {
		return err
	}
	n, err := c.find(k.r.Context(), name)
	if err != nil {
		return err
	}
	host, own, err := net.SplitHostPort(n.addr)
	if err != nil {
		return apierrors.NewInternalError(err)
	}
	if port == "" || port == own {
		c.toNode(k, location(k, "https", n.addr), n, false)
		return nil
	}
	c.to(k, location(k, scheme, net.JoinHostPort(host, port)), podTransport(), false)
	return nil
}

// serviceProxy leads to one of the service's ready endpoints, chosen at random.
func (c *Connector) serviceProxy(k call) error {
	scheme, name, port, err := split(k)
	if err != nil {
		return err
	}
	ctx, namespace := k.r.Context(), k.req.Target.Namespace
	obj, err := c.cfg.Objects.Get(ctx, core("services", namespace, name), metav1.GetOptions{})
	if err != nil {
		return err
	}
	svc, ok := obj.(*corev1.Service)
	if !ok {
		return apierrors.NewInternalError(fmt.Errorf("service %q is a %T", name, obj))
	}
	portName, ok := portOf(svc, port)
	if !ok {
		return apierrors.NewServiceUnavailable(fmt.Sprintf("no service port %q found for service %q", port, name))
	}
	hosts, err := c.endpoints(ctx, namespace, name, portName)
	if err != nil {
		return err
	}
	if len(hosts) == 0 {
		return apierrors.NewServiceUnavailable(fmt.Sprintf("no endpoints available for service %q", name))
	}
	c.to(k, location(k, scheme, hosts[rand.IntN(len(hosts))]), podTransport(), false) //nolint:gosec // any will do
	return nil
}

// portOf finds the service port that is meant, by name or number.
func portOf(svc *corev1.Service, asked string) (name string, ok bool) {
	if asked == "" && len(svc.Spec.Ports) == 1 {
		return svc.Spec.Ports[0].Name, true
	}
	for _, p := range svc.Spec.Ports {
		if p.Name == asked || strconv.Itoa(int(p.Port)) == asked {
			return p.Name, true
		}
	}
	return "", false
}

func (c *Connector) endpoints(ctx context.Context, namespace, service, port string) ([]string, error) {
	list, err := c.cfg.Objects.List(ctx, target.Of(discoveryv1.SchemeGroupVersion.WithResource("endpointslices"), namespace),
		metav1.ListOptions{LabelSelector: discoveryv1.LabelServiceName + "=" + service})
	if err != nil {
		return nil, err
	}
	var hosts []string
	err = meta.EachListItem(list, func(obj runtime.Object) error {
		if slice, ok := obj.(*discoveryv1.EndpointSlice); ok {
			hosts = append(hosts, hostsIn(slice, port)...)
		}
		return nil
	})
	return hosts, err
}

func hostsIn(slice *discoveryv1.EndpointSlice, port string) (hosts []string) {
	for _, p := range slice.Ports {
		if p.Port == nil || p.Name != nil && *p.Name != port || p.Name == nil && port != "" {
			continue
		}
		for _, e := range slice.Endpoints {
			if e.Conditions.Ready != nil && !*e.Conditions.Ready || len(e.Addresses) == 0 {
				continue
			}
			hosts = append(hosts, net.JoinHostPort(e.Addresses[0], strconv.Itoa(int(*p.Port))))
		}
	}
	return hosts
}
