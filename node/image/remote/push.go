package remote

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"strings"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// uploadChunk is how much of a blob one request carries: small enough to repeat.
const uploadChunk = 16 << 20

// Upload is a blob to be sent.
type Upload struct {
	Desc ocispec.Descriptor
	// Open gives its content; it is called once.
	Open func() (*os.File, error)
	// From are repositories of the same registry that may have it.
	From []string
	// Sent, when set, is told how many bytes have been sent.
	Sent func(int64)
}

// pushHost is the server that takes a registry's content.
func (c *Client) pushHost(registry string) (*host, error) {
	hosts, err := c.hostsOf(registry)
	if err != nil {
		return nil, err
	}
	own := hosts[len(hosts)-1]
	if !own.can[canPush] {
		return nil, fmt.Errorf("registry %q: hosts.toml does not allow to push: %w", registry, ErrDenied)
	}
	return own, nil
}

// HasBlob asks whether a repository has a blob.
func (c *Client) HasBlob(ctx context.Context, repo Repository, desc ocispec.Descriptor) (bool, error) {
	h, err := c.pushHost(repo.Registry)
	if err != nil {
		return false, err
	}
	return c.has(ctx, h, request{method: http.MethodHead, path: repo.path("blobs", desc.Digest.String()), scope: pushScope(repo)})
}

func (c *Client) has(ctx context.Context, h *host, r request) (bool, error) {
	r.want = []int{http.StatusOK}
	answer, err := c.do(ctx, h, r)
	if errors.Is(err, ErrNotFound) {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	drop(answer)
	return true, nil
}

// Push sends a blob unless the repository has it: from another repository of the
// registry if that can be, else in chunks. It says whether bytes were sent.
func (c *Client) Push(ctx context.Context, repo Repository, up Upload) (sent bool, err error) {
	h, err := c.pushHost(repo.Registry)
	if err != nil {
		return false, err
	}
	if has, err := c.HasBlob(ctx, repo, up.Desc); err != nil || has {
		return false, err
	}
	location, err := c.beginUpload(ctx, h, repo, up)
	if err != nil || location == "" {
		return false, err
	}
	f, err := up.Open()
	if err != nil {
		return false, err
	}
	defer f.Close()
	scope := pushScope(repo)
	for at := int64(0); at < up.Desc.Size; {
		n := min(uploadChunk, up.Desc.Size-at)
		answer, err := c.do(ctx, h, request{
			method: http.MethodPatch, url: location, scope: scope, size: n,
			body: func() (io.ReadCloser, error) { return io.NopCloser(io.NewSectionReader(f, at, n)), nil },
			header: http.Header{
				"Content-Type":  {"application/octet-stream"},
				"Content-Range": {fmt.Sprintf("%d-%d", at, at+n-1)},
			},
			want: []int{http.StatusAccepted, http.StatusNoContent, http.StatusCreated},
		})
		if err != nil {
			return false, err
		}
		drop(answer)
		if location, err = h.next(answer, location); err != nil {
			return false, err
		}
		at += n
		if up.Sent != nil {
			up.Sent(at)
		}
	}
	return true, c.endUpload(ctx, h, location, up, scope)
}

// beginUpload opens an upload; "" means that the registry has taken the blob from
// another of its repositories.
func (c *Client) beginUpload(ctx context.Context, h *host, repo Repository, up Upload) (string, error) {
	for _, from := range up.From {
		q := url.Values{"mount": {up.Desc.Digest.String()}, "from": {from}}
		answer, err := c.do(ctx, h, request{
			method: http.MethodPost, path: repo.path("blobs", "uploads/") + "?" + q.Encode(),
			scope: pushScope(repo) + " repository:" + from + ":pull",
			want:  []int{http.StatusCreated, http.StatusAccepted},
		})
		if err != nil {
			continue // it may not be ours to read: send it
		}
		drop(answer)
		if answer.StatusCode == http.StatusCreated {
			return "", nil
		}
		return h.next(answer, "")
	}
	answer, err := c.do(ctx, h, request{
		method: http.MethodPost, path: repo.path("blobs", "uploads/"), scope: pushScope(repo), want: []int{http.StatusAccepted},
	})
	if err != nil {
		return "", err
	}
	drop(answer)
	return h.next(answer, "")
}

// next is where an upload goes on, which must be at the same server.
func (h *host) next(answer *http.Response, before string) (string, error) {
	location := answer.Header.Get("Location")
	if location == "" {
		if before == "" {
			return "", fmt.Errorf("upload: the registry does not say where: %w", ErrInvalid)
		}
		return before, nil
	}
	to, err := answer.Request.URL.Parse(location)
	if err != nil {
		return "", fmt.Errorf("upload to %q: %w: %w", location, ErrInvalid, err)
	}
	if h.owns(to) { // a proxy before it may have hidden its scheme
		to.Scheme = answer.Request.URL.Scheme
	}
	return to.String(), nil
}

func (c *Client) endUpload(ctx context.Context, h *host, location string, up Upload, scope string) error {
	to, err := url.Parse(location)
	if err != nil {
		return fmt.Errorf("upload to %q: %w: %w", location, ErrInvalid, err)
	}
	q := to.Query()
	q.Set("digest", up.Desc.Digest.String())
	to.RawQuery = q.Encode()
	answer, err := c.do(ctx, h, request{
		method: http.MethodPut, url: to.String(), scope: scope,
		body:   func() (io.ReadCloser, error) { return http.NoBody, nil },
		header: http.Header{"Content-Type": {"application/octet-stream"}},
		want:   []int{http.StatusCreated, http.StatusNoContent},
	})
	if err != nil {
		return err
	}
	drop(answer)
	return nil
}

// PushManifest puts a manifest or index under a tag or its digest.
func (c *Client) PushManifest(ctx context.Context, repo Repository, ref, mediaType string, raw []byte) error {
	h, err := c.pushHost(repo.Registry)
	if err != nil {
		return err
	}
	answer, err := c.do(ctx, h, request{
		method: http.MethodPut, path: repo.path("manifests", ref), scope: pushScope(repo), size: int64(len(raw)),
		body:   func() (io.ReadCloser, error) { return io.NopCloser(strings.NewReader(string(raw))), nil },
		header: http.Header{"Content-Type": {mediaType}},
		want:   []int{http.StatusCreated, http.StatusOK, http.StatusAccepted},
	})
	if err != nil {
		return err
	}
	drop(answer)
	return nil
}
