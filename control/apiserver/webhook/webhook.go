// Package webhook calls other people's HTTPS servers on the API server's behalf:
// admission and conversion webhooks share it. A webhook is named by a URL or by a
// service; a service is resolved when a connection is made, from its
// EndpointSlices, and one of its ready endpoints is dialled directly, so that the
// call needs no service proxy on this machine.
//
// Nothing here retries, waits or remembers failures: a webhook that is down costs
// its own callers their timeout, and nobody else anything.
//
// Facts: k8s.io/api/admissionregistration/v1 WebhookClientConfig, and what
// upstream's webhook client does with one.
package webhook

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"path"
	"strconv"
	"strings"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"

	"github.com/sampan-dev/sampan/internal/target"
)

// Limits of one call.
const (
	// DefaultTimeout ends a call whose context has no deadline of its own:
	// upstream's for webhooks that name none is 30 s for conversion.
	DefaultTimeout = 30 * time.Second
	// MaxResponse bounds what a webhook may answer, in bytes. A converted list
	// of objects is the largest answer there is.
	MaxResponse = 32 << 20
	// maxRefusal bounds how much of a refusal's text is shown to the caller.
	maxRefusal = 2 << 10
	// defaultPort is a service's port when the configuration names none.
	defaultPort = 443
)

// agent is who calls.
const agent = "kube-apiserver-admission"

// Reader reads Services and EndpointSlices as the API server itself.
type Reader interface {
	Get(ctx context.Context, t target.Target, opts metav1.GetOptions) (runtime.Object, error)
	List(ctx context.Context, t target.Target, opts metav1.ListOptions) (runtime.Object, error)
}

// Service names a webhook inside the cluster.
type Service struct {
	Namespace, Name string
	// Path is the URL's path, "" for "/".
	Path string
	// Port is the service's port; 0 means 443.
	Port int32
}

// ClientConfig says where a webhook is. Exactly one of URL and Service is set.
type ClientConfig struct {
	// URL is "https://host[:port]/path".
	URL     string
	Service *Service
	// CABundle are the PEM roots that the webhook's certificate must lead to;
	// empty (or blank) means the system's.
	CABundle []byte
	// TellTimeout adds to the URL's query how long the webhook has
	// ("?timeout=10s", rounded up), as upstream tells admission webhooks.
	TellTimeout bool
}

// Caller calls webhooks. All methods may be called concurrently.
type Caller struct {
	objects Reader
	pool    *pool
}

// New returns a Caller that resolves services through objects, and dials nobody
// before the first call.
func New(objects Reader) *Caller {
	c := &Caller{objects: objects}
	c.pool = newPool(c.dial)
	return c
}

// Close ends idle connections. Calls under way finish.
func (c *Caller) Close() { c.pool.close() }

// Call posts request as JSON and decodes the answer into response. It ends with
// ctx, at the latest after DefaultTimeout when ctx has no deadline. An answer that
// is not 2xx is an API status error with the webhook's code; one that cannot be
// read or is no JSON is an error too.
func (c *Caller) Call(ctx context.Context, cfg ClientConfig, request, response any) error {
	if _, ok := ctx.Deadline(); !ok {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, DefaultTimeout)
		defer cancel()
	}
	at, err := cfg.address()
	if err != nil {
		return err
	}
	if cfg.TellTimeout {
		tell(ctx, at)
	}
	client, err := c.pool.client(cfg)
	if err != nil {
		return err
	}
	body, err := json.Marshal(request)
	if err != nil {
		return fmt.Errorf("encode the request to webhook %q: %w", at, err)
	}
	r, err := http.NewRequestWithContext(ctx, http.MethodPost, at.String(), bytes.NewReader(body))
	if err != nil {
		return fmt.Errorf("call webhook %q: %w", at, err)
	}
	r.Header = http.Header{
		"Content-Type": {"application/json"},
		"Accept":       {"application/json, */*"},
		"User-Agent":   {agent},
		// Known to net/http alone: a request lost on a connection that the
		// webhook had already closed may be sent again.
		"Idempotency-Key": nil,
	}
	answer, err := client.Do(r)
	if err != nil {
		return err // says method, URL and cause, as clients of upstream know it
	}
	defer answer.Body.Close()
	return read(answer, at, response)
}

// tell writes into the query how long the webhook has.
func tell(ctx context.Context, at *url.URL) {
	deadline, ok := ctx.Deadline()
	left := time.Until(deadline)
	if !ok || left <= 0 {
		return
	}
	if whole := left.Truncate(time.Second); whole != left {
		left = whole + time.Second
	}
	query := at.Query()
	query.Set("timeout", left.String())
	at.RawQuery = query.Encode()
}

// read takes the answer apart.
func read(answer *http.Response, at *url.URL, response any) error {
	if answer.StatusCode < 200 || answer.StatusCode > 299 {
		text, _ := io.ReadAll(io.LimitReader(answer.Body, maxRefusal)) // what cannot be read is not shown
		seconds, _ := strconv.Atoi(answer.Header.Get("Retry-After"))
		return apierrors.NewGenericServerResponse(answer.StatusCode, "post", schema.GroupResource{}, "",
			strings.TrimSpace(string(text)), seconds, true)
	}
	data, err := io.ReadAll(io.LimitReader(answer.Body, MaxResponse+1))
	if err != nil {
		return fmt.Errorf("read the answer of webhook %q: %w", at, err)
	}
	if len(data) > MaxResponse {
		return fmt.Errorf("read the answer of webhook %q: more than %d bytes", at, MaxResponse)
	}
	if err := json.Unmarshal(data, response); err != nil {
		return fmt.Errorf("decode the answer of webhook %q: %w", at, err)
	}
	return nil
}

// address is the URL to post to. Its path is clean, as upstream's client makes it: what is
// made of a base with a slash at its end and a path with one at its start must not be
// redirected by the webhook.
func (cfg ClientConfig) address() (*url.URL, error) {
	if s := cfg.Service; s != nil {
		return &url.URL{Scheme: "https", Host: s.host() + ":" + strconv.Itoa(int(s.port())), Path: path.Join("/", s.Path)}, nil
	}
	if cfg.URL == "" {
		return nil, errors.New("webhook configuration must have either service or URL")
	}
	at, err := url.Parse(cfg.URL)
	if err != nil {
		return nil, fmt.Errorf("unparsable webhook URL: %w", err)
	}
	if at.Scheme != "https" || at.Host == "" {
		return nil, fmt.Errorf("webhook URL %q: must be https and have a host", cfg.URL)
	}
	at.Path, at.RawPath = path.Join("/", at.Path), ""
	return at, nil
}

// host is the name in the service's certificate.
func (s *Service) host() string { return s.Name + "." + s.Namespace + ".svc" }

func (s *Service) port() int32 {
	if s.Port == 0 {
		return defaultPort
	}
	return s.Port
}
