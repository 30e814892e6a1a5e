package image

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"slices"
	"strings"

	digest "github.com/opencontainers/go-digest"
	"github.com/opencontainers/image-spec/specs-go"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/sampan-dev/sampan/node/image/remote"
)

// layout is a directory with images: an OCI layout, or an unpacked docker-archive.
type layout struct {
	root *os.Root
	// files are the names of blobs that are not where an OCI layout has them.
	files map[digest.Digest]string
	// made are manifests that we have written for a docker-archive, by digest.
	made map[digest.Digest][]byte
	// flat: it is a directory as skopeo and podman have them (dir:), whose blobs lie at
	// the top.
	flat bool
}

func openLayout(dir string) (*layout, error) {
	root, err := os.OpenRoot(dir)
	if err != nil {
		return nil, err
	}
	return &layout{root: root, files: map[digest.Digest]string{}, made: map[digest.Digest][]byte{}}, nil
}

func (l *layout) close() { l.root.Close() }

// open implements source.
func (l *layout) open(_ context.Context, desc ocispec.Descriptor, offset int64) (io.ReadCloser, error) {
	if raw, ok := l.made[desc.Digest]; ok {
		return io.NopCloser(bytes.NewReader(raw[min(offset, int64(len(raw))):])), nil
	}
	if err := desc.Digest.Validate(); err != nil {
		return nil, fmt.Errorf("digest %q: %w: %w", desc.Digest, ErrInvalid, err)
	}
	file, ok := l.files[desc.Digest]
	if !ok {
		file = blobName(desc.Digest)
	}
	if !ok && l.flat {
		file = desc.Digest.Encoded()
	}
	f, err := l.root.Open(file)
	if errors.Is(err, os.ErrNotExist) {
		return nil, fmt.Errorf("%q is not in the archive: %w", file, ErrNotFound)
	}
	if err != nil {
		return nil, err
	}
	if _, err := f.Seek(offset, io.SeekStart); err != nil {
		f.Close()
		return nil, err
	}
	return f, nil
}

// readFile reads one of the small files at the top.
func (l *layout) readFile(name string, into any) error {
	f, err := l.root.Open(name)
	if err != nil {
		return err
	}
	defer f.Close()
	raw, err := io.ReadAll(io.LimitReader(f, MaxManifest+1))
	if err != nil {
		return err
	}
	if len(raw) > MaxManifest {
		return fmt.Errorf("%s: more than %d bytes: %w", name, MaxManifest, ErrTooLarge)
	}
	if err := json.Unmarshal(raw, into); err != nil {
		return fmt.Errorf("%s: %w: %w", name, ErrInvalid, err)
	}
	return nil
}

// loadFrom takes in all images of a layout. An archive that is of both kinds
// counts as an OCI layout when that has names, for it has the true manifests.
func (s *Store) loadFrom(ctx context.Context, l *layout) ([]Image, error) {
	var index ocispec.Index
	err := l.readFile("index.json", &index)
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return nil, err
	}
	var docker []dockerEntry
	var raw json.RawMessage
	err = l.readFile("manifest.json", &raw)
	switch {
	case errors.Is(err, os.ErrNotExist):
	case err != nil:
		return nil, err
	case bytes.HasPrefix(bytes.TrimSpace(raw), []byte("{")):
		return s.loadDirectory(ctx, l)
	default:
		if err := json.Unmarshal(raw, &docker); err != nil {
			return nil, fmt.Errorf("manifest.json: %w: %w", ErrInvalid, err)
		}
	}
	named := slices.ContainsFunc(index.Manifests, func(d ocispec.Descriptor) bool { return d.Annotations["io.containerd.image.name"] != "" })
	if len(docker) > 0 && !named {
		return s.loadDocker(ctx, l, docker)
	}
	var loaded []Image
	for _, desc := range index.Manifests {
		if !remote.IsManifest(desc.MediaType) && !remote.IsIndex(desc.MediaType) {
			continue
		}
		raw, err := s.fetchSmall(ctx, l, desc)
		if err != nil {
			return loaded, err
		}
		ref, err := referenceOf(desc)
		if err != nil {
			return loaded, err
		}
		img, err := s.ingest(ctx, l, arrival{ref: ref, top: desc, raw: raw, all: true, made: true})
		if err != nil {
			return loaded, fmt.Errorf("image %q: %w", desc.Digest, err)
		}
		loaded = append(loaded, img)
	}
	return loaded, nil
}

