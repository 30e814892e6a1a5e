package image

import (
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	digest "github.com/opencontainers/go-digest"
	"github.com/opencontainers/image-spec/identity"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/sampan-dev/sampan/node/image/remote"
)

// Image is one image as the store knows it: a manifest, its config, and the
// references that lead to it.
type Image struct {
	// ID is the digest of the config, "sha256:…", as every engine shows it.
	ID string
	// Manifest is the digest of the manifest.
	Manifest digest.Digest
	// Index is the digest of the index that a build has just made around it.
	Index digest.Digest `json:",omitempty"`
	// Tags are the normalised references with a tag; Digests those with one.
	Tags    []string
	Digests []string
	// Pinned: somebody has asked that it stays, though nobody uses it (Keep).
	Pinned bool `json:",omitempty"`
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

// Repositories are those in which the image has a name.
func (img Image) Repositories() []string {
	var all []string
	for _, ref := range append(slices.Clone(img.Tags), img.Digests...) {
		if r := repository(ref); !slices.Contains(all, r) {
			all = append(all, r)
		}
	}
	return all
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
		if slices.Contains(img.Tags, full) || slices.Contains(img.Digests, full) ||
			strings.HasSuffix(full, "@"+img.Manifest.String()) && slices.Contains(img.Repositories(), repository(full)) {
			return s.exactly(index, img, full)
		}
	}
	if err := s.damagedAt(index, ref, full); err != nil {
		return Image{}, err
	}
	return Image{}, fmt.Errorf("image %q: %w", ref, ErrNotFound)
}

// exactly is the image with the very manifest that a reference leads to, where it
// has several.
func (s *Store) exactly(index ocispec.Index, img Image, full string) (Image, error) {
	for _, entry := range index.Manifests {
		if entry.Annotations[refAnnotation] != full && !strings.HasSuffix(full, "@"+entry.Digest.String()) {
			continue
		}
		chosen, err := s.choose(entry)
		if err != nil || chosen == img.Manifest {
			return img, err
		}
		exact, err := s.describe(chosen)
		exact.Tags, exact.Digests, exact.Pinned = img.Tags, img.Digests, img.Pinned
		return exact, err
	}
	return img, nil
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

// images groups the index's entries by image. Manifests that differ in how layers
// are compressed, as when another tool has pushed them, are one image. What is damaged
// is told, and left out.
func (s *Store) images(index ocispec.Index) ([]Image, error) {
	byID := map[string]int{}
	var images []Image
	for _, entry := range index.Manifests {
		img, err := s.whole(entry)
		if errors.Is(err, errNoImage) {
			continue
		}
		if err != nil && isDamage(err) {
			s.tell(entry, err)
			continue
		}
		if err != nil {
			return nil, err
		}
		at, ok := byID[img.ID]
		if !ok {
			at = len(images)
			byID[img.ID] = at
			images = append(images, img)
		}
		images[at].addReference(entry)
	}
	return images, nil
}

// errNoImage: an index that names no image, but other indexes, or nothing.
var errNoImage = fmt.Errorf("no image is in it: %w", ErrNotFound)

// choose is the manifest that an entry stands for: itself, or out of an index the
// one for this machine, or else the first that is here.
func (s *Store) choose(entry ocispec.Descriptor) (digest.Digest, error) {
	if remote.IsManifest(entry.MediaType) {
		return entry.Digest, nil
	}
	if known, ok := s.chosen.Load(entry.Digest); ok {
		return known.(digest.Digest), nil
	}
	raw, err := s.readBlob(entry.Digest)
	if err != nil {
		return "", err
	}
	if !remote.IsIndex(remote.MediaTypeOf(raw)) {
		return entry.Digest, nil
	}
	var list ocispec.Index
	if err := json.Unmarshal(raw, &list); err != nil {
		return "", fmt.Errorf("index %q: %w: %w", entry.Digest, ErrInvalid, err)
	}
	if !slices.ContainsFunc(list.Manifests, func(d ocispec.Descriptor) bool { return remote.IsManifest(d.MediaType) }) {
		return "", fmt.Errorf("index %q: %w", entry.Digest, errNoImage)
	}
	here := slices.DeleteFunc(list.Manifests, func(d ocispec.Descriptor) bool {
		return !remote.IsManifest(d.MediaType) || !s.hasBlob(d.Digest)
	})
	picked, ok := pick(here, "")
	if !ok && len(here) > 0 {
		picked, ok = here[0], true
	}
	if !ok {
		return "", fmt.Errorf("index %q: none of its images is here: %w", entry.Digest, ErrNotFound)
	}
	s.chosen.Store(entry.Digest, picked.Digest)
	return picked.Digest, nil
}

// target is the digest that ref leads to: an index where it names one, else a
// manifest.
func (s *Store) target(ref string) (digest.Digest, error) {
	index, err := s.current()
	if err != nil {
		return "", err
	}
	return s.targetIn(index, ref)
}

func (s *Store) targetIn(index ocispec.Index, ref string) (digest.Digest, error) {
	for _, entry := range index.Manifests { // an index without a name has its digest alone
		if entry.Digest.String() == ref {
			return entry.Digest, nil
		}
	}
	img, err := s.find(index, ref)
	if err != nil {
		return "", err
	}
	full, err := Normalise(ref)
	if err != nil {
		return img.Manifest, nil //nolint:nilerr // an abbreviated ID is no reference
	}
	for _, entry := range index.Manifests {
		if entry.Annotations[refAnnotation] == full || strings.HasSuffix(full, "@"+entry.Digest.String()) {
			return entry.Digest, nil
		}
	}
	return img.Manifest, nil
}

// addReference records what one entry of the index calls the image.
func (img *Image) addReference(entry ocispec.Descriptor) {
	img.Pinned = img.Pinned || entry.Annotations[pinnedAnnotation] != ""
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
	var config ocispec.Image
	if isImageConfig(m.Config.MediaType) { // an artifact's may be anything
		if config, err = s.config(m.Config.Digest); err != nil {
			return Image{}, err
		}
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
		root, err := s.targetIn(*index, src)
		if err != nil {
			return err
		}
		return s.point(index, full, root, made())
	})
}

