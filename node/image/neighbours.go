package image

import (
	"context"
	"fmt"
	"io"
	"slices"
	"strings"

	"github.com/google/go-containerregistry/pkg/name"
	digest "github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/sampan-dev/sampan/node/image/remote"
)

// Neighbours are the other machines of a cluster, as a store asks them for images.
// Its methods may be called concurrently, and give up soon: a registry is asked
// when they know nothing.
type Neighbours interface {
	// Named is what a normalised reference leads to in the cluster itself; empty,
	// without an error, when the cluster does not know it. Its word counts more than
	// a registry's.
	Named(ctx context.Context, ref string) (Named, error)
	// Holders are servers that may have the content of an image, the best first.
	// They are believed nothing: what they send has the digest asked for, or is
	// thrown away.
	Holders(ctx context.Context, w Wanted) []remote.Peer
}

// Named is an image of a cluster's own.
type Named struct {
	// Raw is the manifest or index.
	Raw []byte
	// Node is the name of a node that has the content.
	Node string
}

// Wanted is an image of which the content is looked for.
type Wanted struct {
	// Ref is the normalised reference, Top the digest that it leads to.
	Ref string
	Top digest.Digest
	// Node is said to have it; "" when nobody has said so.
	Node string
}

// Join has pulls ask neighbours first, from now on.
func (s *Store) Join(n Neighbours) { s.near.Store(&n) }

// resolve finds what a reference leads to: in the cluster, or in its registry. It
// also tells the client who else has the content. Neighbours never stand in for a
// registry's word on who may have an image: only for the bytes.
func (s *Store) resolve(ctx context.Context, client *remote.Client, repo remote.Repository, ref name.Reference) (ocispec.Descriptor, []byte, error) {
	near := s.near.Load()
	if near == nil {
		return client.Manifest(ctx, repo, ref.Identifier())
	}
	full := spoken(ref.Name())
	named, err := (*near).Named(ctx, full)
	if err != nil {
		s.log.Warn("the cluster can't be asked for an image: asking its registry", "image", full, "error", err)
	}
	raw := named.Raw
	var top ocispec.Descriptor
	if len(raw) > 0 {
		top = ocispec.Descriptor{MediaType: remote.MediaTypeOf(raw), Digest: digest.FromBytes(raw), Size: int64(len(raw))}
		if at := ref.Identifier(); strings.Contains(at, ":") && at != top.Digest.String() {
			return top, nil, fmt.Errorf("the cluster's answer has digest %q: %w", top.Digest, ErrInvalid)
		}
	} else if top, raw, err = client.Manifest(ctx, repo, ref.Identifier()); err != nil {
		return top, nil, err
	}
	client.Near((*near).Holders(ctx, Wanted{Ref: full, Top: top.Digest, Node: named.Node}))
	return top, raw, nil
}

// fromRegistry is a repository as a source, with the neighbours that have the
// content too.
type fromRegistry struct {
	client *remote.Client
	repo   remote.Repository
}

func (f *fromRegistry) open(ctx context.Context, desc ocispec.Descriptor, offset int64) (io.ReadCloser, error) {
	if remote.IsManifest(desc.MediaType) || remote.IsIndex(desc.MediaType) {
		raw, err := f.client.Part(ctx, f.repo, desc.Digest)
		if err != nil {
			return nil, err
		}
		return io.NopCloser(strings.NewReader(string(raw[min(offset, int64(len(raw))):]))), nil
	}
	return f.client.Blob(ctx, f.repo, desc, offset)
}

// doubt is for a blob that turned out to be wrong: true says that it came from
// somebody who will not be asked again, so that another attempt may be better.
func (f *fromRegistry) doubt(desc ocispec.Descriptor) bool { return f.client.Doubt(desc.Digest) }

// Made is what a name leads to that was given here, by a build, a push, an archive
// or a person. What came from a registry is ErrNotFound: whether somebody may have
// it is for that registry to say.
func (s *Store) Made(ref string) (digest.Digest, []byte, error) {
	full, err := Normalise(ref)
	if err != nil {
		return "", nil, err
	}
	index, err := s.current()
	if err != nil {
		return "", nil, err
	}
	repo, want, pinned := strings.Cut(full, "@")
	for _, e := range slices.Backward(index.Manifests) {
		known := e.Annotations[refAnnotation]
		if e.Annotations[madeAnnotation] == "" || known == "" {
			continue
		}
		at := e.Digest
		if pinned && repository(known) == repo && s.leads(e.Digest, digest.Digest(want)) {
			at = digest.Digest(want)
		} else if known != full {
			continue
		}
		raw, err := s.readBlob(at)
		return at, raw, err
	}
	return "", nil, fmt.Errorf("image %q: %w", ref, ErrNotFound)
}

// leads says whether root is want, or an index of it.
func (s *Store) leads(root, want digest.Digest) bool {
	if root == want {
		return true
	}
	raw, err := s.readBlob(root)
	if err != nil || !remote.IsIndex(remote.MediaTypeOf(raw)) {
		return false
	}
	blobs := map[string]bool{}
	if s.markTree(root, blobs, map[string]bool{}) != nil || !blobs[want.Encoded()] {
		return false
	}
	raw, err = s.readBlob(want)
	return err == nil && remote.MediaTypeOf(raw) != ""
}

// Content opens a blob by its digest, whichever image has it.
func (s *Store) Content(d digest.Digest) (*Guarded, error) { return s.guard(d) }
