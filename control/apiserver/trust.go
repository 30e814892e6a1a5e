package apiserver

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"slices"
	"strings"
	"sync/atomic"
	"time"

	"github.com/sampan-dev/sampan/control/apiserver/authn"
)

const (
	// trustEvery is how often the files of a Trust are looked at.
	trustEvery = 10 * time.Second
	// maxTrustFile bounds each of them, in bytes.
	maxTrustFile = 1 << 20
)

// TrustFiles name what a Trust reads; "" is nothing. They are upstream's flags
// --client-ca-file, --requestheader-client-ca-file with -allowed-names, and
// --tls-sni-cert-key; what the cluster has itself always counts, too.
type TrustFiles struct {
	ClientCA        string
	RequestHeaderCA string
	// RequestHeaderNames are the common names that a proxy of RequestHeaderCA may
	// have; any, if there are none.
	RequestHeaderNames []string
	// Shown are certificates for other names, as "certificate,key" or
	// "certificate,key:name,*.name", in PEM files.
	Shown []string
}

// Trust is what its files say, as they were read last. Safe for concurrent use.
type Trust struct {
	files TrustFiles
	log   *slog.Logger
	state atomic.Pointer[trustState]
}

type trustState struct {
	clientCA, proxyCA []byte
	raw               [][]byte // of all files, in order
	shown             []presented
}

// presented is a certificate for some names.
type presented struct {
	leaf  *tls.Certificate
	names []string // patterns; none: those of the certificate
}

// OpenTrust reads the files. What cannot be used is an error.
func OpenTrust(files TrustFiles, log *slog.Logger) (*Trust, error) {
	t := &Trust{files: files, log: log}
	state, err := t.read()
	if err != nil {
		return nil, fmt.Errorf("open trust: %w", err)
	}
	t.state.Store(state)
	return t, nil
}

func (t *Trust) read() (*trustState, error) {
	s := &trustState{}
	var err error
	if s.clientCA, err = s.authorities(t.files.ClientCA); err != nil {
		return nil, err
	}
	if s.proxyCA, err = s.authorities(t.files.RequestHeaderCA); err != nil {
		return nil, err
	}
	for _, given := range t.files.Shown {
		paths, patterns, _ := strings.Cut(given, ":")
		certPath, keyPath, ok := strings.Cut(paths, ",")
		if !ok || certPath == "" || keyPath == "" {
			return nil, fmt.Errorf("certificate %q: want certificate,key or certificate,key:names", given)
		}
		cert, err := s.file(certPath)
		if err != nil {
			return nil, err
		}
		key, err := s.file(keyPath)
		if err != nil {
			return nil, err
		}
		leaf, err := tls.X509KeyPair(cert, key)
		if err != nil {
			return nil, fmt.Errorf("certificate %q: %w", certPath, err)
		}
		one := presented{leaf: &leaf}
		if patterns != "" {
			one.names = strings.Split(strings.ToLower(patterns), ",")
		}
		s.shown = append(s.shown, one)
	}
	return s, nil
}

func (s *trustState) file(path string) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	raw, err := io.ReadAll(io.LimitReader(f, maxTrustFile+1))
	if err != nil {
		return nil, err
	}
	if len(raw) > maxTrustFile {
		return nil, fmt.Errorf("file %q has more than %d bytes", path, maxTrustFile)
	}
	s.raw = append(s.raw, raw)
	return raw, nil
}

func (s *trustState) authorities(path string) ([]byte, error) {
	if path == "" {
		return nil, nil
	}
	raw, err := s.file(path)
	if err != nil {
		return nil, err
	}
	if !x509.NewCertPool().AppendCertsFromPEM(raw) {
		return nil, fmt.Errorf("file %q has no certificate", path)
	}
	return raw, nil
}

// Reload looks at the files now, and says whether they are others. What cannot be
// used leaves what was read before in force.
func (t *Trust) Reload() (changed bool) {
	next, err := t.read()
	if err != nil {
		t.log.Error("reload certificates", "error", err)
		return false
	}
	if slices.EqualFunc(next.raw, t.state.Load().raw, bytes.Equal) {
		return false
	}
	t.state.Store(next)
	t.log.Info("reloaded certificates", "clientCA", t.files.ClientCA, "requestHeaderCA", t.files.RequestHeaderCA, "shown", t.files.Shown)
	return true
}

