package build

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
	"time"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/sampan-dev/sampan/node/image"
)

// MaxImport is the most bytes of an archive, unpacked, that FromArchive takes.
const MaxImport = 64 << 30

// Given is what an image is made of that comes from no Dockerfile, beside its files.
type Given struct {
	// Ref names it; "" lists it without a name.
	Ref string
	// Author, Command and Message are told by its history.
	Author, Command, Message string
	// Config is what its containers begin with.
	Config ocispec.ImageConfig
	// Platform is what an archive's programs are for ("linux/arm64"); "" is this
	// machine.
	Platform string
	// Changes are instructions of a Dockerfile that change the config.
	Changes []string
}

// FromSnapshot makes an image of what a container has: the layers of the image that it
// was made of, and one of all that it has changed. Without such a snapshot the error
// is fs.ErrNotExist.
func FromSnapshot(ctx context.Context, images *image.Store, key string, base image.Image, given Given) (image.Image, error) {
	places, err := images.Snapshot(key)
	if err != nil {
		return image.Image{}, err
	}
	content, err := images.NewBuild()
	if err != nil {
		return image.Image{}, err
	}
	defer content.Close()
	b := &builder{content: content, opts: Options{Images: images}}
	st := &stage{extra: map[string]any{}}
	if err := b.adopt(st, base); err != nil {
		return image.Image{}, err
	}
	layer, err := b.pack(ctx, places.Upper)
	if err != nil {
		return image.Image{}, err
	}
	config := base.Config
	config.History = slices.Clone(base.Config.History)
	return given.commit(ctx, b, config, append(layersOf(base), layer), st.extra)
}

// FromArchive makes an image of a tar archive, compressed or not: its one layer.
func FromArchive(ctx context.Context, images *image.Store, archive io.Reader, given Given) (image.Image, error) {
	p, err := parsePlatform(given.Platform)
	if err != nil {
		return image.Image{}, err
	}
	plain, done, err := decompress(archive)
	if err != nil {
		return image.Image{}, err
	}
	defer done()
	content, err := images.NewBuild()
	if err != nil {
		return image.Image{}, err
	}
	defer content.Close()
	bounded := &io.LimitedReader{R: plain, N: MaxImport + 1}
	layer, err := content.WriteLayer(bounded)
	if err != nil {
		return image.Image{}, err
	}
	if bounded.N <= 0 {
		return image.Image{}, fmt.Errorf("an archive of more than %d bytes: %w", int64(MaxImport), image.ErrTooLarge)
	}
	b := &builder{content: content, opts: Options{Images: images}}
	return given.commit(ctx, b, ocispec.Image{Platform: p.oci()}, []image.Layer{layer}, nil)
}

// commit stores the image, and makes another of it where there are changes.
func (g Given) commit(ctx context.Context, b *builder, config ocispec.Image, layers []image.Layer, extra map[string]any) (image.Image, error) {
	now := time.Now().UTC()
	config.Created, config.Author, config.Config = &now, g.Author, g.Config
	config.History = append(config.History, ocispec.History{Created: &now, CreatedBy: g.Command, Author: g.Author, Comment: g.Message})
	if !whole(config.History, len(layers)) {
		config.History = nil
	}
	ref := g.Ref
	if len(g.Changes) > 0 {
		ref = ""
	}
	img, err := b.content.Commit(ctx, config, layers, image.Naming{Ref: ref, Extra: extra})
	if err != nil || len(g.Changes) == 0 {
		return img, err
	}
	made, err := g.change(ctx, b.opts.Images, img)
	return made, errors.Join(err, b.opts.Images.Remove(img.ID)) // it was a step on the way
}

// change makes an image of another and Changes.
func (g Given) change(ctx context.Context, images *image.Store, from image.Image) (image.Image, error) {
	none, err := os.MkdirTemp("", "sampan-changes-")
	if err != nil {
		return image.Image{}, err
	}
	defer os.RemoveAll(none)
	opts := Options{
		Images: images, Context: none, Dockerfile: "--change", Content: []byte("FROM " + from.ID + "\n" + strings.Join(g.Changes, "\n") + "\n"),
		Platforms: []string{platform{arch: from.Config.Architecture, variant: from.Config.Variant}.String()},
	}
	if g.Ref != "" {
		opts.Tags = []string{g.Ref}
	}
	return Build(ctx, opts)
}
