package image

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	digest "github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// What has its name was verified, and on the disk, before it had it; what is not what its
// name says any more was damaged since. One such blob takes its image away, and no other:
// the blob is put aside, so that a pull brings it anew.

// damageDir is where damaged blobs are put, for whoever wants to know what happened, until
// a prune.
const damageDir = "damaged"

// damage is that an image's manifest, index or config is missing or is not what it was.
type damage struct {
	ref   string
	cause error
}

// Error says what to do.
func (d *damage) Error() string {
	return fmt.Sprintf("image %q is damaged here, and not to be found until it is fetched anew, with sampan pull %s: %v", d.ref, d.ref, d.cause)
}

// Is lets whoever fetches what is not here fetch what is damaged.
func (d *damage) Is(target error) bool { return target == ErrNotFound }

// Unwrap is what was wrong.
func (d *damage) Unwrap() error { return d.cause }

// isDamage tells an image that is damaged from a disk that can't be read now.
func isDamage(err error) bool {
	return errors.Is(err, ErrInvalid) || errors.Is(err, ErrNotFound) || errors.Is(err, ErrTooLarge)
}

// putAside takes a blob away from under its name.
func (s *Store) putAside(d digest.Digest) error {
	dir := filepath.Join(s.root, damageDir)
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	to := filepath.Join(dir, d.Encoded())
	if err := os.Rename(s.blobPath(d), to); err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	s.log.Error("a blob of the image store is damaged", "blob", d, "now", to)
	return nil
}

// damaged is the error of a blob that is not what its name says, which it puts aside.
func (s *Store) damaged(d digest.Digest) error {
	if err := s.putAside(d); err != nil {
		s.log.Error("a damaged blob can't be put aside", "blob", d, "error", err)
	}
	return fmt.Errorf("blob %q: %w", d, errContent)
}

// tell says once that an entry of the index leads to something damaged.
func (s *Store) tell(entry ocispec.Descriptor, cause error) {
	if _, said := s.told.LoadOrStore(entry.Digest, true); !said {
		s.log.Error("an image is damaged: fetch it anew with sampan pull, or remove it with sampan rmi",
			"image", entry.Annotations[refAnnotation], "digest", entry.Digest, "cause", cause)
	}
}

// whole is what an entry of the index leads to.
func (s *Store) whole(entry ocispec.Descriptor) (Image, error) {
	manifest, err := s.choose(entry)
	if err != nil {
		return Image{}, err
	}
	return s.describe(manifest)
}

// damagedAt is why the image that a reference names is not there, nil when no entry has
// that name.
func (s *Store) damagedAt(index ocispec.Index, ref, full string) error {
	for _, entry := range index.Manifests {
		name := entry.Annotations[refAnnotation]
		if name != full && !strings.HasSuffix(full, "@"+entry.Digest.String()) {
			continue
		}
		if _, err := s.whole(entry); err != nil && isDamage(err) {
			return &damage{ref, err}
		}
	}
	return nil
}

// forget removes the entry of a damaged image's name, and says whether there was one.
func (s *Store) forget(index *ocispec.Index, ref string) bool {
	full, err := Normalise(ref)
	if err != nil || s.damagedAt(*index, ref, full) == nil {
		return false
	}
	before := len(index.Manifests)
	index.Manifests = slices.DeleteFunc(slices.Clone(index.Manifests), func(d ocispec.Descriptor) bool { return d.Annotations[refAnnotation] == full })
	return len(index.Manifests) < before
}

// Remains are how many damaged blobs have been put aside, and what they take.
func (s *Store) Remains() (blobs int, bytes int64, err error) {
	entries, err := os.ReadDir(filepath.Join(s.root, damageDir))
	if errors.Is(err, os.ErrNotExist) {
		return 0, 0, nil
	}
	for _, e := range entries {
		if info, err := e.Info(); err == nil { // else somebody was faster
			blobs, bytes = blobs+1, bytes+info.Size()
		}
	}
	return blobs, bytes, err
}

// PruneRemains removes the damaged blobs that have been put aside.
func (s *Store) PruneRemains() (Pruned, error) {
	blobs, bytes, err := s.Remains()
	if err == nil {
		err = os.RemoveAll(filepath.Join(s.root, damageDir))
	}
	if err != nil {
		return Pruned{}, fmt.Errorf("prune damaged blobs: %w", err)
	}
	return Pruned{Damaged: blobs, Bytes: bytes}, nil
}
