// Package image keeps images: references, content by digest, unpacked layers and
// the writable snapshots of containers.
//
// The directory is an OCI image layout (index.json, blobs/) that other tools can
// read, with two folders more: layers/, where each layer lies unpacked under its
// chain ID, and snapshots/, a writable upper directory for each container. No
// blob and no layer is visible under its final name before its digest has been
// verified and its bytes are on disk.
package image

import (
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"sync/atomic"

	digest "github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"golang.org/x/sys/unix"

	"github.com/sampan-dev/sampan/internal/atomicfile"
)

// The kinds of failure. Match them with errors.Is.
var (
	// ErrNotFound: no such image, blob or snapshot here, or in the registry.
	ErrNotFound = errors.New("not found")
	// ErrPlatform: what is there is for another platform alone. It is ErrNotFound too.
	ErrPlatform = fmt.Errorf("for another platform: %w", ErrNotFound)
	// ErrInvalid: a reference, manifest or archive that makes no sense.
	ErrInvalid = errors.New("invalid")
	// ErrInUse: a container's snapshot still needs it.
	ErrInUse = errors.New("in use")
	// ErrTooLarge: content beyond one of the limits of this package.
	ErrTooLarge = errors.New("too large")
	// ErrAmbiguous: an abbreviated ID that fits several images.
	ErrAmbiguous = errors.New("ambiguous")
	// ErrDenied: the registry refused the credentials, or wants some.
	ErrDenied = errors.New("access denied")
)

// Limits on what outsiders can make us store; larger is refused with ErrTooLarge.
const (
	// MaxManifest bounds a manifest, an index or a config in bytes.
	MaxManifest = 4 << 20
	// MaxLayerFiles bounds the entries of one layer.
	MaxLayerFiles = 1 << 20
	// MaxLayerBytes bounds one layer unpacked.
	MaxLayerBytes = 64 << 30
	// MaxRatio bounds unpacked bytes by compressed ones, beyond a free
	// allowance of RatioFloor: gzip cannot do better than about 1030.
	MaxRatio = 200
	// RatioFloor is the unpacked size below which the ratio is not looked at.
	RatioFloor = 1 << 30
	// MaxLayers is overlayfs' practical limit of lower directories.
	MaxLayers = 127
	// MaxPath bounds a path inside a layer, in bytes.
	MaxPath = 4096
)

// Config says where a store lives.
type Config struct {
	// Root is the directory; it is made, mode 0700, when missing.
	Root string
	// Log gets what nobody else is told; nil means slog.Default.
	Log *slog.Logger
}

// Store is an image store. Several processes may have a directory open at once
// (a node, and a build beside it); methods may be called concurrently.
type Store struct {
	root string
	log  *slog.Logger

	// mu guards the copy of index.json and the state of the file it came from.
	mu    sync.Mutex
	index ocispec.Index
	seen  os.FileInfo

	// unswept: a sweep found the store busy and is still owed.
	unswept atomic.Bool

	// described holds an Image without references per manifest digest.
	described sync.Map
	// chosen is the manifest that an index stands for, by the index' digest.
	chosen sync.Map
	// sound are the blobs that were compared with their digests while they were given to
	// others, as they were then.
	sound sync.Map
	// told are the digests of entries that have been told to be damaged.
	told sync.Map
	// unpacking makes two pulls of one layer share the work.
	unpacking keyed
	// fetching makes two pulls of one blob share it.
	fetching keyed
	// near are the other machines of a cluster; nil when there are none.
	near atomic.Pointer[Neighbours]
	// recalled is what the build cache keeps alive, as of its directory's last change.
	recalled recalled
}

const (
	refAnnotation = ocispec.AnnotationRefName
	// topAnnotation keeps the digest that the reference had in its registry,
	// when that was an index and not the manifest stored.
	topAnnotation = "dev.sampan.image.top-digest"
	// madeAnnotation is on names that were given here, by a build, a push, an
	// archive or a person: no registry needs to know them.
	madeAnnotation = "dev.sampan.image.made"
)

// made notes that a name was given here.
func made() map[string]string { return map[string]string{madeAnnotation: "true"} }

// Open opens the store in cfg.Root and clears what an interrupted process left
// half done.
func Open(cfg Config) (*Store, error) {
	s := &Store{root: cfg.Root, log: cfg.Log}
	if s.log == nil {
		s.log = slog.Default()
	}
	for _, dir := range []string{"blobs/sha256", "layers", "snapshots", "ingest", "partial", "cache", "pins"} {
		if err := os.MkdirAll(filepath.Join(cfg.Root, dir), 0o700); err != nil {
			return nil, fmt.Errorf("open image store %q: %w", cfg.Root, err)
		}
	}
	if err := s.create(); err != nil {
		return nil, fmt.Errorf("open image store %q: %w", cfg.Root, err)
	}
	if err := s.sweep(); err != nil {
		return nil, fmt.Errorf("open image store %q: %w", cfg.Root, err)
	}
	return s, nil
}

