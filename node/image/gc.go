package image

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	digest "github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"golang.org/x/sys/unix"

	"github.com/sampan-dev/sampan/node/image/remote"
)

// Remove takes away a reference; with the last one goes the image. An ID
// removes the image with all its references, as the CRI asks. Layers that a
// snapshot stands on stay until that is released.
func (s *Store) Remove(ref string) error {
	err := s.change(func(index *ocispec.Index) error {
		img, err := s.find(*index, ref)
		if err != nil && s.forget(index, ref) {
			return nil
		}
		if err != nil {
			return err
		}
		full, _ := Normalise(ref) // an abbreviated ID is no reference, and names nothing
		byName, byDigest := slices.Contains(img.Tags, full), strings.Contains(full, "@")
		index.Manifests = slices.DeleteFunc(index.Manifests, func(d ocispec.Descriptor) bool {
			if byName {
				return d.Annotations[refAnnotation] == full
			}
			chosen, err := s.choose(d)
			if err != nil || byDigest {
				own := d.Annotations[refAnnotation] // other repositories' names are not meant
				return err == nil && chosen == img.Manifest && (own == "" || repository(own) == repository(full))
			}
			other, err := s.describe(chosen)
			return err == nil && other.ID == img.ID
		})
		return nil
	})
	if err != nil {
		return fmt.Errorf("remove image: %w", err)
	}
	return s.sweep()
}

// The lock files. Whoever adds or reads content that nothing may refer to yet
// shares busyLock; a sweep wants it alone. indexLock serialises changes of
// index.json and is held for as long as one takes.
const (
	busyLock  = "busy.lock"
	indexLock = "index.lock"
)

// lockExclusive is flock's way to have a lock alone.
const lockExclusive = unix.LOCK_EX

// flock takes a lock between processes, and between users within one.
func (s *Store) flock(name string, how int) (unlock func(), err error) {
	f, err := os.OpenFile(filepath.Join(s.root, name), os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return nil, err
	}
	for {
		err = unix.Flock(int(f.Fd()), how)
		if !errors.Is(err, unix.EINTR) {
			break
		}
	}
	if err != nil {
		f.Close()
		return nil, fmt.Errorf("lock %q: %w", f.Name(), err)
	}
	return func() { f.Close() }, nil
}

// begin keeps all content, referenced or not, until the returned function is
// called; that must happen exactly once. The last one to end sweeps.
func (s *Store) begin() (end func(), err error) {
	unlock, err := s.flock(busyLock, unix.LOCK_SH)
	if err != nil {
		return nil, err
	}
	return func() {
		unlock()
		if !s.unswept.Load() {
			return
		}
		if err := s.sweep(); err != nil {
			s.log.Warn("image store keeps garbage", "error", err)
		}
	}, nil
}

// sweep removes every blob and layer that no reference and no snapshot leads
// to, and what interrupted work left. While anybody is busy it leaves that to
// the last of them.
func (s *Store) sweep() error {
	unlock, err := s.flock(busyLock, unix.LOCK_EX|unix.LOCK_NB)
	if errors.Is(err, unix.EWOULDBLOCK) {
		s.unswept.Store(true)
		return nil
	}
	if err != nil {
		return err
	}
	defer unlock()
	s.unswept.Store(false)
	blobs, layers, err := s.reachable()
	if err != nil {
		return fmt.Errorf("sweep images: %w", err)
	}
	err = removeOthers(filepath.Join(s.root, "blobs", "sha256"), blobs)
	err = errors.Join(err, removeOthers(filepath.Join(s.root, "layers"), layers))
	s.chosen.Clear() // what an index stands for may have gone
	return errors.Join(err, removeOthers(filepath.Join(s.root, "ingest"), nil), s.sweepPartial())
}

