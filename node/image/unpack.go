package image

import (
	"archive/tar"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path"
	"path/filepath"
	"strings"

	digest "github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/sampan-dev/sampan/internal/atomicfile"
)

// unpacked is a layer that lies in a directory without a name: its content has
// been verified, its place among other layers is still to be found.
type unpacked struct {
	dir string
	// invented are the directories that the layer left out; they get owner and
	// mode from the layers below once those are there.
	invented map[string]bool
}

// discard removes a layer that is not wanted after all.
func (u *unpacked) discard() {
	if u != nil {
		_ = os.RemoveAll(u.dir) // in ingest/, where a sweep would find it
	}
}

// checkLayers compares an image's layers with what its config says of them.
func checkLayers(img Image) error {
	if len(img.Layers) != len(img.Config.RootFS.DiffIDs) {
		return fmt.Errorf("image %q: %d layers but %d diff IDs: %w",
			img.ID, len(img.Layers), len(img.Config.RootFS.DiffIDs), ErrInvalid)
	}
	if len(img.Layers) > MaxLayers {
		return fmt.Errorf("image %q: %d layers, at most %d: %w", img.ID, len(img.Layers), MaxLayers, ErrTooLarge)
	}
	return nil
}

// unpackAll makes every layer of an image, whose blobs are here, ready for
// overlayfs.
func (s *Store) unpackAll(ctx context.Context, img Image) error {
	return s.bring(ctx, img, nil, nil)
}

// fromBlob unpacks a stored blob.
func (s *Store) fromBlob(ctx context.Context, layer ocispec.Descriptor, diff digest.Digest) (*unpacked, error) {
	blob, err := s.openBlob(layer.Digest)
	if err != nil {
		return nil, err
	}
	defer blob.Close()
	return s.unpackVerified(ctx, blob, layer.Size, diff)
}

// unpackVerified unpacks a possibly compressed tar, which must have the digest
// diff uncompressed, into a directory of its own.
func (s *Store) unpackVerified(ctx context.Context, r io.Reader, size int64, diff digest.Digest) (*unpacked, error) {
	tmp, err := os.MkdirTemp(filepath.Join(s.root, "ingest"), "layer-*")
	if err != nil {
		return nil, err
	}
	u := &unpacked{dir: tmp}
	x, got, err := unpackStream(ctx, r, size, tmp)
	if err == nil && got != diff {
		err = fmt.Errorf("unpacked content has digest %q, config says %q: %w", got, diff, ErrInvalid)
	}
	if err != nil {
		u.discard()
		return nil, err
	}
	u.invented = x.invented
	return u, nil
}

// settle gives the directories that a layer left out the owner and mode that they
// have in the layers below (bottom first): overlayfs would show our invention.
func (u *unpacked) settle(below []string) error {
	if len(u.invented) == 0 || len(below) == 0 {
		return nil
	}
	root, err := os.OpenRoot(u.dir)
	if err != nil {
		return err
	}
	defer root.Close()
	for dir := range u.invented {
		if err := inherit(root, dir, below); err != nil {
			return err
		}
	}
	return nil
}

// publish makes unpacked layers durable and then visible, bottom first. One sync
// of the file system is far cheaper than an fsync per file.
func publish(layers []*unpacked, finals []string) error {
	if len(layers) == 0 {
		return nil
	}
	if err := syncFilesystem(layers[0].dir); err != nil {
		return err
	}
	for i, l := range layers {
		if err := os.Rename(l.dir, finals[i]); err != nil {
			if _, have := os.Stat(finals[i]); have == nil { // another process was faster
				l.discard()
				continue
			}
			return err
		}
	}
	return atomicfile.SyncDir(filepath.Dir(finals[0]))
}

// unpackStream writes a possibly compressed tar of size bytes below dir and
// returns the digest of the uncompressed stream. Decompression and hashing run
// beside the writing.
func unpackStream(ctx context.Context, r io.Reader, size int64, dir string) (*extractor, digest.Digest, error) {
	plain, done, err := Decompress(r)
	if err != nil {
		return nil, "", err
	}
	counted := newCounter(&bomb{r: plain, allowed: max(RatioFloor, size*MaxRatio)})
	ahead := readAhead(counted)
	defer func() {
		ahead.stop() // the decompressor is closed once nobody reads it
		done()
	}()
	x, err := extractInto(ctx, ahead, dir)
	if err != nil {
		return nil, "", err
	}
	// What follows the end-of-archive marker belongs to the digest too.
	if _, err := io.Copy(io.Discard, ahead); err != nil {
		return nil, "", err
	}
	return x, counted.hash.Digest(), nil
}

// extractInto unpacks a plain tar below dir.
func extractInto(ctx context.Context, r io.Reader, dir string) (*extractor, error) {
	root, err := os.OpenRoot(dir)
	if err != nil {
		return nil, err
	}
	defer root.Close()
	if err := os.Chmod(dir, 0o755); err != nil {
		return nil, err
	}
	x := &extractor{root: root}
	defer x.leave()
	return x, x.extract(ctx, tar.NewReader(r))
}

// Extract unpacks a tar, compressed or not, below dir with this package's limits;
// nothing in it can reach a path outside.
func Extract(ctx context.Context, r io.Reader, dir string) error {
	plain, done, err := Decompress(r)
	if err != nil {
		return err
	}
	defer done()
	_, err = extractInto(ctx, &bomb{r: plain, allowed: MaxLayerBytes}, dir)
	return err
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

// Sizes of the blocks that are read ahead, and how many of them.
const (
	aheadBlock  = 256 << 10
	aheadBlocks = 8
)

// ahead reads in a goroutine of its own, a few blocks before its reader.
type ahead struct {
	full    chan []byte
	empty   chan []byte
	quit    chan struct{}
	ended   chan struct{}
	err     error // after full is closed
	current []byte
	rest    []byte
}

func readAhead(r io.Reader) *ahead {
	a := &ahead{
		full: make(chan []byte, aheadBlocks), empty: make(chan []byte, aheadBlocks),
		quit: make(chan struct{}), ended: make(chan struct{}),
	}
	for range aheadBlocks {
		a.empty <- nil
	}
	go a.run(r)
	return a
}

func (a *ahead) run(r io.Reader) {
	defer close(a.ended)
	defer close(a.full)
	for {
		var block []byte
		select {
		case block = <-a.empty:
		case <-a.quit:
			return
		}
		if block == nil {
			block = make([]byte, aheadBlock)
		}
		n, err := io.ReadFull(r, block[:aheadBlock])
		if n > 0 {
			a.full <- block[:n] // never blocks: there are as many blocks as room
		}
		if err != nil {
			if errors.Is(err, io.ErrUnexpectedEOF) && n > 0 {
				err = io.EOF
			}
			a.err = err
			return
		}
	}
}

func (a *ahead) Read(p []byte) (int, error) {
	for len(a.rest) == 0 {
		if a.current != nil {
			a.empty <- a.current[:aheadBlock]
			a.current = nil
		}
		block, ok := <-a.full
		if !ok {
			if a.err == nil {
				return 0, io.ErrClosedPipe
			}
			return 0, a.err
		}
		a.current, a.rest = block, block
	}
	n := copy(p, a.rest)
	a.rest = a.rest[n:]
	return n, nil
}

// stop ends the goroutine and waits for it; the source must not block for ever.
func (a *ahead) stop() {
	close(a.quit)
	<-a.ended
}
