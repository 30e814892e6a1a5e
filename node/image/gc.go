package image

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"

	digest "github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/sampan-dev/sampan/internal/atomicfile"
)

// Remove takes away a reference; with the last one goes the image. An ID
// removes the image with all its references, as the CRI asks. Layers that a
// snapshot stands on stay until that is released.
func (s *Store) Remove(ref string) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	img, err := s.find(ref)
	if err != nil {
		return err
	}
	full, _ := Normalise(ref)
	byName := slices.Contains(img.Tags, full)
	s.index.Manifests = slices.DeleteFunc(s.index.Manifests, func(d ocispec.Descriptor) bool {
		return d.Digest == img.Manifest && (!byName || d.Annotations[refAnnotation] == full)
	})
	if err := s.save(); err != nil {
		return fmt.Errorf("remove image %q: %w", ref, err)
	}
	return s.sweep()
}

// begin keeps all content, referenced or not, until the returned function is
// called; that must happen exactly once.
func (s *Store) begin() (end func()) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.busy++
	return func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		if s.busy--; s.busy > 0 || !s.unswept {
			return
		}
		if err := s.sweep(); err != nil {
			s.log.Warn("image store keeps garbage", "error", err)
		}
	}
}

// sweep removes every blob and layer that no reference and no snapshot leads
// to, or leaves that to whoever is busy. The caller holds mu to write.
func (s *Store) sweep() error {
	if s.unswept = s.busy > 0; s.unswept {
		return nil
	}
	blobs, layers, err := s.reachable()
	if err != nil {
		return fmt.Errorf("sweep images: %w", err)
	}
	err = removeOthers(filepath.Join(s.root, "blobs", "sha256"), blobs)
	return errors.Join(err, removeOthers(filepath.Join(s.root, "layers"), layers))
}

// reachable marks what is needed, by the hex part of its digest.
func (s *Store) reachable() (blobs, layers map[string]bool, err error) {
	blobs, layers = map[string]bool{}, map[string]bool{emptyLayer: true}
	for _, entry := range s.index.Manifests {
		img, err := s.describe(entry.Digest)
		if err != nil {
			return nil, nil, err
		}
		blobs[img.Manifest.Encoded()] = true
		blobs[digest.Digest(img.ID).Encoded()] = true
		if top := digest.Digest(entry.Annotations[topAnnotation]); top.Validate() == nil {
			blobs[top.Encoded()] = true
		}
		for i, l := range img.Layers {
			blobs[l.Digest.Encoded()] = true
			layers[img.Chain(i).Encoded()] = true
		}
	}
	keys, err := s.Snapshots()
	if err != nil {
		return nil, nil, err
	}
	for _, key := range keys {
		var snap snapshot
		err := atomicfile.ReadJSON(filepath.Join(s.root, "snapshots", key, "snapshot.json"), &snap)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return nil, nil, err
		}
		for _, chain := range snap.Chains {
			layers[chain.Encoded()] = true
		}
	}
	return blobs, layers, nil
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
		if e.IsDir() {
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
