package build

import (
	"context"
	"encoding/json"
	"fmt"

	digest "github.com/opencontainers/go-digest"
	"github.com/opencontainers/image-spec/specs-go"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/sampan-dev/sampan/node/image"
)

// built is what one platform has come to.
type built struct {
	image      image.Image
	platform   platform
	provenance Provenance
}

// commit makes the finished stage an image, and names it unless it is to be part
// of an index.
func (b *builder) commit(ctx context.Context, st *stage) (image.Image, error) {
	for k, v := range b.opts.Labels {
		if st.config.Config.Labels == nil {
			st.config.Config.Labels = map[string]string{}
		}
		st.config.Config.Labels[k] = v
	}
	created := st.created.UTC()
	if b.opts.Epoch != nil {
		created = b.opts.Epoch.UTC()
		for i := range st.config.History {
			if h := &st.config.History[i]; h.Created == nil || h.Created.After(created) {
				h.Created = &created
			}
		}
	}
	if !created.IsZero() {
		st.config.Created = &created
	}
	if !whole(st.config.History, len(st.layers)) {
		st.config.History = nil
	}
	tags := b.opts.Tags
	if len(tags) == 0 || !b.alone {
		tags = []string{""}
	}
	annotations, err := b.annotations(st)
	if err != nil {
		return image.Image{}, err
	}
	var img image.Image
	for _, tag := range tags {
		made, err := b.content.Commit(ctx, st.config, st.layers, image.Naming{Ref: tag, Extra: st.extra, Unlisted: !b.alone, Annotations: annotations})
		if err != nil {
			return image.Image{}, fmt.Errorf("commit %q: %w", tag, err)
		}
		img = made
	}
	return img, nil
}

// whole says whether a history tells of every layer: a base without one spoils it,
// and no history is better than a wrong one.
func whole(history []ocispec.History, layers int) bool {
	for _, h := range history {
		if !h.EmptyLayer {
			layers--
		}
	}
	return layers == 0
}

// The annotations with which BuildKit attaches statements to images.
const (
	refType   = "vnd.docker.reference.type"
	refDigest = "vnd.docker.reference.digest"
)

// join makes an index of the platforms' images, with a statement beside each when
// provenance is wanted, and names it.
func (b *builder) join(parts []built) (image.Image, error) {
	var list []ocispec.Descriptor
	for _, p := range parts {
		size, err := b.content.Size(p.image.Manifest)
		if err != nil {
			return image.Image{}, err
		}
		at := p.platform.oci()
		list = append(list, ocispec.Descriptor{MediaType: ocispec.MediaTypeImageManifest, Digest: p.image.Manifest, Size: size, Platform: &at})
	}
	for i, p := range parts {
		if !b.opts.Provenance {
			break
		}
		desc, err := b.attest(p, list[i])
		if err != nil {
			return image.Image{}, fmt.Errorf("provenance: %w", err)
		}
		list = append(list, desc)
	}
	d, err := b.content.CommitIndex(list, b.opts.Tags)
	if err != nil {
		return image.Image{}, fmt.Errorf("commit the index: %w", err)
	}
	img := parts[0].image
	img.Index = d
	return img, nil
}

// attest stores a statement as BuildKit does: a manifest whose layer it is.
func (b *builder) attest(p built, of ocispec.Descriptor) (ocispec.Descriptor, error) {
	statement, err := p.provenance.statement(b.opts.Tags, of)
	if err != nil {
		return ocispec.Descriptor{}, err
	}
	const intoto = "application/vnd.in-toto+json"
	layer, err := b.put(statement, intoto)
	if err != nil {
		return ocispec.Descriptor{}, err
	}
	layer.Annotations = map[string]string{"in-toto.io/predicate-type": predicateType}
	raw, err := json.Marshal(ocispec.Image{
		Platform: ocispec.Platform{OS: "unknown", Architecture: "unknown"},
		RootFS:   ocispec.RootFS{Type: "layers", DiffIDs: []digest.Digest{layer.Digest}},
	})
	if err != nil {
		return ocispec.Descriptor{}, err
	}
	config, err := b.put(raw, ocispec.MediaTypeImageConfig)
	if err != nil {
		return ocispec.Descriptor{}, err
	}
	raw, err = json.Marshal(ocispec.Manifest{
		Versioned: specs.Versioned{SchemaVersion: 2}, MediaType: ocispec.MediaTypeImageManifest,
		Config: config, Layers: []ocispec.Descriptor{layer},
	})
	if err != nil {
		return ocispec.Descriptor{}, err
	}
	desc, err := b.put(raw, ocispec.MediaTypeImageManifest)
	desc.Platform = &ocispec.Platform{OS: "unknown", Architecture: "unknown"}
	desc.Annotations = map[string]string{refType: "attestation-manifest", refDigest: of.Digest.String()}
	return desc, err
}

func (b *builder) put(raw []byte, mediaType string) (ocispec.Descriptor, error) {
	d, err := b.content.Put(raw)
	return ocispec.Descriptor{MediaType: mediaType, Digest: d, Size: int64(len(raw))}, err
}
