package image

import (
	"archive/tar"
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path"
	"path/filepath"
	"strings"

	"github.com/klauspost/compress/gzip"
	"github.com/klauspost/compress/zstd"
	digest "github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/sampan-dev/sampan/internal/atomicfile"
)

// maxZstdWindow bounds the memory that a zstd frame may ask for.
const maxZstdWindow = 128 << 20

// unpackAll makes every layer of an image ready for overlayfs, bottom first.
func (s *Store) unpackAll(ctx context.Context, img Image) error {
	if len(img.Layers) != len(img.Config.RootFS.DiffIDs) {
		return fmt.Errorf("image %q: %d layers but %d diff IDs: %w",
			img.ID, len(img.Layers), len(img.Config.RootFS.DiffIDs), ErrInvalid)
	}
	if len(img.Layers) > MaxLayers {
		return fmt.Errorf("image %q: %d layers, at most %d: %w", img.ID, len(img.Layers), MaxLayers, ErrTooLarge)
	}
	var below []string
	for i, layer := range img.Layers {
		chain := img.Chain(i)
		if err := s.unpackOne(ctx, layer, unpacking{chain: chain, diff: img.Config.RootFS.DiffIDs[i], below: below}); err != nil {
			return err
		}
		below = append(below, s.layerPath(chain))
	}
	return nil
}

// unpacking is one layer's destination.
type unpacking struct {
	chain digest.Digest
	// diff is the digest that the uncompressed tar must have.
	diff digest.Digest
	// below are the unpacked layers under this one, bottom first.
	below []string
}

// unpackOne unpacks one layer under its chain ID unless it is there already.
func (s *Store) unpackOne(ctx context.Context, layer ocispec.Descriptor, to unpacking) error {
	defer s.unpacking.lock(to.chain.String())()
	final := s.layerPath(to.chain)
	if _, err := os.Stat(final); err == nil {
		return nil
	}
	blob, err := s.openBlob(layer.Digest)
	if err != nil {
		return fmt.Errorf("layer %q: %w", layer.Digest, err)
	}
	defer blob.Close()
	tmp, err := os.MkdirTemp(filepath.Join(s.root, "ingest"), "layer-*")
	if err != nil {
		return fmt.Errorf("layer %q: %w", layer.Digest, err)
	}
	defer os.RemoveAll(tmp)
	got, err := unpackStream(ctx, blob, layer.Size, tmp, to.below)
	if err != nil {
		return fmt.Errorf("layer %q: %w", layer.Digest, err)
	}
	if got != to.diff {
		return fmt.Errorf("layer %q: unpacked content has digest %q, config says %q: %w",
			layer.Digest, got, to.diff, ErrInvalid)
	}
	return publish(tmp, final)
}

// publish makes an unpacked layer durable and then visible. One sync of the file
// system is far cheaper than an fsync per file.
func publish(tmp, final string) error {
	if err := syncFilesystem(tmp); err != nil {
		return err
	}
	if err := os.Rename(tmp, final); err != nil {
		return err
	}
	return atomicfile.SyncDir(filepath.Dir(final))
}

// unpackStream writes a possibly compressed tar below dir and returns the digest
// of the uncompressed stream.
func unpackStream(ctx context.Context, r io.Reader, size int64, dir string, below []string) (digest.Digest, error) {
	plain, done, err := Decompress(r)
	if err != nil {
		return "", err
	}
	defer done()
	limited := &bomb{r: plain, allowed: max(RatioFloor, size*MaxRatio)}
	counted := newCounter(limited)
	root, err := os.OpenRoot(dir)
	if err != nil {
		return "", err
	}
	defer root.Close()
	if err := os.Chmod(dir, 0o755); err != nil {
		return "", err
	}
	x := &extractor{root: root, below: below}
	if err := x.extract(ctx, tar.NewReader(counted)); err != nil {
		return "", err
	}
	// What follows the end-of-archive marker belongs to the digest too.
	if _, err := io.Copy(io.Discard, counted); err != nil {
		return "", err
	}
	return counted.hash.Digest(), nil
}

// Decompress looks at the first bytes and undoes gzip or zstd; anything else it
// passes on. Call done when the reader is no longer used.
func Decompress(r io.Reader) (plain io.Reader, done func(), err error) {
	buffered := bufio.NewReaderSize(r, 1<<16)
	magic, err := buffered.Peek(4)
	if err != nil && !errors.Is(err, io.EOF) {
		return nil, nil, err
	}
	switch {
	case bytes.HasPrefix(magic, []byte{0x1f, 0x8b}):
		z, err := gzip.NewReader(buffered)
		if err != nil {
			return nil, nil, fmt.Errorf("gzip: %w: %w", ErrInvalid, err)
		}
		return z, func() { _ = z.Close() }, nil
	case bytes.Equal(magic, []byte{0x28, 0xb5, 0x2f, 0xfd}):
		z, err := zstd.NewReader(buffered, zstd.WithDecoderMaxWindow(maxZstdWindow), zstd.WithDecoderConcurrency(2))
		if err != nil {
			return nil, nil, fmt.Errorf("zstd: %w: %w", ErrInvalid, err)
		}
		return z, z.Close, nil
	}
	return buffered, func() {}, nil
}

// bomb stops a stream that grows beyond what its compressed size allows.
type bomb struct {
	r       io.Reader
	allowed int64
}

func (b *bomb) Read(p []byte) (int, error) {
	n, err := b.r.Read(p)
	if b.allowed -= int64(n); b.allowed < 0 {
		return n, fmt.Errorf("layer unpacks to more than %d times its size: %w", MaxRatio, ErrTooLarge)
	}
	return n, err
}

// cleanPath makes a tar entry's name relative to the layer's root.
func cleanPath(name string) (string, error) {
	if len(name) > MaxPath {
		return "", fmt.Errorf("entry name of %d bytes, at most %d: %w", len(name), MaxPath, ErrTooLarge)
	}
	clean := strings.TrimPrefix(path.Clean("/"+name), "/")
	if clean == "" {
		return ".", nil
	}
	return clean, nil
}
