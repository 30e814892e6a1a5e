package image

import (
	"context"
	"fmt"
	"strings"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/sampan-dev/sampan/node/image/remote"
)

// Adopt takes in one image of an OCI layout, for all platforms that are there, and gives
// it no name: the one of a tag or a digest, or for "" the only one that there is, or else
// that of the tag latest. Without such the error is ErrNotFound.
func (s *Store) Adopt(ctx context.Context, dir, which string) (Image, error) {
	l, err := openLayout(dir)
	if err != nil {
		return Image{}, fmt.Errorf("layout: %w", err)
	}
	defer l.close()
	var index ocispec.Index
	if err := l.readFile("index.json", &index); err != nil {
		return Image{}, fmt.Errorf("layout %q: %w", dir, err)
	}
	desc, err := entryOf(index, which)
	if err != nil {
		return Image{}, fmt.Errorf("layout %q: %w", dir, err)
	}
	raw, err := s.fetchSmall(ctx, l, desc)
	if err != nil {
		return Image{}, fmt.Errorf("layout %q: %w", dir, err)
	}
	img, err := s.ingest(ctx, l, arrival{top: desc, raw: raw, all: true, made: true})
	if err != nil {
		return Image{}, fmt.Errorf("layout %q: image %q: %w", dir, desc.Digest, err)
	}
	return img, nil
}

// entryOf chooses among the images of a layout's index.
func entryOf(index ocispec.Index, which string) (ocispec.Descriptor, error) {
	var all []ocispec.Descriptor
	for _, d := range index.Manifests {
		if !remote.IsManifest(d.MediaType) && !remote.IsIndex(d.MediaType) {
			continue
		}
		tag := d.Annotations[ocispec.AnnotationRefName]
		wanted := which
		if which == "" {
			wanted = "latest"
		}
		if d.Digest.String() == wanted || tag == wanted || strings.HasSuffix(tag, ":"+wanted) {
			return d, nil
		}
		all = append(all, d)
	}
	if which == "" && len(all) == 1 {
		return all[0], nil
	}
	if which == "" {
		return ocispec.Descriptor{}, fmt.Errorf("%d images, none of them latest: name one by its tag or digest: %w", len(all), ErrNotFound)
	}
	return ocispec.Descriptor{}, fmt.Errorf("image %q: %w", which, ErrNotFound)
}
