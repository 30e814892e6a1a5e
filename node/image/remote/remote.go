// Package remote speaks to registries: the OCI distribution specification with
// its tokens, through mirrors and certificates as containerd's hosts.toml names
// them, with credentials as Docker's config.json keeps them.
//
// Every request has limits: of time until it is answered, of time without a byte,
// of bytes, of redirects and of attempts. A registry's word is not believed: the
// callers verify digests, and neither a redirect nor a token's realm may lead to
// this machine or its metadata service unless the registry is there itself.
package remote

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"time"
)

// The kinds of failure. Match them with errors.Is.
var (
	// ErrNotFound: the registry has no such repository, manifest or blob.
	ErrNotFound = errors.New("not found")
	// ErrDenied: the registry refused the credentials, or wants some.
	ErrDenied = errors.New("access denied")
	// ErrInvalid: an answer or a configuration that makes no sense.
	ErrInvalid = errors.New("invalid")
	// ErrTooLarge: an answer beyond its limit.
	ErrTooLarge = errors.New("too large")
)

// Limits of one request.
const (
	// dialTimeout and tlsTimeout bound the way to a server: with maxDials, a dead
	// route is told in less than half a minute.
	dialTimeout = 8 * time.Second
	tlsTimeout  = 8 * time.Second
	// answerTimeout bounds the wait for an answer's header.
	answerTimeout = 30 * time.Second
	// stallTimeout bounds the time without a byte of a body, and minRate, in
	// bytes a second, what comes in a rateWindow.
	stallTimeout = 30 * time.Second
	rateWindow   = time.Minute
	minRate      = 512
	// maxAttempts bounds tries of a request that the server could not serve;
	// maxDials those that did not reach it.
	maxAttempts = 5
	maxDials    = 2
	// retryBase doubles from one attempt to the next; maxRetryAfter is the
	// longest pause that a server may ask for.
	retryBase     = 500 * time.Millisecond
	maxRetryAfter = 30 * time.Second
	// maxRedirects bounds a chain of redirects.
	maxRedirects = 5
	// maxErrorBody is how much of an error's text is read, and maxSmall of
	// anything that is no blob.
	maxErrorBody = 8 << 10
	maxSmall     = 4 << 20
)

// Credentials are a registry's; the zero value is an anonymous caller.
type Credentials struct {
	Username, Password string
	// IdentityToken is exchanged for an access token; RegistryToken is one.
	IdentityToken, RegistryToken string
}

// Config says how registries are reached.
type Config struct {
	// HostDirs hold a directory for each registry with its hosts.toml; a
	// registry's first one counts. nil means DefaultHostDirs.
	HostDirs []string
	// Credentials finds those for a host ("docker.io", "localhost:5000"); nil is
	// anonymous.
	Credentials func(host string) (Credentials, error)
	// Transport replaces the way to all servers, for tests; nil means the network.
	Transport http.RoundTripper
}

// DefaultHostDirs are where people put hosts.toml: ours first, then containerd's.
var DefaultHostDirs = []string{"/etc/sampan/certs.d", "/etc/containerd/certs.d"} //nolint:gochecknoglobals // a constant list

// Client talks to registries. It may be used concurrently.
type Client struct {
	cfg Config

	mu     sync.Mutex
	hosts  map[string][]*host
	tokens map[string]token

	near peers
}

// New makes a client; it costs nothing until it is used.
func New(cfg Config) *Client {
	if cfg.HostDirs == nil {
		cfg.HostDirs = DefaultHostDirs
	}
	return &Client{cfg: cfg, hosts: map[string][]*host{}, tokens: map[string]token{}}
}

// Repository is one repository of a registry, "docker.io" and "library/busybox".
type Repository struct {
	Registry, Name string
}

// String is the repository as people write it.
func (r Repository) String() string { return r.Registry + "/" + r.Name }

// request is one to be made, perhaps several times.
type request struct {
	method string
	// url is absolute; empty means path below the host's base.
	url, path string
	header    http.Header
	// body makes the body anew for each attempt; nil means none. size is its length.
	body func() (io.ReadCloser, error)
	size int64
	// scope is what a token must allow.
	scope string
	// want are the status codes of success.
	want []int
}

// answerError is what a registry said instead of yes.
type answerError struct {
	method, url string
	status      int
	text        string
	after       time.Duration
}

// Error names the request and the registry's words.
func (e *answerError) Error() string {
	text := http.StatusText(e.status)
	if e.text != "" {
		text = e.text
	}
	return fmt.Sprintf("%s %s: %d %s", e.method, e.url, e.status, text)
}

// Unwrap is the kind.
func (e *answerError) Unwrap() error {
	switch e.status {
	case http.StatusNotFound:
		return ErrNotFound
	case http.StatusUnauthorized, http.StatusForbidden:
		return ErrDenied
	case http.StatusRequestedRangeNotSatisfiable:
		return ErrInvalid
	}
	return nil
}

// Transient says whether trying again could help.
func Transient(err error) bool {
	if err == nil || errors.Is(err, context.Canceled) || errors.Is(err, errRefused) {
		return false
	}
	var answer *answerError
	if errors.As(err, &answer) {
		return answer.status == http.StatusTooManyRequests || answer.status == http.StatusRequestTimeout || answer.status >= 500
	}
	for _, kind := range []error{ErrNotFound, ErrDenied, ErrInvalid, ErrTooLarge} {
		if errors.Is(err, kind) {
			return false
		}
	}
	return errors.Is(err, io.ErrUnexpectedEOF) || errors.Is(err, errStalled) || isNetwork(err)
}

