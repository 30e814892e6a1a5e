package remote

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"strings"
	"sync"
	"syscall"
	"time"
)

// errRefused is the kind of a way that we do not go.
var errRefused = errors.New("refused")

// errStalled: a server has stopped to send, or nearly.
var errStalled = errors.New("the server has stopped sending")

// host is one server that may answer for a registry: itself, or a mirror.
type host struct {
	// registry is whose content it has, as names have it ("docker.io").
	registry string
	// server is scheme, host and path below which /v2 is.
	server *url.URL
	// overridePath: the path is used as it is, without /v2.
	overridePath bool
	can          map[string]bool
	header       http.Header
	// mirror: the server is told whose content is meant.
	mirror bool
	// peer: it is asked for content once, without credentials, and next another is.
	peer bool
	// direct goes to the server, redirected elsewhere for it.
	direct, redirected http.RoundTripper
	// plain: after the first try, it turned out to speak HTTP alone.
	mu    sync.Mutex
	plain bool
	// mayBePlain: on this machine, plain HTTP is tried when HTTPS is not spoken.
	mayBePlain bool
}

// The capabilities of a host, in the words of hosts.toml.
const (
	canPull    = "pull"
	canResolve = "resolve"
	canPush    = "push"
)

// base is the address that API paths are appended to.
func (h *host) base() string {
	u := *h.server
	h.mu.Lock()
	if h.plain {
		u.Scheme = "http"
	}
	h.mu.Unlock()
	if !h.overridePath {
		u.Path = strings.TrimSuffix(u.Path, "/") + "/v2"
	}
	return strings.TrimSuffix(u.String(), "/")
}

// owns says whether an address is the server's own, which may see credentials.
func (h *host) owns(u *url.URL) bool { return u.Host == h.server.Host }

// local says whether the server is on this machine.
func local(hostport string) bool {
	name := hostport
	if host, _, err := net.SplitHostPort(hostport); err == nil {
		name = host
	}
	name = strings.Trim(name, "[]")
	if name == "localhost" || strings.HasSuffix(name, ".localhost") {
		return true
	}
	ip, err := netip.ParseAddr(name)
	return err == nil && ip.IsLoopback()
}

// round makes one request; a server on this machine that does not speak TLS gets
// it again in plain, and is remembered.
func (h *host) round(ctx context.Context, way http.RoundTripper, req *http.Request) (*http.Response, error) {
	if h.mirror && h.owns(req.URL) {
		q := req.URL.Query()
		q.Set("ns", h.registry)
		req.URL.RawQuery = q.Encode()
	}
	first, cancel := context.WithCancelCause(ctx)
	answer, err := h.watched(first, cancel, way, req)
	if err == nil || !h.mayBePlain || req.URL.Scheme != "https" || !h.owns(req.URL) || !notTLS(err) {
		return answer, err
	}
	again := req.Clone(ctx)
	again.URL.Scheme = "http"
	if req.GetBody != nil {
		if again.Body, err = req.GetBody(); err != nil {
			return nil, err
		}
	}
	second, cancel := context.WithCancelCause(ctx)
	if answer, err = h.watched(second, cancel, way, again); err == nil {
		h.mu.Lock()
		h.plain = true
		h.mu.Unlock()
	}
	return answer, err
}

// watched makes a request that ends when nothing comes any more.
func (h *host) watched(ctx context.Context, cancel context.CancelCauseFunc, way http.RoundTripper, req *http.Request) (*http.Response, error) {
	timer := time.AfterFunc(answerTimeout, func() { cancel(errStalled) })
	if req.ContentLength > 0 { // an upload is as slow as its line
		timer.Stop()
	}
	answer, err := way.RoundTrip(req.WithContext(ctx))
	if err != nil {
		timer.Stop()
		if cause := context.Cause(ctx); cause != nil {
			err = cause
		}
		cancel(nil)
		return nil, fmt.Errorf("%s %s: %w", req.Method, req.URL.Redacted(), err)
	}
	timer.Reset(stallTimeout)
	answer.Body = &watchedBody{body: answer.Body, ctx: ctx, cancel: cancel, timer: timer, since: time.Now()}
	return answer, nil
}