// create makes a directory that holds no layout yet into an empty one.
func (s *Store) create() error {
	unlock, err := s.flock(indexLock, unix.LOCK_EX)
	if err != nil {
		return err
	}
	defer unlock()
	switch raw, err := os.ReadFile(s.indexPath()); {
	case err == nil && json.Valid(raw):
		return nil
	case err == nil || errors.Is(err, os.ErrNotExist):
		if found, err := s.recoverIndex(); found || err != nil {
			return err
		}
	default:
		return err
	}
	layout := []byte(`{"imageLayoutVersion":"1.0.0"}`)
	if err := atomicfile.Write(filepath.Join(s.root, "oci-layout"), layout, 0o600); err != nil {
		return err
	}
	empty := ocispec.Index{MediaType: ocispec.MediaTypeImageIndex}
	empty.SchemaVersion = 2
	return s.save(empty)
}

// recoverIndex puts the copy of the index in the place of one that is damaged or gone:
// without an index all images would be garbage, and those that were built here could not
// be had again. It finds nothing in a directory that holds no images.
func (s *Store) recoverIndex() (found bool, err error) {
	raw, err := os.ReadFile(s.copyPath())
	if err == nil && json.Valid(raw) {
		s.log.Warn("the index of images is damaged or gone; its copy takes its place", "file", s.indexPath(), "copy", s.copyPath())
		return true, atomicfile.Write(s.indexPath(), raw, 0o600)
	}
	blobs, err := os.ReadDir(filepath.Join(s.root, "blobs", "sha256"))
	if err != nil || len(blobs) == 0 {
		return false, err
	}
	return false, fmt.Errorf("%q, which names the images, is damaged or gone, and so is its copy %q: bring one back, or move the directory away to begin without images: %w",
		s.indexPath(), s.copyPath(), ErrInvalid)
}

// copyPath is where the index is a second time.
func (s *Store) copyPath() string { return filepath.Join(s.root, "index.copy.json") }

func (s *Store) indexPath() string { return filepath.Join(s.root, "index.json") }

// current returns the index as it is now, read again only when another process,
// or this one, has replaced the file. The result is read-only.
func (s *Store) current() (ocispec.Index, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	now, err := os.Stat(s.indexPath())
	if err != nil {
		return ocispec.Index{}, fmt.Errorf("image index: %w", err)
	}
	if s.seen != nil && os.SameFile(s.seen, now) && s.seen.ModTime().Equal(now.ModTime()) {
		return s.index, nil
	}
	raw, err := os.ReadFile(s.indexPath())
	if err != nil {
		return ocispec.Index{}, fmt.Errorf("image index: %w", err)
	}
	var index ocispec.Index
	if err := json.Unmarshal(raw, &index); err != nil {
		return ocispec.Index{}, fmt.Errorf("image index %q: %w: %w", s.indexPath(), ErrInvalid, err)
	}
	s.index, s.seen = index, now
	return index, nil
}

// change replaces the index by what edit makes of it, durably, while no other
// process changes it.
func (s *Store) change(edit func(*ocispec.Index) error) error {
	unlock, err := s.flock(indexLock, unix.LOCK_EX)
	if err != nil {
		return err
	}
	defer unlock()
	index, err := s.current()
	if err != nil {
		return err
	}
	index.Manifests = slices.Clone(index.Manifests)
	if err := edit(&index); err != nil {
		return err
	}
	return s.save(index)
}

func (s *Store) save(index ocispec.Index) error {
	raw, err := json.Marshal(index)
	if err != nil {
		return err
	}
	if err := atomicfile.Write(s.indexPath(), raw, 0o600); err != nil {
		return err
	}
	return atomicfile.WriteVolatile(s.copyPath(), raw, 0o600)
}

func (s *Store) blobPath(d digest.Digest) string {
	return filepath.Join(s.root, "blobs", d.Algorithm().String(), d.Encoded())
}

// layerPath is where a layer is, when it is. What is no digest is nowhere.
func (s *Store) layerPath(chain digest.Digest) string {
	if !isDigest(chain) {
		return filepath.Join(s.root, "layers", "none")
	}
	return filepath.Join(s.root, "layers", chain.Encoded())
}
