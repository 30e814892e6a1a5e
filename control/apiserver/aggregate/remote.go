package aggregate

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"net/http"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	apidiscoveryv2 "k8s.io/api/apidiscovery/v2"
	"k8s.io/apimachinery/pkg/runtime/schema"
	apiregistrationv1 "k8s.io/kube-aggregator/pkg/apis/apiregistration/v1"

	"github.com/sampan-dev/sampan/kinds"
	"github.com/sampan-dev/sampan/kinds/apiregistration"
)

// Limits of the connections to one remote server.
const (
	maxIdle  = 25
	idleWait = 90 * time.Second
	dialWait = 10 * time.Second
)

// remote is one APIService that another server answers for.
type remote struct {
	owner *Aggregator
	gv    schema.GroupVersion
	// host is the name that the server's certificate must have.
	host string
	// plain speaks HTTP/1.1 only, for connections that change their protocol.
	transport, plain *http.Transport
	// inside answers in place of a server; nil: there is one.
	inside http.Handler
	// broken says why there is no transport: the caller is told.
	broken error
	wake   chan struct{} // look again
	stop   context.CancelFunc

	service atomic.Pointer[apiregistrationv1.APIService]

	mu     sync.Mutex // guards what follows
	shown  *apidiscoveryv2.APIVersionDiscovery
	stale  bool
	schema cachedSchema
}

func newRemote(owner *Aggregator, s *apiregistrationv1.APIService) *remote {
	r := &remote{owner: owner, gv: schema.GroupVersion{Group: s.Spec.Group, Version: s.Spec.Version},
		host: s.Spec.Service.Name + "." + s.Spec.Service.Namespace + ".svc", wake: make(chan struct{}, 1), stop: func() {}}
	r.service.Store(s)
	secure, err := r.tls(s)
	if err != nil {
		r.broken = err
		return r
	}
	dial := func(ctx context.Context, _, _ string) (net.Conn, error) {
		ctx, cancel := context.WithTimeout(ctx, dialWait)
		defer cancel()
		return owner.cfg.Dial(ctx, s.Spec.Service.Namespace, s.Spec.Service.Name, kinds.Deref(s.Spec.Service.Port))
	}
	r.transport = &http.Transport{DialContext: dial, TLSClientConfig: secure, ForceAttemptHTTP2: true, TLSHandshakeTimeout: dialWait,
		MaxIdleConnsPerHost: maxIdle, IdleConnTimeout: idleWait, DisableCompression: true}
	plain := secure.Clone()
	plain.NextProtos = []string{"http/1.1"}
	r.plain = &http.Transport{DialContext: dial, TLSClientConfig: plain, TLSHandshakeTimeout: dialWait,
		TLSNextProto: map[string]func(string, *tls.Conn) http.RoundTripper{}, IdleConnTimeout: idleWait, DisableCompression: true}
	return r
}

func (r *remote) tls(s *apiregistrationv1.APIService) (*tls.Config, error) {
	cfg := &tls.Config{MinVersion: tls.VersionTLS12, ServerName: r.host, GetClientCertificate: r.owner.cfg.Certificate,
		InsecureSkipVerify: s.Spec.InsecureSkipTLSVerify} //nolint:gosec // the administrator asked for it
	if len(s.Spec.CABundle) == 0 {
		return cfg, nil
	}
	cfg.RootCAs = x509.NewCertPool()
	if !cfg.RootCAs.AppendCertsFromPEM(s.Spec.CABundle) {
		return nil, errors.New("unable to load root certificates: unable to parse bytes as PEM block")
	}
	return cfg, nil
}

// same says whether s is reached as the remote is now.
func (r *remote) same(s *apiregistrationv1.APIService) bool {
	was, is := r.service.Load().Spec, s.Spec
	return kinds.Same(was.Service, is.Service) && bytes.Equal(was.CABundle, is.CABundle) && was.InsecureSkipTLSVerify == is.InsecureSkipTLSVerify &&
		was.Group == is.Group && was.Version == is.Version
}

// update takes over what changed elsewhere in the object.
func (r *remote) update(s *apiregistrationv1.APIService) { r.service.Store(s) }

// start looks after the remote until close, or until ctx ends.
func (r *remote) start(ctx context.Context) {
	ctx, r.stop = context.WithCancel(ctx)
	go r.look(ctx)
}

func (r *remote) close() {
	r.stop()
	if r.transport != nil {
		r.transport.CloseIdleConnections()
		r.plain.CloseIdleConnections()
	}
}

// again asks for another look, soon.
func (r *remote) again() {
	select {
	case r.wake <- struct{}{}:
	default:
	}
}

// available: the last look was good.
func (r *remote) available() bool {
	if r.inside != nil {
		return true
	}
	c := apiregistration.Available(r.service.Load())
	return c != nil && c.Status == apiregistrationv1.ConditionTrue
}

// url is a path of the remote server.
func (r *remote) url(path string) string {
	return fmt.Sprintf("https://%s%s", net.JoinHostPort(r.host, strconv.Itoa(int(kinds.Deref(r.service.Load().Spec.Service.Port)))), path)
}
