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
	"sync"

	digest "github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/sampan-dev/sampan/internal/atomicfile"
)

// The kinds of failure. Match them with errors.Is.
var (
	// ErrNotFound: no such image, blob or snapshot here, or in the registry.
	ErrNotFound = errors.New("not found")
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

// Store is an image store. One process at a time may have a directory open;
// methods may be called concurrently.
type Store struct {
	root string
	log  *slog.Logger

	// mu guards the four below; nobody holds it while bytes move.
	mu    sync.RWMutex
	index ocispec.Index
	// busy counts those who add or read content that nothing may refer to yet.
	// While there are any a sweep waits (unswept), and the last one does it.
	busy    int
	unswept bool

	// described holds an Image without references per manifest digest.
	described sync.Map
	// unpacking makes two pulls of one layer share the work.
	unpacking keyedMutex
}

const (
	refAnnotation = ocispec.AnnotationRefName
	// topAnnotation keeps the digest that the reference had in its registry,
	// when that was an index and not the manifest stored.
	topAnnotation = "dev.sampan.image.top-digest"
)

// Open opens the store in cfg.Root and clears what an interrupted process left
// half done.
func Open(cfg Config) (*Store, error) {
	s := &Store{root: cfg.Root, log: cfg.Log}
	if s.log == nil {
		s.log = slog.Default()
	}
	for _, dir := range []string{"blobs/sha256", "layers", "snapshots", "ingest"} {
		if err := os.MkdirAll(filepath.Join(cfg.Root, dir), 0o700); err != nil {
			return nil, fmt.Errorf("open image store %q: %w", cfg.Root, err)
		}
	}
	if err := s.load(); err != nil {
		return nil, fmt.Errorf("open image store %q: %w", cfg.Root, err)
	}
	if err := s.clearIngest(); err != nil {
		return nil, fmt.Errorf("open image store %q: %w", cfg.Root, err)
	}
	return s, nil
}

// load reads index.json, or starts an empty layout.
func (s *Store) load() error {
	raw, err := os.ReadFile(filepath.Join(s.root, "index.json"))
	if errors.Is(err, os.ErrNotExist) {
		s.index = ocispec.Index{MediaType: ocispec.MediaTypeImageIndex}
		s.index.SchemaVersion = 2
		layout := []byte(`{"imageLayoutVersion":"1.0.0"}`)
		if err := atomicfile.Write(filepath.Join(s.root, "oci-layout"), layout, 0o600); err != nil {
			return err
		}
		return s.save()
	}
	if err != nil {
		return err
	}
	if err := json.Unmarshal(raw, &s.index); err != nil {
		return fmt.Errorf("index.json: %w: %w", ErrInvalid, err)
	}
	return nil
}

// save writes index.json durably. The caller holds mu.
func (s *Store) save() error {
	raw, err := json.Marshal(s.index)
	if err != nil {
		return err
	}
	return atomicfile.Write(filepath.Join(s.root, "index.json"), raw, 0o600)
}

// clearIngest removes downloads and unpackings that never finished.
func (s *Store) clearIngest() error {
	left, err := os.ReadDir(filepath.Join(s.root, "ingest"))
	if err != nil {
		return err
	}
	for _, e := range left {
		if err := os.RemoveAll(filepath.Join(s.root, "ingest", e.Name())); err != nil {
			return err
		}
	}
	return nil
}

func (s *Store) blobPath(d digest.Digest) string {
	return filepath.Join(s.root, "blobs", d.Algorithm().String(), d.Encoded())
}

func (s *Store) layerPath(chain digest.Digest) string {
	return filepath.Join(s.root, "layers", chain.Encoded())
}

// keyedMutex is a mutex per key; keys nobody holds cost nothing.
type keyedMutex struct {
	mu   sync.Mutex
	held map[string]*keyed
}

type keyed struct {
	sync.Mutex
	users int
}

// lock waits for the key and returns its unlock.
func (k *keyedMutex) lock(key string) func() {
	k.mu.Lock()
	if k.held == nil {
		k.held = map[string]*keyed{}
	}
	one := k.held[key]
	if one == nil {
		one = &keyed{}
		k.held[key] = one
	}
	one.users++
	k.mu.Unlock()
	one.Lock()
	return func() {
		one.Unlock()
		k.mu.Lock()
		defer k.mu.Unlock()
		if one.users--; one.users == 0 {
			delete(k.held, key)
		}
	}
}
