package image

import (
	"fmt"
	"io"
	"strings"

	"github.com/klauspost/compress/gzip"
	"github.com/klauspost/compress/zstd"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/sampan-dev/sampan/node/image/remote"
)

// How a layer's tar is compressed.
const (
	Gzip         = "gzip"
	Zstd         = "zstd"
	Uncompressed = "uncompressed"
)

// zstdLevel is what the zstd program does unless told otherwise.
const zstdLevel = 3

// Compression is a way to compress layers. The zero value is what builds do unless asked:
// gzip, and quickly.
type Compression struct {
	// Kind is Gzip, Zstd or Uncompressed; "" is Gzip.
	Kind string
	// Level is 0 to 9 of gzip, 0 to 22 of zstd; nil is 1 of gzip and 3 of zstd.
	Level *int
}

// Check says what is wrong with it, if anything.
func (c Compression) Check() error {
	most := map[string]int{"": gzip.BestCompression, Gzip: gzip.BestCompression, Zstd: 22, Uncompressed: 0}
	limit, ok := most[c.Kind]
	if !ok {
		return fmt.Errorf("compression %q: want %s, %s or %s: %w", c.Kind, Gzip, Zstd, Uncompressed, ErrInvalid)
	}
	if c.Level != nil && c.Kind != Uncompressed && (*c.Level < 0 || *c.Level > limit) {
		return fmt.Errorf("compression level %d: want 0 to %d: %w", *c.Level, limit, ErrInvalid)
	}
	return nil
}

// String names it, for a key.
func (c Compression) String() string {
	if c.Level == nil || c.Kind == Uncompressed {
		return c.Kind
	}
	return fmt.Sprintf("%s %d", c.Kind, *c.Level)
}

// mediaType is that of a layer that is compressed so.
func (c Compression) mediaType() string {
	switch c.Kind {
	case Zstd:
		return ocispec.MediaTypeImageLayerZstd
	case Uncompressed:
		return ocispec.MediaTypeImageLayer
	}
	return ocispec.MediaTypeImageLayerGzip
}

// writer compresses into w. Equal input gives equal output.
func (c Compression) writer(w io.Writer) (io.WriteCloser, error) {
	if err := c.Check(); err != nil {
		return nil, err
	}
	level := gzip.BestSpeed
	if c.Kind == Zstd {
		level = zstdLevel
	}
	if c.Level != nil {
		level = *c.Level
	}
	switch c.Kind {
	case Uncompressed:
		return plain{w}, nil
	case Zstd:
		return zstd.NewWriter(w, zstd.WithEncoderLevel(zstd.EncoderLevelFromZstd(level)), zstd.WithEncoderConcurrency(1))
	}
	return gzip.NewWriterLevel(w, level)
}

// plain compresses nothing.
type plain struct{ io.Writer }

func (plain) Close() error { return nil }

// Compressed says whether a layer is compressed in some way of this kind.
func (l Layer) Compressed(c Compression) bool {
	return ociType(l.Blob.MediaType) == c.mediaType()
}

// Repack stores the tar of a layer that is here once more, compressed in another way. The
// caller holds a Build.
func (b *Build) Repack(l Layer, c Compression) (Layer, error) {
	f, err := b.store.openBlob(l.Blob.Digest)
	if err != nil {
		return Layer{}, err
	}
	defer f.Close()
	tarStream, done, err := Decompress(f)
	if err != nil {
		return Layer{}, fmt.Errorf("layer %q: %w", l.Blob.Digest, err)
	}
	defer done()
	packed, err := b.writeLayer(tarStream, c)
	if err != nil {
		return Layer{}, err
	}
	if packed.DiffID != l.DiffID {
		return Layer{}, fmt.Errorf("layer %q: its tar has digest %q, not %q: %w", l.Blob.Digest, packed.DiffID, l.DiffID, ErrInvalid)
	}
	packed.Blob.Annotations = l.Blob.Annotations
	return packed, nil
}

// dockerTypes are Docker's words for what the OCI has named since, without those of layers
// of zstd, for which there is none.
var dockerTypes = map[string]string{ //nolint:gochecknoglobals // a constant table
	ocispec.MediaTypeImageManifest:  remote.DockerManifest,
	ocispec.MediaTypeImageIndex:     remote.DockerManifestList,
	ocispec.MediaTypeImageConfig:    "application/vnd.docker.container.image.v1+json",
	ocispec.MediaTypeImageLayer:     "application/vnd.docker.image.rootfs.diff.tar",
	ocispec.MediaTypeImageLayerGzip: "application/vnd.docker.image.rootfs.diff.tar.gzip",
}

// ociType is the OCI's word for a media type.
func ociType(mediaType string) string {
	for ours, theirs := range dockerTypes {
		if theirs == mediaType {
			return ours
		}
	}
	return mediaType
}

// typeIn is a media type in the words of the OCI, or in Docker's where it has one.
func typeIn(mediaType string, docker bool) string {
	ours := ociType(mediaType)
	if theirs, ok := dockerTypes[ours]; ok && docker {
		return theirs
	}
	return ours
}

// Wordless says whether Docker's media types have no word for a layer.
func (l Layer) Wordless() bool {
	return strings.HasPrefix(typeIn(l.Blob.MediaType, true), "application/vnd.oci.")
}
