package image

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	digest "github.com/opencontainers/go-digest"
	"golang.org/x/sys/unix"

	"github.com/sampan-dev/sampan/internal/atomicfile"
)

// Rootfs is what overlayfs needs to show a container its file system.
type Rootfs struct {
	// Lower are the image's unpacked layers, the topmost first, as overlayfs
	// wants them. An image without layers has one, empty, directory.
	Lower []string
	// Upper takes what the container writes; Work is overlayfs' own.
	Upper, Work string
}

// snapshot is what is kept of a writable snapshot beside its directories.
type snapshot struct {
	// Image is the manifest's digest.
	Image digest.Digest `json:"image"`
	// Chains are the chain IDs of the layers below, bottom first.
	Chains []digest.Digest `json:"chains"`
}

// emptyLayer is the lower directory of an image without layers.
const emptyLayer = "empty"

// snapshotFile is where a snapshot's record lies in its directory.
const snapshotFile = "snapshot.json"

// errCut says that a power cut has left nothing of a snapshot's record.
var errCut = errors.New("record was cut short")

// readSnapshot reads the record in a snapshot's directory; errCut and
// fs.ErrNotExist mean that no container can be alive on it.
func readSnapshot(dir string) (snap snapshot, err error) {
	path := filepath.Join(dir, snapshotFile)
	err = atomicfile.ReadJSON(path, &snap)
	if info, e := os.Stat(path); err != nil && e == nil && info.Size() == 0 {
		return snap, fmt.Errorf("%q: %w", path, errCut)
	}
	return snap, err
}

// Prepare makes the writable snapshot key on top of an image, or finds the one
// made before: it is idempotent. The image's layers stay until Release, whatever
// Remove does to the image, or until the power is cut: it is not waited for the
// disk, since a machine that has lost its power has no container that needs them.
func (s *Store) Prepare(key, imageRef string) (Rootfs, error) {
	return s.prepare(key, imageRef, atomicfile.WriteVolatile)
}

// prepare is Prepare; write says how long the record must last.
func (s *Store) prepare(key, imageRef string, write func(path string, data []byte, perm os.FileMode) error) (Rootfs, error) {
	if key == "" || strings.ContainsAny(key, "/\x00") || key == "." || key == ".." {
		return Rootfs{}, fmt.Errorf("snapshot %q: not a usable key: %w", key, ErrInvalid)
	}
	end, err := s.begin()
	if err != nil {
		return Rootfs{}, fmt.Errorf("snapshot %q: %w", key, err)
	}
	defer end()
	dir := filepath.Join(s.root, "snapshots", key)
	known, err := readSnapshot(dir)
	if err == nil {
		return s.rootfs(dir, known), nil
	}
	if !errors.Is(err, fs.ErrNotExist) && !errors.Is(err, errCut) {
		return Rootfs{}, fmt.Errorf("snapshot %q: %w", key, err)
	}
	img, err := s.Get(imageRef)
	if err != nil {
		return Rootfs{}, fmt.Errorf("snapshot %q: %w", key, err)
	}
	if err := s.unpackMissing(img); err != nil {
		return Rootfs{}, fmt.Errorf("snapshot %q: %w", key, err)
	}
	made := snapshot{Image: img.Manifest}
	for i := range img.Layers {
		made.Chains = append(made.Chains, img.Chain(i))
	}
	for _, d := range []string{filepath.Join(dir, "work"), filepath.Join(dir, "upper"), filepath.Join(s.root, "layers", emptyLayer)} {
		if err := os.MkdirAll(d, 0o755); err != nil {
			return Rootfs{}, fmt.Errorf("snapshot %q: %w", key, err)
		}
	}
	record, err := json.Marshal(made)
	if err == nil {
		err = write(filepath.Join(dir, snapshotFile), record, 0o600)
	}
	if err != nil {
		return Rootfs{}, fmt.Errorf("snapshot %q: %w", key, err)
	}
	return s.rootfs(dir, made), nil
}

// Snapshot finds the snapshot key that Prepare has made. Without one the error is
// fs.ErrNotExist.
func (s *Store) Snapshot(key string) (Rootfs, error) {
	dir := filepath.Join(s.root, "snapshots", filepath.Base(key))
	snap, err := readSnapshot(dir)
	if err != nil {
		return Rootfs{}, fmt.Errorf("snapshot %q: %w", key, err)
	}
	return s.rootfs(dir, snap), nil
}

