package image

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"slices"

	digest "github.com/opencontainers/go-digest"
	"github.com/opencontainers/image-spec/identity"
	"github.com/opencontainers/image-spec/specs-go"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/sampan-dev/sampan/node/image/remote"
)

// Layer is a layer of an image that is being built.
type Layer struct {
	// Blob describes the compressed layer; DiffID is the tar's own digest.
	Blob   ocispec.Descriptor
	DiffID digest.Digest
	// Unpacked is the size of the tar.
	Unpacked int64 `json:",omitempty"`
}

// Build keeps the sweeper away from what a build has stored and not yet named.
// Close it when the build is over.
type Build struct {
	store *Store
	end   func()
}

// NewBuild begins a build.
func (s *Store) NewBuild() (*Build, error) {
	end, err := s.begin()
	if err != nil {
		return nil, fmt.Errorf("begin build: %w", err)
	}
	return &Build{store: s, end: end}, nil
}

// Close ends the build; what it did not commit may be swept. Close it once.
func (b *Build) Close() { b.end() }

// WriteLayer stores an uncompressed tar as a layer. Equal input gives an equal
// blob. The layer is garbage until Commit names it: the caller holds a Build.
func (b *Build) WriteLayer(tarStream io.Reader) (Layer, error) {
	return b.writeLayer(tarStream, Compression{})
}

func (b *Build) writeLayer(tarStream io.Reader, c Compression) (Layer, error) {
	w, err := b.store.newBlob()
	if err != nil {
		return Layer{}, err
	}
	defer w.abort()
	plain := newCounter(tarStream)
	z, err := c.writer(w)
	if err != nil {
		return Layer{}, err
	}
	if _, err := io.Copy(z, plain); err != nil {
		return Layer{}, fmt.Errorf("write layer: %w", err)
	}
	if err := z.Close(); err != nil {
		return Layer{}, fmt.Errorf("write layer: %w", err)
	}
	size := w.size
	d, err := w.commit("")
	if err != nil {
		return Layer{}, err
	}
	return Layer{
		Blob:   ocispec.Descriptor{MediaType: c.mediaType(), Digest: d, Size: size},
		DiffID: plain.hash.Digest(), Unpacked: plain.n,
	}, nil
}

// Unpack makes the layers ready to be lower directories, and returns those,
// topmost first.
func (b *Build) Unpack(ctx context.Context, layers []Layer) ([]string, error) {
	img := Image{}
	for _, l := range layers {
		img.Layers = append(img.Layers, l.Blob)
		img.Config.RootFS.DiffIDs = append(img.Config.RootFS.DiffIDs, l.DiffID)
	}
	if err := b.store.unpackAll(ctx, img); err != nil {
		return nil, err
	}
	var lower []string
	for i := len(layers) - 1; i >= 0; i-- {
		lower = append(lower, b.store.layerPath(img.Chain(i)))
	}
	return lower, nil
}

// Has says whether a layer of an earlier build is still complete here.
func (b *Build) Has(l Layer) bool { return b.store.hasBlob(l.Blob.Digest) }

// Base gives the layers of a stored image, to build upon.
func (b *Build) Base(ref string) (Image, []Layer, error) {
	img, err := b.store.Get(ref)
	if err == nil {
		err = checkLayers(img) // an artifact has layers that are no file systems
	}
	if err != nil {
		return Image{}, nil, err
	}
	var layers []Layer
	for i, blob := range img.Layers {
		layers = append(layers, Layer{Blob: blob, DiffID: img.Config.RootFS.DiffIDs[i]})
	}
	return img, layers, nil
}

// Naming is how a built image is to be known.
type Naming struct {
	// Ref is the reference that will lead to it; "" lists it without one.
	Ref string
	// Extra are keys for the config's "config" object that the OCI type lacks
	// and engines know all the same (Healthcheck, OnBuild, Shell).
	Extra map[string]any
	// Annotations are the manifest's.
	Annotations map[string]string
	// Docker: manifest, config and layers have Docker's media types, not the OCI's.
	Docker bool
	// Unlisted: it is only a part of an index to come, which will name it.
	Unlisted bool
}

