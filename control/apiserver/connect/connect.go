// Package connect carries connections from clients to what runs in the cluster:
// logs, exec, attach and port-forward to the node that has the pod, proxies to
// pods, services and nodes. A request arrives here authorised.
//
// Nodes are reached over TLS with the server's own client certificate; the
// node's certificate must be of the cluster's authority and name the node, so
// that an address which a node reports cannot lead anywhere else. Redirects are
// not followed.
//
// Facts: the kubelet's HTTPS API and the connect subresources of Kubernetes v1.37.
package connect

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"slices"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/util/proxy"
	"k8s.io/streaming/pkg/httpstream"

	"github.com/sampan-dev/sampan/control/apiserver/resource"
	"github.com/sampan-dev/sampan/internal/identity"
	"github.com/sampan-dev/sampan/internal/pki"
	"github.com/sampan-dev/sampan/internal/target"
)

// Limits of a connection's beginning.
const (
	dialTimeout     = 10 * time.Second
	tlsTimeout      = 10 * time.Second
	defaultNodePort = 10250
)

// Reader reads objects as the server itself.
type Reader interface {
	Get(ctx context.Context, t target.Target, opts metav1.GetOptions) (runtime.Object, error)
	List(ctx context.Context, t target.Target, opts metav1.ListOptions) (runtime.Object, error)
}

// Config is what a Connector needs.
type Config struct {
	Objects Reader
	// Client is the certificate shown to nodes, Roots whom it trusts in return.
	Client *pki.Holder
	Roots  *x509.CertPool
	// Fail writes an error as an API status, in the media type that r asks for.
	Fail func(w http.ResponseWriter, r *http.Request, err error)
}

// Connector is safe for concurrent use.
type Connector struct{ cfg Config }

// New returns a Connector.
func New(cfg Config) *Connector { return &Connector{cfg: cfg} }

// Handlers are the connections by "resource/subresource".
func (c *Connector) Handlers() map[string]http.Handler {
	return map[string]http.Handler{
		"pods/log":         c.handle(c.log),
		"pods/exec":        c.handle(c.exec),
		"pods/attach":      c.handle(c.attach),
		"pods/portforward": c.handle(c.portForward),
		"pods/proxy":       c.handle(c.podProxy),
		"services/proxy":   c.handle(c.serviceProxy),
		"nodes/proxy":      c.handle(c.nodeProxy),
	}
}

// call is one connection that is wanted.
type call struct {
	w   http.ResponseWriter
	r   *http.Request
	req *resource.Request
}

func (c *Connector) handle(serve func(call) error) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		req, ok := resource.RequestFrom(r.Context())
		if !ok {
			c.cfg.Fail(w, r, apierrors.NewInternalError(fmt.Errorf("connection to %q was not authorised", r.URL.Path)))
			return
		}
		if err := serve(call{w: w, r: r, req: req}); err != nil {
			c.cfg.Fail(w, r, err)
		}
	})
}

// Error answers for a proxy that could not reach the other side.
func (c *Connector) Error(w http.ResponseWriter, r *http.Request, err error) {
	if status, ok := err.(apierrors.APIStatus); ok && status.Status().Code != 0 {
		c.cfg.Fail(w, r, err)
		return
	}
	c.cfg.Fail(w, r, apierrors.NewInternalError(err))
}

// to hands the connection over to location.
func (c *Connector) to(k call, location *url.URL, transport http.RoundTripper, upgrade bool) {
	h := proxy.NewUpgradeAwareHandler(location, transport, !upgrade, upgrade, c)
	h.UseLocationHost = true
	h.RejectForwardingRedirects = true
	h.ServeHTTP(k.w, k.r)
}

// toNode hands the connection over to a node's location.
func (c *Connector) toNode(k call, location *url.URL, n node, upgrade bool) {
	if !upgrade && !httpstream.IsUpgradeRequest(k.r) {
		c.to(k, location, c.transport(n), false)
		return
	}
	inside, transport := c.inside(n, location)
	c.to(k, inside, transport, upgrade)
}

// inside is a node's location for the libraries that upgrade connections. They name
// protocols of their own in handshakes, so they are given a way that is encrypted already,
// with what transport insists on, and speak HTTP within.
func (c *Connector) inside(n node, location *url.URL) (*url.URL, *http.Transport) {
	secure := &tls.Dialer{NetDialer: &net.Dialer{Timeout: dialTimeout + tlsTimeout}, Config: c.transport(n).TLSClientConfig}
	inside := *location
	inside.Scheme = "http"
	return &inside, &http.Transport{DialContext: secure.DialContext, DisableKeepAlives: true, DisableCompression: true}
}

// node is where a node answers.
type node struct {
	name string
	addr string // host:port
	// translates: it serves clients' WebSockets itself (ExtendWebSocketsToKubelet, KEP-4006).
	translates bool
}

// find looks the node up.
func (c *Connector) find(ctx context.Context, name string) (node, error) {
	obj, err := c.cfg.Objects.Get(ctx, core("nodes", "", name), metav1.GetOptions{ResourceVersion: "0"})
	if err != nil {
		return node{}, err
	}
	n, ok := obj.(*corev1.Node)
	if !ok {
		return node{}, apierrors.NewInternalError(fmt.Errorf("node %q is a %T", name, obj))
	}
	translates := slices.Contains(n.Status.DeclaredFeatures, "ExtendWebSocketsToKubelet")
	port := int32(defaultNodePort)
	if p := n.Status.DaemonEndpoints.KubeletEndpoint.Port; p != 0 {
		port = p
	}
	for _, kind := range []corev1.NodeAddressType{corev1.NodeInternalIP, corev1.NodeExternalIP, corev1.NodeInternalDNS, corev1.NodeHostName} {
		for _, a := range n.Status.Addresses {
			if a.Type == kind && a.Address != "" {
				return node{name: name, addr: net.JoinHostPort(a.Address, fmt.Sprint(port)), translates: translates}, nil
			}
		}
	}
	return node{}, &apierrors.StatusError{ErrStatus: metav1.Status{Status: metav1.StatusFailure, Code: http.StatusInternalServerError,
		Message: fmt.Sprintf("no preferred addresses found; known addresses: %v", n.Status.Addresses)}}
}

// transport trusts only the node itself. It is made for one connection: a
// handshake costs about two milliseconds, and nothing is left behind.
func (c *Connector) transport(n node) *http.Transport {
	return &http.Transport{
		DialContext:         (&net.Dialer{Timeout: dialTimeout}).DialContext,
		TLSHandshakeTimeout: tlsTimeout,
		DisableKeepAlives:   true,
		DisableCompression:  true,
		TLSClientConfig: &tls.Config{
			MinVersion:           tls.VersionTLS12,
			NextProtos:           []string{"http/1.1", pki.Protocol},
			RootCAs:              c.cfg.Roots,
			GetClientCertificate: c.cfg.Client.GetClientCertificate,
			VerifyConnection: func(s tls.ConnectionState) error {
				if got := s.PeerCertificates[0].Subject.CommonName; got != identity.NodePrefix+n.name {
					return fmt.Errorf("certificate is for %q, not for node %q", got, n.name)
				}
				return nil
			},
		},
	}
}

func (n node) url(path string, query url.Values) *url.URL {
	return &url.URL{Scheme: "https", Host: n.addr, Path: path, RawQuery: query.Encode()}
}

func core(res, namespace, name string) target.Target {
	return target.Of(corev1.SchemeGroupVersion.WithResource(res), namespace).Object(name)
}