// unpackMissing unpacks what has been pushed to this store and never been used.
func (s *Store) unpackMissing(img Image) error {
	if err := checkLayers(img); err != nil {
		return err
	}
	for i := range img.Layers {
		if _, err := os.Stat(s.layerPath(img.Chain(i))); err != nil {
			return s.unpackAll(context.Background(), img)
		}
	}
	return nil
}

// rootfs names the directories of a snapshot.
func (s *Store) rootfs(dir string, snap snapshot) Rootfs {
	r := Rootfs{Upper: filepath.Join(dir, "upper"), Work: filepath.Join(dir, "work")}
	for _, chain := range slices.Backward(snap.Chains) {
		r.Lower = append(r.Lower, s.layerPath(chain))
	}
	if len(r.Lower) == 0 {
		r.Lower = []string{filepath.Join(s.root, "layers", emptyLayer)}
	}
	return r
}

// Release removes the snapshot key and what was written to it. It succeeds when
// there is none. The snapshot must not be mounted.
func (s *Store) Release(key string) error {
	if key == "" || strings.ContainsAny(key, "/\x00") || key == "." || key == ".." {
		return fmt.Errorf("snapshot %q: not a usable key: %w", key, ErrInvalid)
	}
	dir := filepath.Join(s.root, "snapshots", key)
	known, unknown := readSnapshot(dir)
	if err := os.RemoveAll(dir); err != nil {
		return fmt.Errorf("snapshot %q: %w", key, err)
	}
	if unknown == nil && s.haveImage(known.Chains) {
		return nil // a sweep, which reads every snapshot's record, would find nothing
	}
	return s.sweep()
}

// haveImage tells whether an image of the store has all these layers, so that
// they stay without a snapshot. Whoever removes that image later will sweep.
func (s *Store) haveImage(chains []digest.Digest) bool {
	images, err := s.List()
	if err != nil {
		return false
	}
	return slices.ContainsFunc(images, func(img Image) bool {
		if len(img.Layers) < len(chains) {
			return false
		}
		for i, chain := range chains {
			if img.Chain(i) != chain {
				return false
			}
		}
		return true
	})
}

// Snapshots lists the keys of all snapshots.
func (s *Store) Snapshots() ([]string, error) {
	entries, err := os.ReadDir(filepath.Join(s.root, "snapshots"))
	if err != nil {
		return nil, err
	}
	var keys []string
	for _, e := range entries {
		keys = append(keys, e.Name())
	}
	return keys, nil
}

// Usage is the room that something takes on disk.
type Usage struct {
	Bytes, Inodes int64
}

// SnapshotUsage measures what was written to the snapshot key, by walking it.
func (s *Store) SnapshotUsage(key string) (Usage, error) {
	return measure(filepath.Join(s.root, "snapshots", key, "upper"))
}

// measure adds up allocated blocks and inodes below dir, hard links once.
func measure(dir string) (Usage, error) {
	var u Usage
	seen := map[[2]uint64]bool{}
	err := filepath.WalkDir(dir, func(path string, _ fs.DirEntry, err error) error {
		if errors.Is(err, fs.ErrNotExist) {
			return nil // removed while we walk
		}
		if err != nil {
			return err
		}
		var st unix.Stat_t
		if err := unix.Lstat(path, &st); err != nil {
			return nil
		}
		if id := [2]uint64{st.Dev, st.Ino}; !seen[id] {
			seen[id] = true
			u.Bytes += st.Blocks * 512
			u.Inodes++
		}
		return nil
	})
	return u, err
}

// FSInfo is the state of the file system that the store is on.
type FSInfo struct {
	Path                 string
	Capacity, Available  int64
	Inodes, InodesFree   int64
	ImageBytes, Contents int64
}

// Root is the directory of the store, and so where writable layers are.
func (s *Store) Root() string { return s.root }

// FSInfo reports the file system's room, and what blobs (Contents) and unpacked
// layers (ImageBytes) take of it.
func (s *Store) FSInfo() (FSInfo, error) {
	var st unix.Statfs_t
	if err := unix.Statfs(s.root, &st); err != nil {
		return FSInfo{}, fmt.Errorf("image store %q: %w", s.root, err)
	}
	info := FSInfo{
		Path: s.root, Capacity: int64(st.Blocks) * st.Bsize, Available: int64(st.Bavail) * st.Bsize,
		Inodes: int64(st.Files), InodesFree: int64(st.Ffree),
	}
	layers, err := measure(filepath.Join(s.root, "layers"))
	if err != nil {
		return info, err
	}
	blobs, err := measure(filepath.Join(s.root, "blobs"))
	info.ImageBytes, info.Contents = layers.Bytes, blobs.Bytes
	return info, err
}
