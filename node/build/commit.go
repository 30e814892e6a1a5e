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
	sbom       spdx
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
	layers, err := b.packed(st)
	if err != nil {
		return image.Image{}, err
	}
	annotations, err := b.annotations(st, layers)
	if err != nil {
		return image.Image{}, err
	}
	docker := b.dockerTypes(layers)
	var img image.Image
	for _, tag := range tags {
		made, err := b.content.Commit(ctx, st.config, layers, image.Naming{Ref: tag, Extra: st.extra, Unlisted: !b.alone, Annotations: annotations, Docker: docker})
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
		desc, err := b.content.Describe(p.image.Manifest)
		if err != nil {
			return image.Image{}, err
		}
		at := p.platform.oci()
		desc.Platform = &at
		list = append(list, desc)
	}
	for i, p := range parts {
		if !b.opts.attests() {
			break
		}
		desc, err := b.attest(p, list[i])
		if err != nil {
			return image.Image{}, fmt.Errorf("statements about the image: %w", err)
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

// attest stores the statements about an image as BuildKit does: as the layers of a manifest.
func (b *builder) attest(p built, of ocispec.Descriptor) (ocispec.Descriptor, error) {
	var layers []ocispec.Descriptor
	var digests []digest.Digest
	add := func(kind string, predicate any) error {
		raw, err := statement(kind, predicate, b.opts.Tags, of)
		if err != nil {
			return err
		}
		layer, err := b.content.PutLarge(raw)
		layer.MediaType, layer.Annotations = "application/vnd.in-toto+json", map[string]string{"in-toto.io/predicate-type": kind}
		layers, digests = append(layers, layer), append(digests, layer.Digest)
		return err
	}
	if b.opts.SBOM {
		if err := add(sbomType, p.sbom); err != nil {
			return ocispec.Descriptor{}, err
		}
	}
	if b.opts.Provenance {
		if err := add(predicateType, p.provenance); err != nil {
			return ocispec.Descriptor{}, err
		}
	}
	raw, err := json.Marshal(ocispec.Image{
		Platform: ocispec.Platform{OS: "unknown", Architecture: "unknown"},
		RootFS:   ocispec.RootFS{Type: "layers", DiffIDs: digests},
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
		Config: config, Layers: layers,
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
