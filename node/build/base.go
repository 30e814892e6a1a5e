package build

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/moby/buildkit/frontend/dockerfile/linter"

	"github.com/sampan-dev/sampan/node/image"
)

// base finds an image for a platform in the store, or pulls it.
func (b *builder) base(ctx context.Context, ref string, p platform) (image.Image, []image.Layer, error) {
	b.mu.Lock() // two stages on one base pull it once
	defer b.mu.Unlock()
	img, layers, err := b.content.Base(ref)
	fits := err == nil && img.Config.Architecture == p.arch && (p.variant == "" || img.Config.Variant == "" || img.Config.Variant == p.variant)
	asked := b.opts.Pull
	if pulled, ok := b.pulled[ref+" "+p.String()]; ok {
		asked = false
		if pulled != nil {
			return image.Image{}, nil, pulled
		}
	}
	if err != nil && !errors.Is(err, image.ErrNotFound) {
		return image.Image{}, nil, err
	}
	if !fits || asked {
		opts := b.opts.Pulls
		opts.Architecture = p.pull()
		_, pullErr := b.opts.Images.Pull(ctx, ref, opts)
		if errors.Is(pullErr, image.ErrPlatform) { // it is in no index: what is copied from it may do
			opts.Architecture = ""
			_, pullErr = b.opts.Images.Pull(ctx, ref, opts)
		}
		if pullErr != nil {
			pullErr = fmt.Errorf("base image %q %s: %w", ref, why(err == nil, fits, p), pullErr)
		}
		b.pulled[ref+" "+p.String()] = pullErr
		if pullErr != nil {
			return image.Image{}, nil, pullErr
		}
		if img, layers, err = b.content.Base(ref); err != nil {
			return image.Image{}, nil, err
		}
		if img.Config.Architecture != p.arch {
			rule := linter.RuleInvalidBaseImagePlatform
			b.opts.Warn(Warning{Rule: rule.Name, Text: rule.Format(ref, p.String(), "linux/"+img.Config.Architecture)})
		}
	}
	b.noteBase(ref, img)
	return img, layers, nil
}

// why says what was wrong with what is here.
func why(here, fits bool, p platform) string {
	switch {
	case !here:
		return "is not here and could not be pulled"
	case !fits:
		return "is here, but not for " + p.String() + ", and could not be pulled"
	}
	return "could not be pulled anew"
}

// noteBase is used for a base image; the caller holds mu.
func (b *builder) noteBase(ref string, img image.Image) {
	full, err := image.Normalise(ref)
	if err != nil {
		full = ref
	}
	m := material{URI: "pkg:docker/" + strings.ReplaceAll(full, ":", "@"), Digest: map[string]string{"sha256": img.Manifest.Encoded()}}
	for _, known := range b.materials {
		if known.URI == m.URI {
			return
		}
	}
	b.materials = append(b.materials, m)
}

// sourceLayers are the layers of what --from names: a stage, or an image.
func (b *builder) sourceLayers(ctx context.Context, st *stage, from string) ([]image.Layer, string, error) {
	if c, ok := b.contextOf(from); ok && c.Image != "" {
		from = c.Image
	}
	if from == scratch {
		return nil, scratch, nil
	}
	if i := b.stageBefore(from, st.index); i >= 0 {
		other, err := b.await(ctx, i)
		if err != nil {
			return nil, "", err
		}
		return other.layers, other.key, nil
	}
	for _, later := range b.file.stages[st.index:] {
		if _, replaced := b.contextOf(from); !replaced && strings.EqualFold(later.Name, from) {
			return nil, "", fmt.Errorf("cannot copy from stage %q, it needs to be defined before current stage %q: %w", from, st.name, image.ErrInvalid)
		}
	}
	img, layers, err := b.base(ctx, from, st.platform)
	return layers, img.Manifest.String(), err
}
