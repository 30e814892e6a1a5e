package remote

import (
	"encoding/json"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// MediaTypeOf is a manifest's or an index' own word for what it is, or what its
// fields make of it; "" when it is neither.
func MediaTypeOf(raw []byte) string {
	var kind struct {
		MediaType string          `json:"mediaType"`
		Manifests json.RawMessage `json:"manifests"`
		Config    json.RawMessage `json:"config"`
	}
	if json.Unmarshal(raw, &kind) != nil {
		return ""
	}
	switch {
	case kind.MediaType != "":
		return kind.MediaType
	case kind.Manifests != nil:
		return ocispec.MediaTypeImageIndex
	case kind.Config != nil:
		return ocispec.MediaTypeImageManifest
	}
	return ""
}

// IsIndex says whether a media type is that of a list of manifests.
func IsIndex(mediaType string) bool {
	return mediaType == ocispec.MediaTypeImageIndex || mediaType == DockerManifestList
}

// IsManifest says whether a media type is that of one image's manifest.
func IsManifest(mediaType string) bool {
	return mediaType == ocispec.MediaTypeImageManifest || mediaType == DockerManifest
}
