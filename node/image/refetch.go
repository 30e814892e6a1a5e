package image

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"

	"github.com/google/go-containerregistry/pkg/name"
	digest "github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/sampan-dev/sampan/node/image/remote"
)

// Origin is where content of this store came from.
type Origin struct {
	// Name is the image's, normalised.
	Name string
	// Digest is what the name stands for here, Top the index of which that is one
	// image, if it is.
	Digest, Top digest.Digest
}

// Refetch brings again what is missing of an image from its registry, by its digests: not
// what its name means there by now. Names stay as they are. It is ErrNotFound when the
// registry has it no more.
func (s *Store) Refetch(ctx context.Context, o Origin, opts TransferOptions) error {
	ctx, cancel := context.WithTimeoutCause(ctx, pullTimeout, fmt.Errorf("pull %q: took more than %s", o.Name, pullTimeout))
	defer cancel()
	parsed, err := name.ParseReference(o.Name)
	if err != nil {
		return fmt.Errorf("pull %q: %w: %w", o.Name, ErrInvalid, err)
	}
	end, err := s.begin()
	if err != nil {
		return err
	}
	defer end()
	if o.Top != "" && !s.hasBlob(o.Top) {
		raw, _, err := s.byDigest(ctx, parsed, o.Top, opts)
		if err == nil {
			_, err = s.putBlob(raw)
		}
		if err != nil {
			return fmt.Errorf("pull %q: index %q: %w", o.Name, o.Top, registryError(err))
		}
	}
	raw, from, err := s.byDigest(ctx, parsed, o.Digest, opts)
	if err == nil {
		err = s.take(ctx, from, arrival{top: ocispec.Descriptor{Digest: o.Digest}, raw: raw, tell: opts.Progress})
	}
	if err != nil {
		return fmt.Errorf("pull %q: %q: %w", o.Name, o.Digest, registryError(err))
	}
	return nil
}

// byDigest is what has a digest in the repository of a reference, a manifest or an index.
func (s *Store) byDigest(ctx context.Context, ref name.Reference, d digest.Digest, opts TransferOptions) ([]byte, source, error) {
	at := ref.Context().Digest(d.String())
	client, repo := opts.client(at)
	_, raw, err := s.resolve(ctx, client, repo, at)
	if err != nil {
		return nil, nil, err
	}
	if digest.FromBytes(raw) != d {
		return nil, nil, fmt.Errorf("the registry's answer has another digest: %w", ErrInvalid)
	}
	return raw, &fromRegistry{client, repo}, nil
}

// take brings everything that a manifest or an index names, and gives it no name.
func (s *Store) take(ctx context.Context, from source, a arrival) error {
	if remote.IsManifest(remote.MediaTypeOf(a.raw)) {
		_, err := s.fetchImage(ctx, from, a)
		return err
	}
	var index ocispec.Index
	if err := json.Unmarshal(a.raw, &index); err != nil {
		return fmt.Errorf("index: %w: %w", ErrInvalid, err)
	}
	if len(index.Manifests) > maxPlatforms {
		return fmt.Errorf("index of %d manifests: %w", len(index.Manifests), ErrTooLarge)
	}
	if err := checkDigests(index.Manifests); err != nil {
		return fmt.Errorf("index: %w", err)
	}
	_, err := s.takeAll(ctx, from, a, index)
	return err
}

// takeAll brings all images of an index that are to be had, and the index.
func (s *Store) takeAll(ctx context.Context, from source, a arrival, index ocispec.Index) (digest.Digest, error) {
	taken := 0
	for _, desc := range index.Manifests {
		if !remote.IsManifest(desc.MediaType) {
			continue
		}
		foreign := desc.Platform != nil && desc.Platform.Architecture != architecture("")
		_, err := s.fetchManifest(ctx, from, desc, arrival{tell: a.tell, packed: foreign})
		if errors.Is(err, ErrNotFound) || errors.Is(err, remote.ErrNotFound) {
			continue // a sparse index: some of its images are elsewhere
		}
		if err != nil {
			return "", fmt.Errorf("%s: %w", platformOf(desc), err)
		}
		taken++
	}
	if taken == 0 {
		return "", fmt.Errorf("index %q: none of its images is there: %w", a.top.Digest, ErrNotFound)
	}
	return s.putBlob(a.raw)
}