// reachable marks what is needed, by the hex part of its digest.
func (s *Store) reachable() (blobs, layers map[string]bool, err error) {
	blobs, layers = map[string]bool{}, map[string]bool{emptyLayer: true}
	index, err := s.current()
	if err != nil {
		return nil, nil, err
	}
	for _, entry := range index.Manifests {
		if top := digest.Digest(entry.Annotations[topAnnotation]); top.Validate() == nil {
			blobs[top.Encoded()] = true
		}
		err := s.markTree(entry.Digest, blobs, layers)
		if err != nil && !isDamage(err) {
			return nil, nil, err
		}
		if err != nil { // of what it was all that is known is kept: a pull begins there
			s.tell(entry, err)
		}
	}
	if err := s.markPinned(blobs); err != nil {
		return nil, nil, err
	}
	if err := s.markRemembered(blobs, layers); err != nil {
		return nil, nil, err
	}
	keys, err := s.Snapshots()
	if err != nil {
		return nil, nil, err
	}
	for _, key := range keys {
		snap, err := readSnapshot(filepath.Join(s.root, "snapshots", key))
		if errors.Is(err, fs.ErrNotExist) || errors.Is(err, errCut) {
			continue
		}
		if err != nil { // what it stands on is not known, so every layer stays
			s.log.Warn("a container's directory has a record that cannot be read; no layer is collected until it is removed", "error", err)
			if err := markAll(filepath.Join(s.root, "layers"), layers); err != nil {
				return nil, nil, err
			}
			continue
		}
		for _, chain := range snap.Chains {
			layers[chain.Encoded()] = true
		}
		if strings.HasPrefix(key, keptMark) && s.hasBlob(snap.Image) { // what comes after is of the same image
			if err := s.markTree(snap.Image, blobs, layers); err != nil && !isDamage(err) {
				return nil, nil, err
			}
		}
	}
	return blobs, layers, nil
}

// markAll marks all that is in a directory.
func markAll(dir string, marked map[string]bool) error {
	entries, err := os.ReadDir(dir)
	for _, e := range entries {
		marked[e.Name()] = true
	}
	return err
}

// markTree marks a manifest with all that it needs, or an index with those of its
// images that are here.
func (s *Store) markTree(d digest.Digest, blobs, layers map[string]bool) error {
	blobs[d.Encoded()] = true
	raw, err := s.readBlob(d)
	if err != nil {
		return err
	}
	if remote.IsIndex(remote.MediaTypeOf(raw)) {
		var list ocispec.Index
		if err := json.Unmarshal(raw, &list); err != nil {
			return fmt.Errorf("index %q: %w: %w", d, ErrInvalid, err)
		}
		var hurt error
		for _, m := range list.Manifests {
			if !s.hasBlob(m.Digest) || blobs[m.Digest.Encoded()] {
				continue
			}
			err := s.markTree(m.Digest, blobs, layers)
			if err != nil && !isDamage(err) {
				return err
			}
			hurt = errors.Join(hurt, err) // the others are kept
		}
		return hurt
	}
	img, err := s.describe(d)
	if err != nil {
		s.markManifest(raw, blobs)
		return err
	}
	blobs[digest.Digest(img.ID).Encoded()] = true
	for i, l := range img.Layers {
		if isDigest(l.Digest) && (!elsewhere(l) || s.hasBlob(l.Digest)) {
			blobs[l.Digest.Encoded()] = true
		}
		if i >= len(img.Config.RootFS.DiffIDs) {
			continue
		}
		if chain := img.Chain(i); isDigest(chain) {
			layers[chain.Encoded()] = true
		}
	}
	return nil
}

// markManifest marks the blobs that a manifest names, of an image of which no more is
// known.
func (s *Store) markManifest(raw []byte, blobs map[string]bool) {
	var m ocispec.Manifest
	if json.Unmarshal(raw, &m) != nil {
		return
	}
	for _, l := range append(m.Layers, m.Config) {
		if isDigest(l.Digest) {
			blobs[l.Digest.Encoded()] = true
		}
	}
}

// removeOthers removes from dir every entry that is not to be kept. A layer
// moves out of sight first, so that a crash leaves no half of one behind.
func removeOthers(dir string, keep map[string]bool) error {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return err
	}
	for _, e := range entries {
		if keep[e.Name()] {
			continue
		}
		path := filepath.Join(dir, e.Name())
		if e.IsDir() && filepath.Base(dir) == "layers" {
			doomed := filepath.Join(dir, "..", "ingest", "doomed-"+e.Name())
			if err := os.Rename(path, doomed); err != nil {
				return err
			}
			path = doomed
		}
		if err := os.RemoveAll(path); err != nil {
			return err
		}
	}
	return nil
}