// watchedBody fails when it stalls or drips.
type watchedBody struct {
	body   io.ReadCloser
	ctx    context.Context //nolint:containedctx // it is the body's life
	cancel context.CancelCauseFunc
	timer  *time.Timer
	since  time.Time
	window int64
}

func (b *watchedBody) Read(p []byte) (int, error) {
	b.timer.Reset(stallTimeout)
	n, err := b.body.Read(p)
	b.timer.Stop() // the reader's own slowness is not the server's
	b.window += int64(n)
	if past := time.Since(b.since); past > rateWindow && err == nil {
		if b.window < minRate*int64(past/time.Second) {
			return n, fmt.Errorf("%d bytes in %s: %w", b.window, past.Round(time.Second), errStalled)
		}
		b.since, b.window = time.Now(), 0
	}
	if err != nil && !errors.Is(err, io.EOF) {
		if cause := context.Cause(b.ctx); cause != nil {
			err = cause
		}
	}
	return n, err
}

func (b *watchedBody) Close() error {
	b.timer.Stop()
	err := b.body.Close()
	b.cancel(nil)
	return err
}

// notTLS says whether a server answered in plain, or was not there for TLS.
func notTLS(err error) bool {
	var record tls.RecordHeaderError
	return errors.As(err, &record) || strings.Contains(err.Error(), "server gave HTTP response to HTTPS client")
}

// isNetwork says whether an error came from the way, not from the answer.
func isNetwork(err error) bool {
	var timeout net.Error
	var op *net.OpError
	return errors.As(err, &op) || errors.As(err, &timeout) && timeout.Timeout() ||
		errors.Is(err, io.EOF) || errors.Is(err, syscall.ECONNRESET) || strings.Contains(err.Error(), "http2: ")
}

// isDial says whether the server was not reached at all.
func isDial(err error) bool {
	var op *net.OpError
	return errors.As(err, &op) && op.Op == "dial"
}

// transports makes the ways of a host: to itself, and to where it sends us. The
// second never leads to this machine or its neighbourhood's metadata services,
// unless the server itself is here.
func transports(config *tls.Config, here bool) (direct, redirected *http.Transport) {
	make := func(control func(network, address string, _ syscall.RawConn) error) *http.Transport {
		dialer := &net.Dialer{Timeout: dialTimeout, KeepAlive: 30 * time.Second, Control: control}
		return &http.Transport{
			Proxy: http.ProxyFromEnvironment, DialContext: dialer.DialContext, ForceAttemptHTTP2: true,
			TLSClientConfig: config, TLSHandshakeTimeout: tlsTimeout, ResponseHeaderTimeout: answerTimeout,
			IdleConnTimeout: 15 * time.Second, MaxIdleConnsPerHost: 4, MaxResponseHeaderBytes: 64 << 10,
			DisableCompression: true,
		}
	}
	return make(nil), make(func(_, address string, _ syscall.RawConn) error { return elsewhere(address, here) })
}

// elsewhere refuses an address that a server must not send us to.
func elsewhere(address string, here bool) error {
	at, err := netip.ParseAddrPort(address)
	if err != nil {
		return fmt.Errorf("redirected to %q: %w", address, errRefused)
	}
	ip := at.Addr().Unmap().WithZone("")
	metadata := netip.MustParseAddr("fd00:ec2::254")
	if ip.IsLinkLocalUnicast() || ip.IsMulticast() || ip == metadata || !here && (ip.IsLoopback() || ip.IsUnspecified()) {
		return fmt.Errorf("redirected to %s, which a registry has no business with: %w", ip, errRefused)
	}
	return nil
}
