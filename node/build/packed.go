package build

import (
	"fmt"
	"slices"
	"time"

	"github.com/sampan-dev/sampan/node/image"
)

// packed are a stage's layers, compressed as it is wanted: those of the base image only
// when that is asked for. What has been compressed before is known by the build cache.
func (b *builder) packed(st *stage) ([]image.Layer, error) {
	how := b.opts.Compression
	if how.Kind == "" && how.Level == nil {
		return st.layers, nil
	}
	all := slices.Clone(st.layers)
	for i, l := range all {
		if i < st.below && !b.opts.Recompress || how.Level == nil && l.Compressed(how) {
			continue
		}
		key := digestOf("compressed", how.String(), l.Blob.Digest.String())
		if known, ok := b.opts.Images.Recall(key); ok {
			all[i] = known.Layer
			continue
		}
		layer, err := b.content.Repack(l, how)
		if err != nil {
			return nil, fmt.Errorf("compress: %w", err)
		}
		all[i] = layer
		made := image.Memory{Layer: layer, Created: time.Now().UTC().Truncate(time.Second), Text: "compressed with " + how.String()}
		if err := b.opts.Images.Remember(key, made); err != nil {
			return nil, fmt.Errorf("build cache: %w", err)
		}
	}
	return all, nil
}

// dockerTypes says whether the image is to have Docker's media types. As BuildKit, it
// has the OCI's where Docker has no words for a layer, or for statements about the image.
func (b *builder) dockerTypes(layers []image.Layer) bool {
	if !b.opts.DockerTypes {
		return false
	}
	why := ""
	if slices.ContainsFunc(layers, image.Layer.Wordless) {
		why = "layers of zstd"
	}
	if b.opts.attests() {
		why = "statements about images"
	}
	if why != "" {
		b.opts.Warn(Warning{Text: "the image has the OCI's media types: Docker has none for " + why})
	}
	return why == ""
}