// Commit writes config and manifest over layers, unpacks what is not, and names
// the image. Config's RootFS is set from layers.
func (b *Build) Commit(ctx context.Context, config ocispec.Image, layers []Layer, as Naming) (Image, error) {
	config.RootFS = ocispec.RootFS{Type: "layers"}
	manifest := ocispec.Manifest{
		Versioned: specs.Versioned{SchemaVersion: 2}, MediaType: typeIn(ocispec.MediaTypeImageManifest, as.Docker),
		Layers: []ocispec.Descriptor{}, Annotations: as.Annotations,
	}
	for _, l := range layers {
		config.RootFS.DiffIDs = append(config.RootFS.DiffIDs, l.DiffID)
		l.Blob.MediaType = typeIn(l.Blob.MediaType, as.Docker) // a base may have either
		manifest.Layers = append(manifest.Layers, l.Blob)
	}
	if _, err := b.Unpack(ctx, layers); err != nil {
		return Image{}, err
	}
	raw, err := mergeConfig(config, as.Extra)
	if err != nil {
		return Image{}, err
	}
	d, err := b.store.putBlob(raw)
	if err != nil {
		return Image{}, err
	}
	manifest.Config = ocispec.Descriptor{MediaType: typeIn(ocispec.MediaTypeImageConfig, as.Docker), Digest: d, Size: int64(len(raw))}
	rawManifest, err := json.Marshal(manifest)
	if err != nil {
		return Image{}, err
	}
	md, err := b.store.putBlob(rawManifest)
	if err != nil {
		return Image{}, err
	}
	if as.Unlisted {
		return b.store.describe(md)
	}
	full := ""
	if as.Ref != "" {
		if full, err = Normalise(as.Ref); err != nil {
			return Image{}, err
		}
	}
	return b.store.name(full, md, made())
}

// CommitIndex names a list of images that have been committed, or other manifests
// that have been put. It has Docker's media type when they have.
func (b *Build) CommitIndex(manifests []ocispec.Descriptor, refs []string) (digest.Digest, error) {
	docker := slices.ContainsFunc(manifests, func(d ocispec.Descriptor) bool { return d.MediaType == remote.DockerManifest })
	raw, err := json.Marshal(ocispec.Index{
		Versioned: specs.Versioned{SchemaVersion: 2}, MediaType: typeIn(ocispec.MediaTypeImageIndex, docker), Manifests: manifests,
	})
	if err != nil {
		return "", err
	}
	d, err := b.store.putBlob(raw)
	if err != nil {
		return "", err
	}
	if len(refs) == 0 {
		refs = []string{""}
	}
	for _, ref := range refs {
		if ref != "" {
			if ref, err = Normalise(ref); err != nil {
				return "", err
			}
		}
		if _, err := b.store.name(ref, d, made()); err != nil {
			return "", err
		}
	}
	return d, nil
}

// Describe says what a stored manifest or index is.
func (b *Build) Describe(d digest.Digest) (ocispec.Descriptor, error) {
	raw, err := b.store.readBlob(d)
	return ocispec.Descriptor{MediaType: remote.MediaTypeOf(raw), Digest: d, Size: int64(len(raw))}, err
}

// ChainOf is the chain ID of layers, under which the topmost lies unpacked.
func ChainOf(layers []Layer) digest.Digest {
	var diffs []digest.Digest
	for _, l := range layers {
		diffs = append(diffs, l.DiffID)
	}
	return identity.ChainID(diffs)
}

// Put stores a small blob that an index or manifest will name.
func (b *Build) Put(raw []byte) (digest.Digest, error) { return b.store.putBlob(raw) }

// PutLarge stores a blob that a manifest will name as a layer, and that is none.
func (b *Build) PutLarge(raw []byte) (ocispec.Descriptor, error) {
	w, err := b.store.newBlob()
	if err != nil {
		return ocispec.Descriptor{}, err
	}
	defer w.abort()
	if _, err := w.Write(raw); err != nil {
		return ocispec.Descriptor{}, fmt.Errorf("store blob: %w", err)
	}
	d, err := w.commit("")
	return ocispec.Descriptor{Digest: d, Size: int64(len(raw))}, err
}

// mergeConfig encodes config with extra keys in its "config" object.
func mergeConfig(config ocispec.Image, extra map[string]any) ([]byte, error) {
	raw, err := json.Marshal(config)
	if err != nil || len(extra) == 0 {
		return raw, err
	}
	var whole map[string]any
	if err := json.Unmarshal(raw, &whole); err != nil {
		return nil, err
	}
	inner, _ := whole["config"].(map[string]any)
	if inner == nil {
		inner = map[string]any{}
	}
	for k, v := range extra {
		inner[k] = v
	}
	whole["config"] = inner
	return json.Marshal(whole)
}