// do makes a request of a host until it is answered, and returns an answer that
// was wanted. The caller closes its body.
func (c *Client) do(ctx context.Context, h *host, r request) (*http.Response, error) {
	dials := 0
	for attempt := 1; ; attempt++ {
		answer, err := c.once(ctx, h, r)
		if err == nil {
			return answer, nil
		}
		if isDial(err) {
			dials++
		}
		if h.peer || !Transient(err) || attempt >= maxAttempts || dials >= maxDials {
			return nil, err
		}
		pause := retryBase << (attempt - 1)
		var refused *answerError
		if errors.As(err, &refused) && refused.after > 0 {
			pause = min(refused.after, maxRetryAfter)
		}
		select {
		case <-time.After(pause):
		case <-ctx.Done():
			return nil, context.Cause(ctx)
		}
	}
}

// once makes a request, with a token when the registry wants one.
func (c *Client) once(ctx context.Context, h *host, r request) (*http.Response, error) {
	auth, err := c.authorization(h, r.scope)
	if err != nil {
		return nil, err
	}
	answer, err := c.send(ctx, h, r, auth)
	if err != nil {
		return nil, err
	}
	if answer.StatusCode == http.StatusUnauthorized && !h.peer {
		challenge := answer.Header.Values("WWW-Authenticate")
		drop(answer)
		again, err := c.challenged(ctx, h, challenge, r.scope)
		if err != nil {
			return nil, err
		}
		if again == "" || again == auth {
			return nil, &answerError{method: r.method, url: answer.Request.URL.Redacted(), status: answer.StatusCode}
		}
		if answer, err = c.send(ctx, h, r, again); err != nil {
			return nil, err
		}
	}
	for _, code := range r.want {
		if answer.StatusCode == code {
			return answer, nil
		}
	}
	return nil, refusal(r.method, answer)
}

// refusal reads what a registry says.
func refusal(method string, answer *http.Response) error {
	defer answer.Body.Close()
	raw, _ := io.ReadAll(io.LimitReader(answer.Body, maxErrorBody)) // a text for a person, or none
	e := &answerError{method: method, url: answer.Request.URL.Redacted(), status: answer.StatusCode, text: errorText(raw)}
	if seconds, err := strconv.Atoi(answer.Header.Get("Retry-After")); err == nil && seconds > 0 {
		e.after = time.Duration(min(seconds, int(maxRetryAfter/time.Second))) * time.Second
	} else if at, err := http.ParseTime(answer.Header.Get("Retry-After")); err == nil {
		e.after = time.Until(at)
	}
	return e
}

// send makes one request and follows its redirects.
func (c *Client) send(ctx context.Context, h *host, r request, auth string) (*http.Response, error) {
	where := r.url
	if where == "" {
		where = h.base() + r.path
	}
	method := r.method
	way := h.direct
	for hop := 0; ; hop++ {
		req, err := http.NewRequestWithContext(ctx, method, where, nil)
		if err != nil {
			return nil, fmt.Errorf("%s %q: %w: %w", method, where, ErrInvalid, err)
		}
		for k, v := range r.header {
			req.Header[k] = v
		}
		req.Header.Set("User-Agent", "sampan")
		own := h.owns(req.URL)
		if own {
			for k, v := range h.header {
				req.Header[k] = v
			}
			if auth != "" {
				req.Header.Set("Authorization", auth)
			}
		}
		if r.body != nil {
			req.GetBody = r.body
			if req.Body, err = r.body(); err != nil {
				return nil, err
			}
			req.ContentLength = r.size
		}
		if !own {
			way = h.redirected
		}
		answer, err := h.round(ctx, way, req)
		if err != nil {
			return nil, err
		}
		next := answer.Header.Get("Location")
		if answer.StatusCode < 300 || answer.StatusCode >= 400 || answer.StatusCode == http.StatusNotModified || next == "" {
			return answer, nil
		}
		drop(answer)
		to, err := answer.Request.URL.Parse(next)
		if err != nil || hop >= maxRedirects {
			return nil, fmt.Errorf("%s %s: redirect %d to %q: %w", method, where, hop+1, next, ErrInvalid)
		}
		if to.Scheme != "https" && answer.Request.URL.Scheme == "https" {
			return nil, fmt.Errorf("%s %s: redirect to %q, which is not https: %w", method, where, to.Redacted(), errRefused)
		}
		where = to.String()
	}
}

// drop lets the connection be used again.
func drop(answer *http.Response) {
	_, _ = io.CopyN(io.Discard, answer.Body, maxErrorBody) // only to reuse the connection
	answer.Body.Close()
}

// path joins the parts of a repository's address.
func (r Repository) path(parts ...string) string {
	return "/" + r.Name + "/" + strings.Join(parts, "/")
}

// small reads an answer that is no blob.
func small(answer *http.Response) ([]byte, error) {
	defer answer.Body.Close()
	raw, err := io.ReadAll(io.LimitReader(answer.Body, maxSmall+1))
	if err == nil && len(raw) > maxSmall {
		err = fmt.Errorf("answer of more than %d bytes: %w", maxSmall, ErrTooLarge)
	}
	return raw, err
}