// point makes ref lead to a manifest or index that is in the store, with notes
// about how it came to be. Without a ref, the manifest is listed unless it is.
func (s *Store) point(index *ocispec.Index, ref string, manifest digest.Digest, notes map[string]string) error {
	raw, err := s.readBlob(manifest)
	if err != nil {
		return err
	}
	entry := ocispec.Descriptor{MediaType: remote.MediaTypeOf(raw), Digest: manifest, Size: int64(len(raw))}
	if entry.MediaType == "" {
		return fmt.Errorf("manifest %q: neither a manifest nor an index: %w", manifest, ErrInvalid)
	}
	if ref == "" {
		if !slices.ContainsFunc(index.Manifests, func(d ocispec.Descriptor) bool { return d.Digest == manifest }) {
			index.Manifests = append(index.Manifests, entry)
		}
		return nil
	}
	entry.Annotations = map[string]string{refAnnotation: ref}
	maps.Copy(entry.Annotations, notes)
	index.Manifests = slices.DeleteFunc(index.Manifests, func(d ocispec.Descriptor) bool {
		// A name replaces the entry without one. It stays pinned, whatever it means now.
		replaced := d.Annotations[refAnnotation] == ref || d.Digest == manifest && d.Annotations[refAnnotation] == ""
		if replaced && d.Annotations[pinnedAnnotation] != "" {
			entry.Annotations[pinnedAnnotation] = d.Annotations[pinnedAnnotation]
		}
		return replaced
	})
	index.Manifests = append(index.Manifests, entry)
	return nil
}

// RawConfig is an image's config as it is stored, with keys that the OCI type
// lacks.
func (s *Store) RawConfig(img Image) ([]byte, error) { return s.readBlob(digest.Digest(img.ID)) }
