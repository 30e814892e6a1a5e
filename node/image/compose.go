package image

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"os"
	"slices"

	"github.com/google/go-containerregistry/pkg/name"
	digest "github.com/opencontainers/go-digest"
	"github.com/opencontainers/image-spec/specs-go"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/sampan-dev/sampan/node/image/remote"
)

// Asked is what a reference means in its registry.
type Asked struct {
	// Ref is the normalised reference.
	Ref string
	// Desc describes the manifest or index, with the platform of an image.
	Desc ocispec.Descriptor
	// Raw is the manifest or index.
	Raw []byte

	from fromRegistry
}

// Ask reads what a reference means in its registry. Nothing is taken in.
func Ask(ctx context.Context, ref string, opts TransferOptions) (Asked, error) {
	parsed, err := name.ParseReference(ref)
	if err != nil {
		return Asked{}, fmt.Errorf("ask for %q: %w: %w", ref, ErrInvalid, err)
	}
	a := Asked{Ref: spoken(parsed.Name())}
	a.from.client, a.from.repo = opts.client(parsed)
	if a.Desc, a.Raw, err = a.from.client.Manifest(ctx, a.from.repo, parsed.Identifier()); err != nil {
		return Asked{}, fmt.Errorf("ask for %q: %w", ref, registryError(err))
	}
	if !remote.IsManifest(a.Desc.MediaType) {
		return a, nil
	}
	config, err := a.config(ctx, a.Raw)
	if err != nil {
		return Asked{}, fmt.Errorf("ask for %q: %w", ref, registryError(err))
	}
	if config.OS != "" {
		a.Desc.Platform = &config.Platform
	}
	return a, nil
}

// config is the config of an image's manifest; an artifact has none.
func (a Asked) config(ctx context.Context, raw []byte) (ocispec.Image, error) {
	var m ocispec.Manifest
	var config ocispec.Image
	if err := json.Unmarshal(raw, &m); err != nil {
		return config, fmt.Errorf("manifest: %w: %w", ErrInvalid, err)
	}
	if !isImageConfig(m.Config.MediaType) {
		return config, nil
	}
	rawConfig, err := a.Part(ctx, m.Config)
	if err != nil {
		return config, err
	}
	if err := json.Unmarshal(rawConfig, &config); err != nil {
		return config, fmt.Errorf("config %q: %w: %w", m.Config.Digest, ErrInvalid, err)
	}
	return config, nil
}

// Part reads something small that it leads to: a manifest, a config, a statement.
func (a Asked) Part(ctx context.Context, desc ocispec.Descriptor) ([]byte, error) {
	if !isDigest(desc.Digest) {
		return nil, fmt.Errorf("blob %q: not a sha256 digest: %w", desc.Digest, ErrInvalid)
	}
	if desc.Size > MaxManifest {
		return nil, fmt.Errorf("blob %q: %d bytes, at most %d: %w", desc.Digest, desc.Size, MaxManifest, ErrTooLarge)
	}
	return readSmall(ctx, &a.from, desc)
}

// Manifests are those of an index, or the one that it is.
func (a Asked) Manifests() ([]ocispec.Descriptor, error) {
	if !remote.IsIndex(a.Desc.MediaType) {
		return []ocispec.Descriptor{a.Desc}, nil
	}
	var index ocispec.Index
	if err := json.Unmarshal(a.Raw, &index); err != nil {
		return nil, fmt.Errorf("index %q: %w: %w", a.Desc.Digest, ErrInvalid, err)
	}
	if len(index.Manifests) > maxPlatforms {
		return nil, fmt.Errorf("index of %d manifests: %w", len(index.Manifests), ErrTooLarge)
	}
	return index.Manifests, checkDigests(index.Manifests)
}

