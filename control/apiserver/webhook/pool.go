package webhook

import (
	"bytes"
	"context"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"net"
	"net/http"
	"slices"
	"sync"
	"time"
)

const (
	// maxClients is how many webhooks are kept connected to; the one that has
	// not been called for longest makes room.
	maxClients = 128
	// maxIdle is how many connections to one webhook are kept.
	maxIdle = 8
	// idleWait is how long they are kept.
	idleWait = 90 * time.Second
	// dialWait bounds the making of a connection, handshake included, so that a
	// host which swallows packets is told apart from a slow webhook.
	dialWait = 10 * time.Second
)

// dialer makes a connection to a webhook of the cluster.
type dialer func(ctx context.Context, s Service) (net.Conn, error)

// key is what two configurations must share to share connections.
type key struct {
	service Service // without its path; zero: whatever the URL names
	roots   [sha256.Size]byte
}

// pool keeps a client for each webhook: its roots, its name and its connections.
type pool struct {
	dial dialer

	mu      sync.Mutex // guards what follows
	clients map[key]*http.Client
	used    []key // the least recently used first
}

func newPool(dial dialer) *pool {
	return &pool{dial: dial, clients: map[key]*http.Client{}}
}

func (p *pool) client(cfg ClientConfig) (*http.Client, error) {
	k := key{}
	roots := bytes.TrimSpace(cfg.CABundle)
	if len(roots) > 0 {
		k.roots = sha256.Sum256(roots)
	}
	if cfg.Service != nil {
		k.service = *cfg.Service
		k.service.Path, k.service.Port = "", cfg.Service.port()
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if c, ok := p.clients[k]; ok {
		p.touch(k)
		return c, nil
	}
	c, err := p.build(k, roots)
	if err != nil {
		return nil, err
	}
	if len(p.used) >= maxClients {
		p.clients[p.used[0]].CloseIdleConnections()
		delete(p.clients, p.used[0])
		p.used = slices.Delete(p.used, 0, 1)
	}
	p.clients[k] = c
	p.used = append(p.used, k)
	return c, nil
}

// touch makes k the most recently used. The caller holds mu.
func (p *pool) touch(k key) {
	if i := slices.Index(p.used, k); i >= 0 {
		p.used = append(slices.Delete(p.used, i, i+1), k)
	}
}

func (p *pool) build(k key, roots []byte) (*http.Client, error) {
	secure := &tls.Config{MinVersion: tls.VersionTLS12, NextProtos: []string{"http/1.1"}}
	if len(roots) > 0 {
		secure.RootCAs = x509.NewCertPool()
		if !secure.RootCAs.AppendCertsFromPEM(roots) {
			return nil, errors.New("unable to load root certificates: unable to parse bytes as PEM block")
		}
	}
	direct := &net.Dialer{Timeout: dialWait}
	dial := direct.DialContext
	if service := k.service; service.Name != "" {
		secure.ServerName = service.host()
		dial = func(ctx context.Context, _, _ string) (net.Conn, error) { return p.dial(ctx, service) }
	}
	return &http.Client{
		Transport: &http.Transport{
			DialContext:         dial,
			TLSClientConfig:     secure,
			TLSHandshakeTimeout: dialWait,
			MaxIdleConns:        maxIdle,
			MaxIdleConnsPerHost: maxIdle,
			IdleConnTimeout:     idleWait,
		},
		// A webhook cannot send the API server elsewhere.
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}, nil
}

func (p *pool) close() {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, c := range p.clients {
		c.CloseIdleConnections()
	}
}
