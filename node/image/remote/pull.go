package remote

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"

	digest "github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// The media types that Docker gave to what OCI has since named.
const (
	DockerManifest     = "application/vnd.docker.distribution.manifest.v2+json"
	DockerManifestList = "application/vnd.docker.distribution.manifest.list.v2+json"
)

// ManifestTypes are those that we read.
var ManifestTypes = []string{ //nolint:gochecknoglobals // a constant list
	ocispec.MediaTypeImageIndex, ocispec.MediaTypeImageManifest, DockerManifestList, DockerManifest,
}

// Manifest gets a manifest or index by tag or digest; what has a digest is
// verified. Hosts are asked in turn until one has it.
func (c *Client) Manifest(ctx context.Context, repo Repository, ref string) (ocispec.Descriptor, []byte, error) {
	capability := canResolve
	var want digest.Digest
	parsed, err := digest.Parse(ref)
	if err == nil {
		capability, want = canPull, parsed
	}
	var desc ocispec.Descriptor
	var raw []byte
	err = c.each(repo.Registry, capability, func(h *host) error {
		answer, err := c.do(ctx, h, request{
			method: http.MethodGet, path: repo.path("manifests", ref), scope: pullScope(repo),
			header: http.Header{"Accept": ManifestTypes}, want: []int{http.StatusOK},
		})
		if err != nil {
			return err
		}
		if raw, err = small(answer); err != nil {
			return err
		}
		desc = ocispec.Descriptor{MediaType: mediaType(answer, raw), Digest: digest.FromBytes(raw), Size: int64(len(raw))}
		said := digest.Digest(answer.Header.Get("Docker-Content-Digest"))
		if want != "" && desc.Digest != want {
			return fmt.Errorf("manifest %q of %s has digest %q: %w", want, repo, desc.Digest, ErrInvalid)
		}
		if said.Validate() == nil && said.Algorithm() == digest.SHA256 && said != desc.Digest {
			return fmt.Errorf("manifest %q of %s has digest %q, the registry says %q: %w", ref, repo, desc.Digest, said, ErrInvalid)
		}
		return nil
	})
	return desc, raw, err
}

// blobRequest is a blob that is wanted from offset on.
type blobRequest struct {
	repo   Repository
	desc   ocispec.Descriptor
	offset int64
}

// blobOf opens a blob of one host.
func (c *Client) blobOf(ctx context.Context, h *host, b blobRequest) (io.ReadCloser, error) {
	r := request{
		method: http.MethodGet, path: b.repo.path("blobs", b.desc.Digest.String()), scope: pullScope(b.repo),
		want: []int{http.StatusOK, http.StatusPartialContent}, header: http.Header{},
	}
	if b.offset > 0 {
		r.header.Set("Range", fmt.Sprintf("bytes=%d-", b.offset))
	}
	answer, err := c.do(ctx, h, r)
	if err != nil {
		return nil, err
	}
	if err := b.check(answer); err != nil {
		answer.Body.Close()
		return nil, err
	}
	return answer.Body, nil
}

// check sees to it that an answer begins where the blob is wanted from.
func (b blobRequest) check(answer *http.Response) error {
	if answer.StatusCode == http.StatusOK && answer.ContentLength >= 0 && answer.ContentLength != b.desc.Size {
		return fmt.Errorf("blob %q has %d bytes, the manifest says %d: %w", b.desc.Digest, answer.ContentLength, b.desc.Size, ErrInvalid)
	}
	if answer.StatusCode == http.StatusPartialContent {
		if span := answer.Header.Get("Content-Range"); !strings.HasPrefix(span, fmt.Sprintf("bytes %d-", b.offset)) {
			return fmt.Errorf("blob %q: asked for bytes from %d, got %q: %w", b.desc.Digest, b.offset, span, ErrInvalid)
		}
		return nil
	}
	_, err := io.CopyN(io.Discard, answer.Body, b.offset)
	return err
}

// each tries a registry's hosts that can do something, mirrors first. The
// registry's own answer is the one that is told, and its kind the error's; beside it
// stands what went wrong first, unless that host merely had nothing.
func (c *Client) each(registry, capability string, try func(*host) error) error {
	hosts, err := c.hostsOf(registry)
	if err != nil {
		return err
	}
	var first, last error
	for _, h := range hosts {
		if !h.can[capability] {
			continue
		}
		err := try(h)
		if err == nil || errors.Is(err, context.Canceled) || errors.Is(err, context.DeadlineExceeded) {
			return err
		}
		if h.mirror {
			err = fmt.Errorf("mirror: %w", err)
		}
		if first == nil && !errors.Is(err, ErrNotFound) {
			first = err
		}
		last = err
	}
	switch {
	case last == nil:
		return fmt.Errorf("no host of registry %q may %s: %w", registry, capability, ErrDenied)
	case first != nil && first != last: //nolint:errorlint // the very same one
		return fmt.Errorf("%w (before that: %s)", last, first.Error()) // the first is for a person
	}
	return last
}

func pullScope(r Repository) string { return "repository:" + r.Name + ":pull" }

func pushScope(r Repository) string { return "repository:" + r.Name + ":pull,push" }

// mediaType is what an answer says that it is; what the content says counts more.
func mediaType(answer *http.Response, raw []byte) string {
	if inside := MediaTypeOf(raw); inside != "" {
		return inside
	}
	said, _, _ := strings.Cut(answer.Header.Get("Content-Type"), ";")
	return strings.TrimSpace(said)
}
