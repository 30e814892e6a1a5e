package image

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/sampan-dev/sampan/internal/atomicfile"
)

// A kept snapshot is not of one container but of one after the other: each begins with
// what the one before has written. It is made by PrepareKept, and stays until somebody
// releases it.

// keptMark begins the keys of kept snapshots; no container's ID does so.
const keptMark = "kept-"

// heldPrefix begins the names of the files in a kept snapshot that ReleaseKept is to leave
// alone, one of each who holds it.
const heldPrefix = "held"

// KeptPrefix begins the keys of the kept snapshots of a pod: those of one container
// each, whose name follows. The word is the pod's own; no pod with another name, or of
// another namespace, comes to the same prefix with it.
func KeptPrefix(namespace, pod, word string) string {
	sum := sha256.Sum256([]byte(namespace + "\x00" + pod + "\x00" + word))
	return keptMark + hex.EncodeToString(sum[:]) + "-"
}

// PrepareKept is Prepare for a kept snapshot: what is in it stays, also when the power is
// cut. It begins anew when the image has other layers than those it stands on; one
// that is held is then refused with ErrInvalid instead. Whoever held it holds it no longer.
func (s *Store) PrepareKept(key, imageRef string) (Rootfs, error) {
	if !strings.HasPrefix(key, keptMark) {
		return Rootfs{}, fmt.Errorf("snapshot %q: not the key of a kept one: %w", key, ErrInvalid)
	}
	if err := s.renewKept(key, imageRef); err != nil {
		return Rootfs{}, fmt.Errorf("snapshot %q: %w", key, err)
	}
	root, err := s.prepare(key, imageRef, atomicfile.Write)
	if err != nil {
		return root, err
	}
	for _, path := range s.holds(key) {
		if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return Rootfs{}, fmt.Errorf("snapshot %q: %w", key, err)
		}
	}
	return root, nil
}

// renewKept releases a snapshot that stands on other layers than an image's.
func (s *Store) renewKept(key, imageRef string) error {
	known, err := readSnapshot(s.snapshotDir(key))
	if err != nil {
		return nil //nolint:nilerr // there is none, or Prepare says what is wrong with it
	}
	img, err := s.Get(imageRef)
	if err != nil {
		return err
	}
	same := len(known.Chains) == len(img.Layers)
	for i := range img.Layers {
		same = same && known.Chains[i] == img.Chain(i)
	}
	if same {
		return nil
	}
	if s.held(key) {
		return fmt.Errorf("it stands on the image %s, and %s is another: %w", known.Image, imageRef, ErrInvalid)
	}
	return s.Release(key)
}

// Hold has ReleaseKept leave a kept snapshot alone until a container begins with it. Several
// may hold it, each with a word of its own. The error is fs.ErrNotExist where there is none.
func (s *Store) Hold(key, who string) error {
	if _, err := s.Snapshot(key); err != nil {
		return err
	}
	return atomicfile.Write(s.heldPath(key, who), nil, 0o600)
}

// KeptImage is the image that a kept snapshot stands on: it has stayed with it, and is
// among the images again. It is fs.ErrNotExist when there is no such snapshot.
func (s *Store) KeptImage(key string) (Image, error) {
	known, err := readSnapshot(s.snapshotDir(key))
	if err != nil {
		return Image{}, fmt.Errorf("snapshot %q: %w", key, err)
	}
	end, err := s.begin()
	if err != nil {
		return Image{}, err
	}
	defer end()
	img, err := s.describe(known.Image)
	if err == nil {
		_, err = s.Get(img.ID)
	}
	if errors.Is(err, ErrNotFound) && s.hasBlob(known.Image) {
		img, err = s.name("", known.Image, nil)
	}
	if err != nil {
		return Image{}, fmt.Errorf("image %s of snapshot %q: %w", known.Image, key, err)
	}
	return img, nil
}

// Kept lists the keys of the kept snapshots that begin so; "" for all.
func (s *Store) Kept(prefix string) ([]string, error) {
	keys, err := s.Snapshots()
	return slices.DeleteFunc(keys, func(key string) bool {
		return !strings.HasPrefix(key, keptMark) || !strings.HasPrefix(key, prefix)
	}), err
}

// ReleaseKept releases a pod's kept snapshots, but for those that are held.
func (s *Store) ReleaseKept(prefix string) error {
	if !strings.HasPrefix(prefix, keptMark) {
		return fmt.Errorf("%q begins no keys of kept snapshots: %w", prefix, ErrInvalid)
	}
	keys, err := s.Kept(prefix)
	for _, key := range keys {
		if !s.held(key) {
			err = errors.Join(err, s.Release(key))
		}
	}
	return err
}

func (s *Store) held(key string) bool { return len(s.holds(key)) > 0 }

// holds are the files of those who hold a snapshot.
func (s *Store) holds(key string) []string {
	entries, err := os.ReadDir(s.snapshotDir(key))
	if err != nil {
		return nil
	}
	var paths []string
	for _, e := range entries {
		if strings.HasPrefix(e.Name(), heldPrefix) {
			paths = append(paths, filepath.Join(s.snapshotDir(key), e.Name()))
		}
	}
	return paths
}

func (s *Store) heldPath(key, who string) string {
	return filepath.Join(s.snapshotDir(key), heldPrefix+"-"+filepath.Base(who))
}

// snapshotDir is where a snapshot lies. A key never leads out of there.
func (s *Store) snapshotDir(key string) string {
	return filepath.Join(s.root, "snapshots", filepath.Base(key))
}

// LetGo ends what Hold has begun with the same word; others go on holding.
func (s *Store) LetGo(key, who string) error {
	err := os.Remove(s.heldPath(key, who))
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	return err
}

// PruneKept releases all kept snapshots that nobody wants any more, but for those that
// were made or held after a time: somebody may be about to want them.
func (s *Store) PruneKept(before time.Time, wanted func(key string) bool) error {
	keys, err := s.Kept("")
	for _, key := range keys {
		if wanted(key) {
			continue
		}
		young := false
		for _, path := range append(s.holds(key), filepath.Join(s.snapshotDir(key), snapshotFile)) {
			info, err := os.Stat(path)
			young = young || err == nil && info.ModTime().After(before)
		}
		if !young {
			err = errors.Join(err, s.Release(key))
		}
	}
	return err
}
