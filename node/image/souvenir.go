package image

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"path/filepath"
	"slices"

	"github.com/google/go-containerregistry/pkg/name"
	digest "github.com/opencontainers/go-digest"
	"github.com/opencontainers/image-spec/specs-go"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/sampan-dev/sampan/internal/atomicfile"
	"github.com/sampan-dev/sampan/node/image/remote"
)

// A build's memories can travel: as an OCI artifact of their own in a registry or a
// directory, or in an annotation of the image that they are of.

// memoriesType is the media type of an artifact's config, which is the records.
const memoriesType = "application/vnd.sampan.buildcache.v1+json"

// MemoriesAnnotation holds the records of an image's own layers, on its manifest.
const MemoriesAnnotation = "dev.sampan.build.cache"

// maxTravelling bounds the layers of an artifact.
const maxTravelling = 1024

// Memories are layers of builds by their keys.
type Memories map[string]Memory

// Encode is for MemoriesAnnotation.
func (m Memories) Encode() (string, error) {
	raw, err := json.Marshal(m)
	return string(raw), err
}

// PutMemories stores an artifact of memories whose layers are here; beyond its
// limit the oldest are left out.
func (b *Build) PutMemories(all Memories) (digest.Digest, error) {
	keys := slices.SortedFunc(maps.Keys(all), func(x, y string) int {
		if c := all[y].Created.Compare(all[x].Created); c != 0 {
			return c
		}
		return slices.Compare([]byte(x), []byte(y))
	})
	kept, m := Memories{}, ocispec.Manifest{
		Versioned: specs.Versioned{SchemaVersion: 2}, MediaType: ocispec.MediaTypeImageManifest, Layers: []ocispec.Descriptor{},
	}
	listed := map[digest.Digest]bool{}
	for _, k := range keys {
		blob := all[k].Layer.Blob
		if !b.store.hasBlob(blob.Digest) || len(m.Layers) == maxTravelling && !listed[blob.Digest] {
			continue
		}
		kept[k] = all[k]
		if !listed[blob.Digest] {
			listed[blob.Digest] = true
			m.Layers = append(m.Layers, blob)
		}
	}
	raw, err := json.Marshal(kept)
	if err != nil {
		return "", err
	}
	if len(raw) > MaxManifest {
		return "", fmt.Errorf("records of %d layers: %w", len(kept), ErrTooLarge)
	}
	d, err := b.store.putBlob(raw)
	if err != nil {
		return "", err
	}
	m.Config = ocispec.Descriptor{MediaType: memoriesType, Digest: d, Size: int64(len(raw))}
	if raw, err = json.Marshal(m); err != nil {
		return "", err
	}
	return b.store.putBlob(raw)
}

// PushMemories sends an artifact to a registry.
func (b *Build) PushMemories(ctx context.Context, d digest.Digest, ref string, opts TransferOptions) error {
	parsed, err := name.ParseReference(ref)
	if err != nil {
		return fmt.Errorf("push %q: %w: %w", ref, ErrInvalid, err)
	}
	client, repo := opts.client(parsed)
	p := &pushing{store: b.store, client: client, repo: repo, tell: func(Progress) {}}
	if err := p.push(ctx, d, parsed.Identifier()); err != nil {
		return fmt.Errorf("push %q: %w", ref, registryError(err))
	}
	return nil
}

// WriteMemories writes an artifact into a directory, as an OCI layout. What is there
// of another build stays as content, without a name.
func (b *Build) WriteMemories(d digest.Digest, dir string) error {
	m, err := b.store.manifest(d)
	if err != nil {
		return err
	}
	if err := os.MkdirAll(filepath.Join(dir, "blobs", "sha256"), 0o755); err != nil { //nolint:gosec // it is the caller's, to be read by whoever may
		return err
	}
	raw, err := b.store.readBlob(d)
	if err != nil {
		return err
	}
	for _, desc := range append(m.Layers, m.Config, ocispec.Descriptor{Digest: d}) {
		if err := b.writeBlob(desc.Digest, filepath.Join(dir, blobName(desc.Digest))); err != nil {
			return err
		}
	}
	index := ocispec.Index{Versioned: specs.Versioned{SchemaVersion: 2}, MediaType: ocispec.MediaTypeImageIndex, Manifests: []ocispec.Descriptor{
		{MediaType: m.MediaType, ArtifactType: memoriesType, Digest: d, Size: int64(len(raw))},
	}}
	err = atomicfile.WriteJSON(filepath.Join(dir, "index.json"), index)
	return errors.Join(err, atomicfile.Write(filepath.Join(dir, "oci-layout"), []byte(`{"imageLayoutVersion":"1.0.0"}`), 0o644))
}

