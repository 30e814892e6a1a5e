package build

import (
	"context"
	"fmt"
	"maps"
	"sync"

	digest "github.com/opencontainers/go-digest"

	"github.com/sampan-dev/sampan/node/image"
)

// CachePlace is where the layers of builds are kept for other machines: in a
// registry, in a directory, or in the image itself.
type CachePlace struct {
	// Ref is a registry's reference, Dir a directory; neither means the image that
	// is built, which then tells of its own layers.
	Ref, Dir string
	// Max keeps the layers of all stages, and not of the result alone.
	Max bool
	// IgnoreError: that it could not be written is a warning.
	IgnoreError bool
}

// travel are the layers that come from elsewhere and go there.
type travel struct {
	from []*image.Souvenirs

	mu sync.Mutex
	// used are all that the build has made or found, by key, final those among them
	// that are in a result.
	used  image.Memories
	final map[digest.Digest]bool
}

// note remembers that a layer was made or found.
func (t *travel) note(key string, m image.Memory) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.used[key] = m
}

// buildWith builds with the caches of elsewhere. That one cannot be had is no reason
// not to build.
func buildWith(ctx context.Context, b *builder) (image.Image, error) {
	b.travel = &travel{used: image.Memories{}, final: map[digest.Digest]bool{}}
	for _, place := range b.opts.CacheFrom {
		found, err := b.open(ctx, place)
		if err != nil {
			b.opts.Warn(Warning{Text: "without " + err.Error()})
			continue
		}
		defer found.Close() //nolint:gocritic // they are wanted until all is built
		b.travel.from = append(b.travel.from, found)
	}
	img, err := buildAll(ctx, b)
	if err != nil {
		return img, err
	}
	for _, place := range b.opts.CacheTo {
		err := b.send(ctx, place)
		if err != nil && place.IgnoreError {
			b.opts.Warn(Warning{Text: err.Error()})
			continue
		}
		if err != nil {
			return image.Image{}, err
		}
	}
	return img, nil
}

func (b *builder) open(ctx context.Context, place CachePlace) (*image.Souvenirs, error) {
	if place.Dir != "" {
		return b.content.ReadMemories(ctx, place.Dir)
	}
	return b.content.FetchMemories(ctx, place.Ref, b.opts.Pulls)
}

// recall finds the layer of a key here, or elsewhere.
func (b *builder) recall(ctx context.Context, key string) (image.Memory, bool) {
	if known, ok := b.opts.Images.Recall(key); ok {
		return known, true
	}
	for _, from := range b.travel.from {
		m, ok, err := from.Recall(ctx, key)
		if err != nil {
			b.opts.Warn(Warning{Text: fmt.Sprintf("a layer of another build's cache can't be had: %v", err)})
		}
		if ok && err == nil {
			return m, true
		}
	}
	return image.Memory{}, false
}

// send keeps the build's layers at a place.
func (b *builder) send(ctx context.Context, place CachePlace) error {
	if place.Ref == "" && place.Dir == "" {
		return nil // they are in the image
	}
	d, err := b.content.PutMemories(b.travel.all(place.Max))
	if err != nil {
		return fmt.Errorf("build cache: %w", err)
	}
	if place.Dir != "" {
		err = b.content.WriteMemories(d, place.Dir)
	} else {
		err = b.content.PushMemories(ctx, d, place.Ref, b.opts.Pulls)
	}
	if err != nil {
		return fmt.Errorf("build cache: %w", err)
	}
	return nil
}

// all are the layers of all stages, or those of the result.
func (t *travel) all(everything bool) image.Memories {
	t.mu.Lock()
	defer t.mu.Unlock()
	kept := maps.Clone(t.used)
	if !everything {
		maps.DeleteFunc(kept, func(_ string, m image.Memory) bool { return !t.final[m.Layer.Blob.Digest] })
	}
	return kept
}

// annotations are those that were asked for, and the records of the stage's own
// layers when they are to be in the image, in which they are packed.
func (b *builder) annotations(st *stage, packed []image.Layer) (map[string]string, error) {
	b.travel.mu.Lock()
	own := map[digest.Digest]image.Layer{}
	for i, l := range st.layers {
		own[l.Blob.Digest], b.travel.final[l.Blob.Digest] = packed[i], true
	}
	b.travel.mu.Unlock()
	notes := maps.Clone(b.opts.Annotations)
	for _, place := range b.opts.CacheTo {
		if place.Ref != "" || place.Dir != "" {
			continue
		}
		records := b.travel.all(true)
		for key, m := range records {
			layer, ok := own[m.Layer.Blob.Digest]
			if m.Layer = layer; !ok {
				delete(records, key)
				continue
			}
			records[key] = m
		}
		text, err := records.Encode()
		if err != nil {
			return nil, err
		}
		if notes == nil {
			notes = map[string]string{}
		}
		notes[image.MemoriesAnnotation] = text
	}
	return notes, nil
}