// clients are the authorities of clients as PEM, with the cluster's own.
func (t *Trust) clients(own []byte) []byte {
	if t == nil {
		return own
	}
	return slices.Concat(own, t.state.Load().clientCA)
}

// proxies are the authorities of front proxies.
func (t *Trust) proxies(own []byte) []byte {
	if t == nil {
		return own
	}
	return slices.Concat(own, t.state.Load().proxyCA)
}

// named is the first certificate for the name that a client asks for; nil if there is
// none, or if the client names none.
func (t *Trust) named(hello *tls.ClientHelloInfo) *tls.Certificate {
	name := strings.ToLower(strings.TrimSuffix(hello.ServerName, "."))
	if name == "" {
		return nil
	}
	for _, one := range t.state.Load().shown {
		if one.is(name) {
			return one.leaf
		}
	}
	return nil
}

func (o presented) is(name string) bool {
	if len(o.names) == 0 {
		return o.leaf.Leaf.VerifyHostname(name) == nil
	}
	_, domain, _ := strings.Cut(name, ".")
	return slices.Contains(o.names, name) || domain != "" && slices.Contains(o.names, "*."+domain)
}

// clientCAs are all whose client certificates count.
func (s *Server) clientCAs() *x509.CertPool {
	if s.cfg.Trust == nil {
		return s.cfg.Authority.Pool()
	}
	return pool(s.cfg.Trust.clients(s.cfg.Authority.PEM()))
}

// frontProxies are all who are believed what they say in headers.
func (s *Server) frontProxies() *authn.FrontProxy {
	own := []string{frontProxy}
	t := s.cfg.Trust
	if t == nil || t.files.RequestHeaderCA == "" {
		return &authn.FrontProxy{CAs: s.cfg.FrontProxy.Pool(), Names: own}
	}
	names := slices.Concat(own, t.files.RequestHeaderNames)
	if len(t.files.RequestHeaderNames) == 0 {
		names = nil
	}
	return &authn.FrontProxy{CAs: pool(t.proxies(s.cfg.FrontProxy.PEM())), Names: names}
}

// authorities are those of clients and of front proxies.
func (s *Server) authorities() *x509.CertPool {
	t := s.cfg.Trust
	return pool(slices.Concat(t.clients(s.cfg.Authority.PEM()), t.proxies(s.cfg.FrontProxy.PEM())))
}

// listenerTLS follows the Trust: each handshake has what its files say by then.
func (s *Server) listenerTLS() *tls.Config {
	if s.cfg.Trust == nil {
		return s.handshake.Load()
	}
	c := s.handshake.Load().Clone()
	c.GetConfigForClient = func(*tls.ClientHelloInfo) (*tls.Config, error) { return s.handshake.Load(), nil }
	return c
}

func pool(pem []byte) *x509.CertPool {
	p := x509.NewCertPool()
	p.AppendCertsFromPEM(pem) // read has seen that there are some
	return p
}

// followTrust takes over other certificates until ctx ends, and tells the servers of
// aggregated APIs of them.
func (s *Server) followTrust(ctx context.Context) error {
	tick := time.NewTicker(trustEvery)
	defer tick.Stop()
	for {
		select {
		case <-tick.C:
		case <-ctx.Done():
			return context.Cause(ctx)
		}
		if s.cfg.Trust.Reload() {
			s.trustAnew(ctx)
		}
	}
}

func (s *Server) trustAnew(ctx context.Context) {
	s.authn.Trust(s.clientCAs(), s.frontProxies())
	s.handshake.Store(serverTLS(s.serving, s.authorities()))
	if err := s.ensure(ctx, s.trust()); err != nil && !errors.Is(err, context.Canceled) {
		s.cfg.Log.Error("tell of other authorities", "error", err)
	}
}
