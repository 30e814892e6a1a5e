package image

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"time"

	digest "github.com/opencontainers/go-digest"
	"github.com/opencontainers/image-spec/identity"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// Image is one image as the store knows it: a manifest, its config, and the
// references that lead to it.
type Image struct {
	// ID is the digest of the config, "sha256:…", as every engine shows it.
	ID string
	// Manifest is the digest of the manifest.
	Manifest digest.Digest
	// Tags are the normalised references with a tag; Digests those with one.
	Tags    []string
	Digests []string
	// Size is the bytes of config and compressed layers.
	Size    int64
	Created time.Time
	Config  ocispec.Image
	// Layers are the compressed layers, bottom first, one per Config.RootFS.DiffIDs.
	Layers []ocispec.Descriptor
}

// Chain is the chain ID of the layer at position i and all below it.
func (img Image) Chain(i int) digest.Digest {
	return identity.ChainID(slices.Clone(img.Config.RootFS.DiffIDs[:i+1]))
}

// Get finds an image by tag, digest reference, ID, or an ID's beginning.
func (s *Store) Get(ref string) (Image, error) {
	index, err := s.current()
	if err != nil {
		return Image{}, err
	}
	return s.find(index, ref)
}

// find is Get in a given index.
func (s *Store) find(index ocispec.Index, ref string) (Image, error) {
	images, err := s.images(index)
	if err != nil {
		return Image{}, err
	}
	if img, ok, err := findByID(images, ref); ok || err != nil {
		return img, err
	}
	full, err := Normalise(ref)
	if err != nil {
		return Image{}, err
	}
	for _, img := range images {
		if slices.Contains(img.Tags, full) || slices.Contains(img.Digests, full) {
			return img, nil
		}
	}
	return Image{}, fmt.Errorf("image %q: %w", ref, ErrNotFound)
}

// findByID looks for an image whose ID is ref or begins with it.
func findByID(images []Image, ref string) (Image, bool, error) {
	hex := strings.TrimPrefix(ref, "sha256:")
	if !hexDigits(hex) {
		return Image{}, false, nil
	}
	var found []Image
	for _, img := range images {
		if strings.HasPrefix(strings.TrimPrefix(img.ID, "sha256:"), hex) {
			found = append(found, img)
		}
	}
	if len(found) > 1 {
		return Image{}, false, fmt.Errorf("image %q: %d images begin so: %w", ref, len(found), ErrAmbiguous)
	}
	if len(found) == 0 {
		return Image{}, false, nil
	}
	return found[0], true, nil
}

// List returns every image, newest first.
func (s *Store) List() ([]Image, error) {
	index, err := s.current()
	if err != nil {
		return nil, err
	}
	images, err := s.images(index)
	slices.SortStableFunc(images, func(a, b Image) int { return b.Created.Compare(a.Created) })
	return images, err
}

// images groups the index's entries by image.
func (s *Store) images(index ocispec.Index) ([]Image, error) {
	byManifest := map[digest.Digest]int{}
	var images []Image
	for _, entry := range index.Manifests {
		at, ok := byManifest[entry.Digest]
		if !ok {
			img, err := s.describe(entry.Digest)
			if err != nil {
				return nil, err
			}
			at = len(images)
			byManifest[entry.Digest] = at
			images = append(images, img)
		}
		images[at].addReference(entry)
	}
	return images, nil
}

// addReference records what one entry of the index calls the image.
func (img *Image) addReference(entry ocispec.Descriptor) {
	ref := entry.Annotations[refAnnotation]
	if ref == "" {
		return
	}
	if !strings.Contains(ref, "@") {
		img.Tags = append(img.Tags, ref)
	}
	top := entry.Annotations[topAnnotation]
	if top == "" {
		top = entry.Digest.String()
	}
	if d := repository(ref) + "@" + top; !slices.Contains(img.Digests, d) {
		img.Digests = append(img.Digests, d)
	}
}

// describe reads the manifest and config behind a manifest digest, once: what a
// digest names never changes.
func (s *Store) describe(manifest digest.Digest) (Image, error) {
	if known, ok := s.described.Load(manifest); ok {
		return known.(Image), nil
	}
	img, err := s.parse(manifest)
	if err == nil {
		s.described.Store(manifest, img)
	}
	return img, err
}

func (s *Store) parse(manifest digest.Digest) (Image, error) {
	m, err := s.manifest(manifest)
	if err != nil {
		return Image{}, err
	}
	config, err := s.config(m.Config.Digest)
	if err != nil {
		return Image{}, err
	}
	img := Image{
		ID: m.Config.Digest.String(), Manifest: manifest, Config: config,
		Layers: m.Layers, Size: m.Config.Size,
	}
	if config.Created != nil {
		img.Created = *config.Created
	}
	for _, l := range m.Layers {
		img.Size += l.Size
	}
	return img, nil
}

func (s *Store) manifest(d digest.Digest) (ocispec.Manifest, error) {
	var m ocispec.Manifest
	raw, err := s.readBlob(d)
	if err != nil {
		return m, err
	}
	if err := json.Unmarshal(raw, &m); err != nil {
		return m, fmt.Errorf("manifest %q: %w: %w", d, ErrInvalid, err)
	}
	return m, nil
}

func (s *Store) config(d digest.Digest) (ocispec.Image, error) {
	var c ocispec.Image
	raw, err := s.readBlob(d)
	if err != nil {
		return c, err
	}
	if err := json.Unmarshal(raw, &c); err != nil {
		return c, fmt.Errorf("image config %q: %w: %w", d, ErrInvalid, err)
	}
	return c, nil
}

// Tag gives the image src one more reference.
func (s *Store) Tag(src, dst string) error {
	full, err := Normalise(dst)
	if err != nil {
		return err
	}
	if strings.Contains(full, "@") {
		return fmt.Errorf("tag %q: a digest cannot be given as a name: %w", dst, ErrInvalid)
	}
	return s.change(func(index *ocispec.Index) error {
		img, err := s.find(*index, src)
		if err != nil {
			return err
		}
		return s.point(index, full, img.Manifest)
	})
}

// point makes ref lead to a manifest that is in the store.
func (s *Store) point(index *ocispec.Index, ref string, manifest digest.Digest) error {
	raw, err := s.readBlob(manifest)
	if err != nil {
		return err
	}
	var kind struct {
		MediaType string `json:"mediaType"`
	}
	if err := json.Unmarshal(raw, &kind); err != nil {
		return fmt.Errorf("manifest %q: %w: %w", manifest, ErrInvalid, err)
	}
	if kind.MediaType == "" {
		kind.MediaType = ocispec.MediaTypeImageManifest
	}
	entry := ocispec.Descriptor{
		MediaType: kind.MediaType, Digest: manifest, Size: int64(len(raw)),
		Annotations: map[string]string{refAnnotation: ref},
	}
	index.Manifests = slices.DeleteFunc(index.Manifests, func(d ocispec.Descriptor) bool {
		return d.Annotations[refAnnotation] == ref
	})
	index.Manifests = append(index.Manifests, entry)
	return nil
}