// loadDirectory takes in the image of a directory as skopeo and podman write it with
// dir: or docker-dir: its manifest as it is, and no name.
func (s *Store) loadDirectory(ctx context.Context, l *layout) ([]Image, error) {
	raw, err := fs.ReadFile(l.root.FS(), "manifest.json")
	if err != nil {
		return nil, err
	}
	l.flat = true
	top := ocispec.Descriptor{MediaType: remote.MediaTypeOf(raw), Digest: digest.FromBytes(raw), Size: int64(len(raw))}
	img, err := s.ingest(ctx, l, arrival{top: top, raw: raw, all: true, made: true})
	if err != nil {
		return nil, fmt.Errorf("image %q: %w", top.Digest, err)
	}
	return []Image{img}, nil
}

// loadDocker takes in the images of a docker-archive: the manifests that it lacks
// are made of what it has.
func (s *Store) loadDocker(ctx context.Context, l *layout, entries []dockerEntry) ([]Image, error) {
	var loaded []Image
	for _, e := range entries {
		m := ocispec.Manifest{
			Versioned: specs.Versioned{SchemaVersion: 2}, MediaType: ocispec.MediaTypeImageManifest, Layers: []ocispec.Descriptor{},
		}
		var err error
		if m.Config, err = l.adopt(ctx, e.Config, func([]byte) string { return ocispec.MediaTypeImageConfig }); err != nil {
			return loaded, err
		}
		if len(e.Layers) > MaxLayers {
			return loaded, fmt.Errorf("%d layers, at most %d: %w", len(e.Layers), MaxLayers, ErrTooLarge)
		}
		for _, file := range e.Layers {
			desc, err := l.adopt(ctx, file, layerType)
			if err != nil {
				return loaded, err
			}
			m.Layers = append(m.Layers, desc)
		}
		raw, err := json.Marshal(m)
		if err != nil {
			return loaded, err
		}
		top := ocispec.Descriptor{MediaType: m.MediaType, Digest: digest.FromBytes(raw), Size: int64(len(raw))}
		l.made[top.Digest] = raw
		refs := e.RepoTags
		if len(refs) == 0 {
			refs = []string{""}
		}
		for _, tag := range refs {
			ref := ""
			if tag != "" {
				if ref, err = Normalise(tag); err != nil {
					return loaded, err
				}
			}
			img, err := s.ingest(ctx, l, arrival{ref: ref, top: top, raw: raw, made: true})
			if err != nil {
				return loaded, fmt.Errorf("image %q: %w", tag, err)
			}
			loaded = append(loaded, img)
		}
	}
	return loaded, nil
}

// adopt computes what a file of a docker-archive is called by digest.
func (l *layout) adopt(ctx context.Context, file string, typeOf func([]byte) string) (ocispec.Descriptor, error) {
	f, err := l.root.Open(strings.TrimPrefix(file, "/"))
	if err != nil {
		return ocispec.Descriptor{}, fmt.Errorf("%q: %w: %w", file, ErrInvalid, err)
	}
	defer f.Close()
	c := newCounter(reader{ctx, f})
	var magic bytes.Buffer
	if _, err := io.CopyN(&magic, c, 4); err != nil && !errors.Is(err, io.EOF) {
		return ocispec.Descriptor{}, err
	}
	if _, err := io.Copy(io.Discard, c); err != nil {
		return ocispec.Descriptor{}, err
	}
	d := c.hash.Digest()
	l.files[d] = strings.TrimPrefix(file, "/")
	return ocispec.Descriptor{MediaType: typeOf(magic.Bytes()), Digest: d, Size: c.n}, nil
}

// layerType is the media type of a layer that begins so.
func layerType(magic []byte) string {
	switch {
	case bytes.HasPrefix(magic, []byte{0x1f, 0x8b}):
		return ocispec.MediaTypeImageLayerGzip
	case bytes.HasPrefix(magic, []byte{0x28, 0xb5, 0x2f, 0xfd}):
		return ocispec.MediaTypeImageLayerZstd
	}
	return ocispec.MediaTypeImageLayer
}
