package image

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"runtime"

	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/partial"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/google/go-containerregistry/pkg/v1/types"
	digest "github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// Push sends the image under ref to the registry that ref names. Layers that the
// registry has are not sent again.
func (s *Store) Push(ctx context.Context, ref string, opts TransferOptions) (digest.Digest, error) {
	parsed, err := name.ParseReference(ref)
	if err != nil {
		return "", fmt.Errorf("push %q: %w: %w", ref, ErrInvalid, err)
	}
	end, err := s.begin()
	if err != nil {
		return "", fmt.Errorf("push %q: %w", ref, err)
	}
	defer end()
	img, err := s.Get(ref)
	if err != nil {
		return "", fmt.Errorf("push %q: %w", ref, err)
	}
	stored, err := s.stored(img)
	if err != nil {
		return "", fmt.Errorf("push %q: %w", ref, err)
	}
	if err := remote.Write(parsed, stored, opts.remote(ctx)...); err != nil {
		return "", fmt.Errorf("push %q: %w", ref, registryError(err))
	}
	return img.Manifest, nil
}

// stored shows an image of the store to the registry library.
func (s *Store) stored(img Image) (v1.Image, error) {
	raw, err := s.readBlob(img.Manifest)
	if err != nil {
		return nil, err
	}
	return partial.CompressedToImage(&storedImage{store: s, img: img, raw: raw})
}

type storedImage struct {
	store *Store
	img   Image
	raw   []byte
}

func (i *storedImage) RawManifest() ([]byte, error) { return i.raw, nil }

func (i *storedImage) RawConfigFile() ([]byte, error) {
	return i.store.readBlob(digest.Digest(i.img.ID))
}

func (i *storedImage) MediaType() (types.MediaType, error) {
	m, err := v1.ParseManifest(bytes.NewReader(i.raw))
	if err != nil {
		return "", err
	}
	if m.MediaType == "" {
		return types.OCIManifestSchema1, nil
	}
	return m.MediaType, nil
}

func (i *storedImage) LayerByDigest(h v1.Hash) (partial.CompressedLayer, error) {
	for _, l := range i.img.Layers {
		if l.Digest.String() == h.String() {
			return &storedLayer{store: i.store, desc: l}, nil
		}
	}
	return nil, fmt.Errorf("layer %q: %w", h, ErrNotFound)
}

type storedLayer struct {
	store *Store
	desc  ocispec.Descriptor
}

func (l *storedLayer) Digest() (v1.Hash, error) { return v1.NewHash(l.desc.Digest.String()) }

func (l *storedLayer) Compressed() (io.ReadCloser, error) { return l.store.openBlob(l.desc.Digest) }

func (l *storedLayer) Size() (int64, error) { return l.desc.Size, nil }

func (l *storedLayer) MediaType() (types.MediaType, error) {
	return types.MediaType(l.desc.MediaType), nil
}

// architecture is want, or this machine's.
func architecture(want string) string {
	if want == "" {
		return runtime.GOARCH
	}
	return want
}
