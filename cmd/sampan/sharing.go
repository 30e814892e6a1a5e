package main

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"net/http"
	"sync/atomic"

	"github.com/sampan-dev/sampan/control/apiserver/authn"
	"github.com/sampan-dev/sampan/internal/identity"
	"github.com/sampan-dev/sampan/internal/pki"
	"github.com/sampan-dev/sampan/node/exchange"
	"github.com/sampan-dev/sampan/node/image"
	"github.com/sampan-dev/sampan/node/registry"
)

// lateOrigin tells nodes which images are the cluster's own, once this node's
// store is open.
type lateOrigin struct {
	at atomic.Pointer[registry.Origin]
}

// ServeHTTP is for the API server.
func (l *lateOrigin) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if o := l.at.Load(); o != nil {
		o.ServeHTTP(w, r)
		return
	}
	http.Error(w, "this server's images are not served", http.StatusServiceUnavailable)
}

// find is for this node itself, which has the content.
func (l *lateOrigin) find(_ context.Context, ref string) (named image.Named, err error) {
	if o := l.at.Load(); o != nil {
		_, named.Raw, _ = o.Find(ref)
	}
	return named, nil
}

// shareOrigin has the nodes find what is built, loaded or pushed here.
func (c *cluster) shareOrigin(e started, d *door) {
	if e.images == nil {
		return // another engine's images are not ours to give
	}
	o := &registry.Origin{Images: e.images, Node: c.NodeName}
	if d != nil {
		o.Hosts = d.names(c.NodeName)
	}
	c.origin.at.Store(o)
}

// share lets the node's store and those of other nodes give each other content;
// what it gives is for the kubelet API.
func (c *cluster) share(p nodeParts) http.Handler {
	if p.engine.images == nil {
		return nil
	}
	p.engine.images.Join(exchange.New(exchange.Config{
		Transport: p.self, NodeName: c.NodeName, TLS: towards(p.roots, p.showing), Origin: p.origin, Log: c.log,
	}))
	callers := authn.New(authn.Config{ClientCAs: p.roots, Anonymous: func(string) bool { return false }})
	return registry.NewSharing(p.engine.images, func(r *http.Request) bool {
		if r.Header.Get("Authorization") != "" {
			return false // nodes show certificates
		}
		who, err := callers.Authenticate(r)
		// One that an earlier version made does not say so: what the cluster allows decides.
		return err == nil && (who.In(identity.Agents) || who.In(identity.Nodes) && mayCall(r.Context(), p.self, who, "get", exchange.OriginPath))
	})
}

// towards is TLS with the other machines of the cluster, which this one shows a
// certificate.
func towards(roots *x509.CertPool, showing func(*tls.CertificateRequestInfo) (*tls.Certificate, error)) *tls.Config {
	return &tls.Config{MinVersion: tls.VersionTLS12, RootCAs: roots, GetClientCertificate: showing, NextProtos: []string{"http/1.1", pki.Protocol}}
}
