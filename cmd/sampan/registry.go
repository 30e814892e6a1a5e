package main

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"net/http"
	"time"

	"golang.org/x/sync/errgroup"
	authorizationv1 "k8s.io/api/authorization/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/sampan-dev/sampan/client"
	"github.com/sampan-dev/sampan/control/apiserver/authn"
	"github.com/sampan-dev/sampan/internal/identity"
	"github.com/sampan-dev/sampan/internal/pki"
	"github.com/sampan-dev/sampan/internal/target"
	"github.com/sampan-dev/sampan/node/image"
	"github.com/sampan-dev/sampan/node/registry"
)

// Limits of the registry's server.
const (
	registryHeaderTime = 10 * time.Second
	registryIdleTime   = 2 * time.Minute
	registryHeader     = 64 << 10
	registryDrain      = 5 * time.Second
)

// door is where the registry listens; this machine's own is plain, for nobody
// else can reach it, and the other wants TLS and a name.
type door struct {
	here, there net.Listener
	host, port  string
}

// openRegistry listens where --registry says; nil when there is to be none.
func (c *cluster) openRegistry() (*door, error) {
	if c.Registry == "" {
		return nil, nil
	}
	host, port, err := net.SplitHostPort(c.Registry)
	if err != nil || port == "" {
		return nil, fmt.Errorf("--registry %q: want ADDRESS:PORT", c.Registry)
	}
	if ip := net.ParseIP(host); host == "" || ip != nil && ip.IsUnspecified() {
		host = c.address.String()
	}
	d := &door{host: host, port: port}
	if d.here, err = net.Listen("tcp", net.JoinHostPort("127.0.0.1", port)); err == nil && !d.local() {
		d.there, err = net.Listen("tcp", net.JoinHostPort(host, port))
	}
	if err != nil {
		d.close()
		return nil, fmt.Errorf("registry: %w; if the port is in use, choose another with --registry=ADDRESS:PORT", err)
	}
	return d, nil
}

func (d *door) local() bool {
	ip := net.ParseIP(d.host)
	return d.host == "localhost" || ip != nil && ip.IsLoopback()
}

func (d *door) close() {
	for _, l := range []net.Listener{d.here, d.there} {
		if l != nil {
			l.Close()
		}
	}
}

// names are the registry's, the one for what is pushed first.
func (d *door) names(node string) []string {
	all := []string{net.JoinHostPort("localhost", d.port), net.JoinHostPort("127.0.0.1", d.port)}
	if !d.local() {
		all = append(all, net.JoinHostPort(d.host, d.port), net.JoinHostPort(node, d.port))
	}
	return all
}

// startRegistry serves the node's images as a registry.
func (c *cluster) startRegistry(ctx context.Context, g *errgroup.Group, d *door, p nodeParts) error {
	if d == nil {
		return nil
	}
	images, err := c.nodeImages(p)
	if err != nil {
		return err
	}
	own, err := registry.New(registry.Config{Images: images, Hosts: d.names(c.NodeName), Log: c.log})
	if err != nil {
		return err
	}
	g.Go(func() error {
		defer own.Close()
		return serveRegistry(ctx, d.here, own)
	})
	c.report("registry on localhost:" + d.port)
	if d.there == nil {
		return nil
	}
	return c.startRegistryThere(ctx, g, d, registry.Config{
		Images: images, Hosts: d.names(c.NodeName), Mirror: true, Log: c.log,
		Allow: mayUseRegistry(p.self, p.callers),
	})
}

// startRegistryThere serves other machines: with a certificate of the cluster's,
// and also what came from other registries, to those that ask for it by name.
func (c *cluster) startRegistryThere(ctx context.Context, g *errgroup.Group, d *door, cfg registry.Config) error {
	handler, err := registry.New(cfg)
	if err != nil {
		return err
	}
	serving, err := c.authority.Hold(pki.KubeletLeaf(c.NodeName, []string{c.address.String(), d.host}))
	if err != nil {
		return err
	}
	g.Go(func() error { return serving.Run(ctx, c.log, nil) })
	secure := tls.NewListener(d.there, &tls.Config{
		MinVersion: tls.VersionTLS12, GetCertificate: serving.GetCertificate, ClientAuth: tls.RequestClientCert,
	})
	g.Go(func() error {
		defer handler.Close()
		return serveRegistry(ctx, secure, handler)
	})
	return nil
}

// nodeImages is the image store of the node; one of its own beside another engine.
func (c *cluster) nodeImages(p nodeParts) (*image.Store, error) {
	if p.engine.images != nil {
		return p.engine.images, nil
	}
	return image.Open(image.Config{Root: c.ImageDir(), Log: c.log})
}

// serveRegistry serves until ctx ends, and lets what is under way finish.
func serveRegistry(ctx context.Context, l net.Listener, h http.Handler) error {
	server := &http.Server{
		Handler: h, ReadHeaderTimeout: registryHeaderTime, IdleTimeout: registryIdleTime, MaxHeaderBytes: registryHeader,
	}
	stopped := make(chan error, 1)
	stop := context.AfterFunc(ctx, func() {
		drain, cancel := context.WithTimeout(context.WithoutCancel(ctx), registryDrain)
		defer cancel()
		stopped <- errors.Join(server.Shutdown(drain), server.Close())
	})
	if err := server.Serve(l); stop() {
		return err
	}
	<-stopped // an upload that did not end in time is begun anew by its sender
	return nil
}

// mayUseRegistry lets administrators do everything, our nodes pull, and others what the
// cluster's rules say of the path /v2/: get to pull, put to push. Clients that
// know only passwords give a token as one.
func mayUseRegistry(t client.Transport, callers *authn.Authenticator) func(*http.Request, bool) bool {
	return func(r *http.Request, write bool) bool {
		if _, password, ok := r.BasicAuth(); ok {
			r = r.Clone(r.Context())
			r.Header.Set("Authorization", "Bearer "+password)
		}
		who, err := callers.Authenticate(r)
		if err != nil || !who.In(identity.Authenticated) {
			return false
		}
		if who.In(identity.Masters) || !write && who.In(identity.Agents) {
			return true
		}
		verb := "get"
		if write {
			verb = "put"
		}
		return mayCall(r.Context(), t, who, verb, r.URL.Path)
	}
}

// mayCall asks the API server whether somebody may call a path that is no resource's.
func mayCall(ctx context.Context, t client.Transport, who identity.Identity, verb, path string) bool {
	review := &authorizationv1.SubjectAccessReview{Spec: authorizationv1.SubjectAccessReviewSpec{
		User: who.Name, Groups: who.Groups, UID: who.UID,
		NonResourceAttributes: &authorizationv1.NonResourceAttributes{Path: path, Verb: verb},
	}}
	at := target.Of(authorizationv1.SchemeGroupVersion.WithResource("subjectaccessreviews"), "")
	answer, err := t.Create(ctx, at, review, metav1.CreateOptions{})
	verdict, ok := answer.(*authorizationv1.SubjectAccessReview)
	return err == nil && ok && verdict.Status.Allowed
}
