package remote

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"sync"

	digest "github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// A Peer is a server that may have content, by digest, of any registry.
type Peer struct {
	// URL is scheme, host and path below which /v2 is.
	URL string
	// Transport is the way to it, with the caller's certificate; it must be bounded
	// in how long it waits.
	Transport http.RoundTripper
}

// maxPeers bounds the peers that are asked for one image.
const maxPeers = 4

// peers are those of a client. One that has failed is not asked again.
type peers struct {
	mu   sync.Mutex
	list []*host
	// gave is who sent which blob last.
	gave map[digest.Digest]*host
}

// Near has peers asked for content before the registry is. They see no
// credentials, and are never asked what a tag means.
func (c *Client) Near(all []Peer) {
	c.near.mu.Lock()
	defer c.near.mu.Unlock()
	c.near.list, c.near.gave = nil, map[digest.Digest]*host{}
	for _, p := range all[:min(len(all), maxPeers)] {
		at, err := url.Parse(p.URL)
		if err != nil || at.Host == "" || p.Transport == nil {
			continue
		}
		c.near.list = append(c.near.list, &host{server: at, peer: true, direct: p.Transport, redirected: astray{}, header: http.Header{}})
	}
}

// astray is the way to where a peer sends us: none.
type astray struct{}

// RoundTrip implements http.RoundTripper.
func (astray) RoundTrip(r *http.Request) (*http.Response, error) {
	return nil, fmt.Errorf("redirected to %q by a peer: %w", r.URL.Redacted(), errRefused)
}

// among tries the peers in turn; true says that one of them had it.
func (c *Client) among(ctx context.Context, d digest.Digest, try func(*host) error) bool {
	c.near.mu.Lock()
	all := c.near.list
	c.near.mu.Unlock()
	for _, h := range all {
		err := try(h)
		if err == nil {
			c.near.mu.Lock()
			c.near.gave[d] = h
			c.near.mu.Unlock()
			return true
		}
		if ctx.Err() != nil {
			return false
		}
		if !errors.Is(err, ErrNotFound) {
			c.avoid(h)
		}
	}
	return false
}

// avoid takes a peer off the list.
func (c *Client) avoid(h *host) {
	c.near.mu.Lock()
	defer c.near.mu.Unlock()
	var rest []*host
	for _, other := range c.near.list {
		if other != h {
			rest = append(rest, other)
		}
	}
	c.near.list = rest
}

// Doubt tells that a blob was wrong. If a peer sent some of it, that peer is not
// asked again, and the answer is true: the next attempt may be better.
func (c *Client) Doubt(d digest.Digest) bool {
	c.near.mu.Lock()
	h := c.near.gave[d]
	delete(c.near.gave, d)
	c.near.mu.Unlock()
	if h == nil {
		return false
	}
	c.avoid(h)
	return true
}

// Part gets a manifest that an index names, by its digest, from a peer or the
// registry.
func (c *Client) Part(ctx context.Context, repo Repository, d digest.Digest) ([]byte, error) {
	var raw []byte
	found := c.among(ctx, d, func(h *host) (err error) {
		answer, err := c.do(ctx, h, request{
			method: http.MethodGet, path: repo.path("manifests", d.String()),
			header: http.Header{"Accept": ManifestTypes}, want: []int{http.StatusOK},
		})
		if err != nil {
			return err
		}
		if raw, err = small(answer); err == nil && digest.FromBytes(raw) != d {
			err = fmt.Errorf("manifest %q has another digest: %w", d, ErrInvalid)
		}
		return err
	})
	if found {
		return raw, nil
	}
	_, raw, err := c.Manifest(ctx, repo, d.String())
	return raw, err
}

// Blob opens a blob from offset on, of a peer that has it or of the registry. A
// server that cannot begin there is read from the start, which is thrown away.
func (c *Client) Blob(ctx context.Context, repo Repository, desc ocispec.Descriptor, offset int64) (io.ReadCloser, error) {
	var body io.ReadCloser
	if c.among(ctx, desc.Digest, func(h *host) (err error) {
		body, err = c.blobOf(ctx, h, blobRequest{repo, desc, offset})
		if err == nil {
			body = &peerBody{ReadCloser: body, ctx: ctx, failed: func() { c.avoid(h) }}
		}
		return err
	}) {
		return body, nil
	}
	err := c.each(repo.Registry, canPull, func(h *host) (err error) {
		body, err = c.blobOf(ctx, h, blobRequest{repo, desc, offset})
		return err
	})
	return body, err
}

// peerBody sees to it that what a peer leaves half sent comes from another.
type peerBody struct {
	io.ReadCloser
	ctx    context.Context //nolint:containedctx // it is the body's life
	failed func()
}

func (b *peerBody) Read(p []byte) (int, error) {
	n, err := b.ReadCloser.Read(p)
	if err != nil && !errors.Is(err, io.EOF) && b.ctx.Err() == nil {
		b.failed()
	}
	return n, err
}