// writeBlob copies a blob to a file, unless it is there.
func (b *Build) writeBlob(d digest.Digest, to string) error {
	if _, err := os.Stat(to); err == nil {
		return nil
	}
	from, err := b.store.openBlob(d)
	if err != nil {
		return err
	}
	defer from.Close()
	f, err := os.CreateTemp(filepath.Dir(to), ".new-*")
	if err != nil {
		return err
	}
	_, err = io.Copy(f, from)
	if err = errors.Join(err, f.Chmod(0o644), f.Close()); err == nil {
		err = os.Rename(f.Name(), to)
	}
	if err != nil {
		return errors.Join(err, os.Remove(f.Name()))
	}
	return nil
}

// Souvenirs are memories from elsewhere. Close them when the build is over. They may
// be used concurrently.
type Souvenirs struct {
	store  *Store
	from   source
	layout *layout
	all    Memories
}

// Close lets go of a directory.
func (v *Souvenirs) Close() {
	if v.layout != nil {
		v.layout.close()
	}
}

// ReadMemories opens what WriteMemories has written.
func (b *Build) ReadMemories(ctx context.Context, dir string) (*Souvenirs, error) {
	l, err := openLayout(dir)
	if err != nil {
		return nil, err
	}
	v := &Souvenirs{store: b.store, from: l, layout: l, all: Memories{}}
	var index ocispec.Index
	err = l.readFile("index.json", &index)
	for _, desc := range index.Manifests {
		var raw []byte
		if raw, err = readSmall(ctx, l, desc); err == nil {
			err = v.learn(ctx, raw)
		}
		if err != nil {
			break
		}
	}
	if err != nil {
		l.close()
		return nil, fmt.Errorf("build cache in %q: %w", dir, err)
	}
	return v, nil
}

// FetchMemories opens those that a reference leads to in a registry: an artifact, or
// an image that was built with its own.
func (b *Build) FetchMemories(ctx context.Context, ref string, opts TransferOptions) (*Souvenirs, error) {
	parsed, err := name.ParseReference(ref)
	if err != nil {
		return nil, fmt.Errorf("build cache %q: %w: %w", ref, ErrInvalid, err)
	}
	client, repo := opts.client(parsed)
	_, raw, err := client.Manifest(ctx, repo, parsed.Identifier())
	if err != nil {
		return nil, fmt.Errorf("build cache %q: %w", ref, registryError(err))
	}
	v := &Souvenirs{store: b.store, from: &fromRegistry{client, repo}, all: Memories{}}
	if err := v.learn(ctx, raw); err != nil {
		return nil, fmt.Errorf("build cache %q: %w", ref, registryError(err))
	}
	return v, nil
}

// learn reads the records of a manifest, or those of all images of an index.
func (v *Souvenirs) learn(ctx context.Context, raw []byte) error {
	if remote.IsIndex(remote.MediaTypeOf(raw)) {
		var index ocispec.Index
		if err := json.Unmarshal(raw, &index); err != nil {
			return fmt.Errorf("index: %w: %w", ErrInvalid, err)
		}
		for _, desc := range index.Manifests[:min(len(index.Manifests), maxPlatforms)] {
			if !remote.IsManifest(desc.MediaType) {
				continue
			}
			one, err := readSmall(ctx, v.from, desc)
			if err != nil {
				return err
			}
			if err := v.learn(ctx, one); err != nil {
				return err
			}
		}
		return nil
	}
	var m ocispec.Manifest
	if err := json.Unmarshal(raw, &m); err != nil {
		return fmt.Errorf("manifest: %w: %w", ErrInvalid, err)
	}
	records := []byte(m.Annotations[MemoriesAnnotation])
	if m.Config.MediaType == memoriesType {
		var err error
		if records, err = readSmall(ctx, v.from, m.Config); err != nil {
			return err
		}
	}
	if len(records) == 0 {
		return nil // an image without any
	}
	found := Memories{}
	if err := json.Unmarshal(records, &found); err != nil {
		return fmt.Errorf("records: %w: %w", ErrInvalid, err)
	}
	maps.Copy(v.all, found)
	return nil
}

// Recall brings the layer that is remembered under a key, and remembers it here. The
// caller holds the Build. Whoever gives souvenirs is believed what a layer is of:
// that is what they are for.
func (v *Souvenirs) Recall(ctx context.Context, key string) (Memory, bool, error) {
	m, ok := v.all[key]
	if !ok || m.Layer.DiffID.Validate() != nil {
		return Memory{}, false, nil
	}
	blob := m.Layer.Blob
	if err := blob.Digest.Validate(); err != nil || blob.Digest.Algorithm() != digest.SHA256 {
		return Memory{}, false, fmt.Errorf("digest %q: %w", blob.Digest, ErrInvalid)
	}
	unlock, err := v.store.fetching.lock(ctx, blob.Digest.String())
	if err != nil {
		return Memory{}, false, err
	}
	defer unlock()
	if !v.store.hasBlob(blob.Digest) {
		if err := v.store.fetchBlob(ctx, fetching{src: v.from, desc: blob, tell: func(Progress) {}}, io.Discard); err != nil {
			return Memory{}, false, err
		}
	}
	return m, true, v.store.Remember(key, m)
}