// Compose makes an index of all manifests of sources, each once, with annotations. A
// source that is alone and is an index stays as it is, unless there are annotations; and so
// does an image, unless it is to be wrapped.
func Compose(sources []Asked, notes map[string]string, wrap bool) ([]byte, error) {
	if len(sources) == 1 && len(notes) == 0 && (!wrap || remote.IsIndex(sources[0].Desc.MediaType)) {
		return sources[0].Raw, nil
	}
	index := ocispec.Index{Versioned: specs.Versioned{SchemaVersion: 2}, MediaType: ocispec.MediaTypeImageIndex}
	docker := len(notes) == 0 // which Docker's lists have not
	for _, s := range sources {
		all, err := s.Manifests()
		if err != nil {
			return nil, fmt.Errorf("%s: %w", s.Ref, err)
		}
		for _, d := range all {
			docker = docker && d.MediaType == remote.DockerManifest
			if !slices.ContainsFunc(index.Manifests, func(other ocispec.Descriptor) bool { return other.Digest == d.Digest }) {
				index.Manifests = append(index.Manifests, d)
			}
		}
	}
	if len(index.Manifests) == 0 || len(index.Manifests) > maxPlatforms {
		return nil, fmt.Errorf("an index of %d manifests: want 1 to %d: %w", len(index.Manifests), maxPlatforms, ErrInvalid)
	}
	if docker {
		index.MediaType = remote.DockerManifestList
	}
	index.Annotations = notes
	if len(sources) == 1 { // which has some of its own
		var own ocispec.Index
		if json.Unmarshal(sources[0].Raw, &own) == nil && remote.IsIndex(sources[0].Desc.MediaType) {
			index.Annotations = maps.Clone(own.Annotations)
			if index.Annotations == nil {
				index.Annotations = map[string]string{}
			}
			maps.Copy(index.Annotations, notes)
		}
	}
	return json.Marshal(index)
}

// Send puts what Compose has made under a name, with all that it leads to and the
// name's repository lacks: of the same registry without its bytes coming here.
func (s *Store) Send(ctx context.Context, to string, raw []byte, sources []Asked, opts TransferOptions) (digest.Digest, error) {
	parsed, err := name.ParseReference(to)
	if err != nil {
		return "", fmt.Errorf("send to %q: %w: %w", to, ErrInvalid, err)
	}
	end, err := s.begin()
	if err != nil {
		return "", err
	}
	defer end()
	w := sending{store: s, done: map[digest.Digest]bool{}}
	w.client, w.repo = opts.client(parsed)
	for _, from := range sources {
		all, err := from.Manifests()
		for _, d := range all {
			if err == nil && from.from.repo != w.repo {
				err = w.manifest(ctx, from, d)
			}
		}
		if err != nil {
			return "", fmt.Errorf("send %q to %q: %w", from.Ref, to, registryError(err))
		}
	}
	if err := w.client.PushManifest(ctx, w.repo, parsed.Identifier(), remote.MediaTypeOf(raw), raw); err != nil {
		return "", fmt.Errorf("send to %q: %w", to, registryError(err))
	}
	return digest.FromBytes(raw), nil
}

// sending is one Send under way.
type sending struct {
	store  *Store
	client *remote.Client
	repo   remote.Repository
	done   map[digest.Digest]bool
}

// manifest brings a manifest, or an index of some, with all that it needs.
func (w sending) manifest(ctx context.Context, from Asked, d ocispec.Descriptor) error {
	if w.done[d.Digest] {
		return nil
	}
	w.done[d.Digest] = true
	raw, err := from.Part(ctx, d)
	if err != nil {
		return err
	}
	inner := Asked{Ref: from.Ref, Desc: d, Raw: raw, from: from.from}
	if remote.IsIndex(d.MediaType) {
		all, err := inner.Manifests()
		for _, one := range all {
			if err == nil {
				err = w.manifest(ctx, from, one)
			}
		}
		if err != nil {
			return err
		}
		return w.client.PushManifest(ctx, w.repo, d.Digest.String(), d.MediaType, raw)
	}
	var m ocispec.Manifest
	if err := json.Unmarshal(raw, &m); err != nil {
		return fmt.Errorf("manifest %q: %w: %w", d.Digest, ErrInvalid, err)
	}
	for _, blob := range append(m.Layers, m.Config) {
		if err := w.blob(ctx, from, blob); err != nil {
			return err
		}
	}
	return w.client.PushManifest(ctx, w.repo, d.Digest.String(), d.MediaType, raw)
}

// blob brings a blob, by way of this store when the registry does not have it already.
func (w sending) blob(ctx context.Context, from Asked, desc ocispec.Descriptor) error {
	if w.done[desc.Digest] || elsewhere(desc) {
		return nil
	}
	w.done[desc.Digest] = true
	up := remote.Upload{Desc: desc, Open: func() (*os.File, error) {
		if !w.store.hasBlob(desc.Digest) {
			f := fetching{src: &from.from, desc: desc, tell: func(Progress) {}}
			if err := w.store.fetchBlob(ctx, f, io.Discard); err != nil {
				return nil, err
			}
		}
		return w.store.openBlob(desc.Digest)
	}}
	if from.from.repo.Registry == w.repo.Registry {
		up.From = []string{from.from.repo.Name}
	}
	_, err := w.client.Push(ctx, w.repo, up)
	return err
}
