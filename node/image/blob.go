package image

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"

	digest "github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/sampan-dev/sampan/internal/atomicfile"
)

// readBlob reads a small blob (manifest, config) whole and verifies it.
func (s *Store) readBlob(d digest.Digest) ([]byte, error) {
	f, err := s.openBlob(d)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	raw, err := io.ReadAll(io.LimitReader(f, MaxManifest+1))
	if err != nil {
		return nil, fmt.Errorf("blob %q: %w", d, err)
	}
	if len(raw) > MaxManifest {
		return nil, fmt.Errorf("blob %q: more than %d bytes: %w", d, MaxManifest, ErrTooLarge)
	}
	if digest.FromBytes(raw) != d {
		return nil, s.damaged(d)
	}
	return raw, nil
}

// isDigest says whether a digest is one, of the kind that blobs have here. What comes
// in its place from elsewhere may be anything, and has neither algorithm nor hex part.
func isDigest(d digest.Digest) bool { return d.Validate() == nil && d.Algorithm() == digest.SHA256 }

// checkDigests refuses descriptors of what cannot be here.
func checkDigests(all []ocispec.Descriptor) error {
	for _, desc := range all {
		if !isDigest(desc.Digest) {
			return fmt.Errorf("blob %q: not a sha256 digest: %w", desc.Digest, ErrInvalid)
		}
	}
	return nil
}

func (s *Store) openBlob(d digest.Digest) (*os.File, error) {
	if !isDigest(d) {
		return nil, fmt.Errorf("blob %q: not a sha256 digest: %w", d, ErrInvalid)
	}
	f, err := os.Open(s.blobPath(d))
	if errors.Is(err, os.ErrNotExist) {
		return nil, fmt.Errorf("blob %q: %w", d, ErrNotFound)
	}
	return f, err
}

// elsewhere says that a layer may be missing: one whose licence keeps it from registries
// (image specification, "Non-Distributable Layers"), as those of Windows.
func elsewhere(layer ocispec.Descriptor) bool {
	return strings.HasPrefix(layer.MediaType, "application/vnd.oci.image.layer.nondistributable.") ||
		layer.MediaType == "application/vnd.docker.image.rootfs.foreign.diff.tar.gzip"
}

// hasBlob says whether a blob is here. What has its final name was verified.
func (s *Store) hasBlob(d digest.Digest) bool {
	if !isDigest(d) {
		return false
	}
	_, err := os.Stat(s.blobPath(d))
	return err == nil
}

// putBlob stores a small blob.
func (s *Store) putBlob(raw []byte) (digest.Digest, error) {
	d := digest.FromBytes(raw)
	if len(raw) > MaxManifest { // it could never be read again, and a sweep would stop at it
		return "", fmt.Errorf("a manifest or config of %d bytes, at most %d: %w", len(raw), MaxManifest, ErrTooLarge)
	}
	if s.hasBlob(d) {
		return d, nil
	}
	return d, atomicfile.Write(s.blobPath(d), raw, 0o600)
}

// blobWriter receives a blob of which the digest is computed on the way; it has
// no name until commit.
type blobWriter struct {
	store *Store
	file  *os.File
	hash  digest.Digester
	size  int64
}

func (s *Store) newBlob() (*blobWriter, error) {
	f, err := os.CreateTemp(filepath.Join(s.root, "ingest"), "blob-*")
	if err != nil {
		return nil, fmt.Errorf("store blob: %w", err)
	}
	return &blobWriter{store: s, file: f, hash: digest.SHA256.Digester()}, nil
}

func (w *blobWriter) Write(p []byte) (int, error) {
	n, err := w.file.Write(p)
	w.hash.Hash().Write(p[:n])
	w.size += int64(n)
	return n, err
}

// commit makes the blob durable and visible. A digest that is given must match.
func (w *blobWriter) commit(want digest.Digest) (digest.Digest, error) {
	defer w.abort()
	got := w.hash.Digest()
	if want != "" && got != want {
		return "", fmt.Errorf("blob %q: content has digest %q: %w", want, got, ErrInvalid)
	}
	if err := w.file.Sync(); err != nil {
		return "", fmt.Errorf("store blob %q: %w", got, err)
	}
	path := w.store.blobPath(got)
	if err := os.Rename(w.file.Name(), path); err != nil {
		return "", fmt.Errorf("store blob %q: %w", got, err)
	}
	return got, atomicfile.SyncDir(filepath.Dir(path))
}

// abort forgets what has no name yet; after commit it only closes.
func (w *blobWriter) abort() {
	w.file.Close()
	os.Remove(w.file.Name())
}

// counter counts and hashes what passes.
type counter struct {
	r    io.Reader
	hash digest.Digester
	n    int64
}

func newCounter(r io.Reader) *counter {
	return &counter{r: r, hash: digest.SHA256.Digester()}
}

func (c *counter) Read(p []byte) (int, error) {
	n, err := c.r.Read(p)
	c.n += int64(n)
	c.hash.Hash().Write(p[:n])
	return n, err
}
