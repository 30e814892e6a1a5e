package image

import (
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	digest "github.com/opencontainers/go-digest"

	"github.com/sampan-dev/sampan/internal/atomicfile"
)

// Bounds of what a build cache keeps alive, unless the caller has others.
const (
	// MaxMemories bounds the records.
	MaxMemories = 4096
	// MaxMemoryBytes bounds their layers, compressed and unpacked together.
	MaxMemoryBytes = 20 << 30
)

// Memory is a layer that a build has made and may want again. As long as it is
// remembered, the layer stays, though no image has it.
type Memory struct {
	Layer Layer `json:"layer"`
	// Chain is the chain ID under which the layer lies unpacked.
	Chain   digest.Digest `json:"chain,omitempty"`
	Created time.Time     `json:"created"`
	// Text is for a person who looks.
	Text string `json:"text"`
}

// bytes is the room that a memory takes at most.
func (m Memory) bytes() int64 { return m.Layer.Blob.Size + m.Layer.Unpacked }

// recalled is what all memories together keep, as of one state of their directory.
type recalled struct {
	mu            sync.Mutex
	seen          time.Time
	blobs, layers []string
}

func (s *Store) memoryPath(key string) (string, error) {
	if _, err := hex.DecodeString(key); err != nil || key == "" {
		return "", fmt.Errorf("build cache key %q: %w", key, ErrInvalid)
	}
	return filepath.Join(s.root, "cache", key+".json"), nil
}

// Remember keeps a layer under a key, which is hexadecimal. The caller holds a
// Build. It is not waited for the disk: what a power cut takes is built again.
func (s *Store) Remember(key string, m Memory) error {
	path, err := s.memoryPath(key)
	if err != nil {
		return err
	}
	raw, err := json.Marshal(m)
	if err != nil {
		return err
	}
	return atomicfile.WriteVolatile(path, raw, 0o600)
}

// Recall finds the layer remembered under a key, if its content is still here, and
// notes that it was wanted.
func (s *Store) Recall(key string) (Memory, bool) {
	path, err := s.memoryPath(key)
	if err != nil {
		return Memory{}, false
	}
	var m Memory
	if atomicfile.ReadJSON(path, &m) != nil || !s.hasBlob(m.Layer.Blob.Digest) {
		return Memory{}, false
	}
	now := time.Now()
	_ = os.Chtimes(path, now, now) // only the order of pruning is at stake
	return m, true
}

// markRemembered marks what memories keep alive.
func (s *Store) markRemembered(blobs, layers map[string]bool) error {
	r := &s.recalled
	r.mu.Lock()
	defer r.mu.Unlock()
	dir := filepath.Join(s.root, "cache")
	info, err := os.Stat(dir)
	if err != nil {
		return err
	}
	// A time this close to now may hide a second change.
	if !info.ModTime().Equal(r.seen) || time.Since(info.ModTime()) < time.Second {
		all, err := s.memories()
		if err != nil {
			return err
		}
		r.blobs, r.layers = nil, nil
		for _, m := range all {
			r.blobs = append(r.blobs, m.Layer.Blob.Digest.Encoded())
			if m.Chain != "" {
				r.layers = append(r.layers, m.Chain.Encoded())
			}
		}
		r.seen = info.ModTime()
	}
	for _, b := range r.blobs {
		blobs[b] = true
	}
	for _, l := range r.layers {
		layers[l] = true
	}
	return nil
}

// remembered is a memory with its file.
type remembered struct {
	Memory
	path string
	used time.Time
}

// memories reads all records; one that makes no sense is removed.
func (s *Store) memories() ([]remembered, error) {
	entries, err := os.ReadDir(filepath.Join(s.root, "cache"))
	if err != nil {
		return nil, err
	}
	var all []remembered
	for _, e := range entries {
		path := filepath.Join(s.root, "cache", e.Name())
		if !strings.HasSuffix(path, ".json") {
			continue
		}
		var m remembered
		err := atomicfile.ReadJSON(path, &m.Memory)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil || m.Layer.Blob.Digest.Validate() != nil || m.Chain != "" && m.Chain.Validate() != nil {
			_ = os.Remove(path) // cut short by a power cut: as good as none
			continue
		}
		info, err := e.Info()
		if err != nil {
			continue
		}
		m.path, m.used = path, info.ModTime()
		all = append(all, m)
	}
	return all, nil
}

// Pruned is what Prune has removed.
type Pruned struct {
	Images, Memories int
	// Damaged are blobs that had been put aside.
	Damaged int
	// Bytes is the room that they took at most; layers that are shared with what
	// stays are not freed.
	Bytes int64
}

// PruneMemories forgets the layers that were wanted least recently until the rest
// keep within the bounds, and those not wanted since before.
func (s *Store) PruneMemories(records int, bytes int64, before time.Time) (Pruned, error) {
	var done Pruned
	all, err := s.memories()
	if err != nil {
		return done, fmt.Errorf("prune build cache: %w", err)
	}
	slices.SortFunc(all, func(a, b remembered) int { return b.used.Compare(a.used) })
	counted := map[digest.Digest]bool{}
	var total int64
	for i, m := range all {
		if !counted[m.Layer.Blob.Digest] {
			counted[m.Layer.Blob.Digest] = true
			total += m.bytes()
		}
		if i < records && total <= bytes && !m.used.Before(before) {
			continue
		}
		if err := os.Remove(m.path); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return done, fmt.Errorf("prune build cache: %w", err)
		}
		done.Memories++
		done.Bytes += m.bytes()
	}
	if done.Memories == 0 {
		return done, nil
	}
	return done, s.sweep()
}

// Prune removes images without a name, or with all every image that no snapshot
// stands on; of them those that fit, where fits is not nil. Layers of running
// containers stay in any case.
func (s *Store) Prune(all bool, fits func(Image) bool) (Pruned, error) {
	var done Pruned
	used, err := s.inUse()
	if err != nil {
		return done, fmt.Errorf("prune images: %w", err)
	}
	images, err := s.List()
	if err != nil {
		return done, fmt.Errorf("prune images: %w", err)
	}
	for _, img := range images {
		if img.Pinned || used[img.Manifest] || !all && len(img.Tags)+len(img.Digests) > 0 || fits != nil && !fits(img) {
			continue
		}
		err := s.Remove(img.ID)
		if errors.Is(err, ErrNotFound) {
			continue // somebody else was faster
		}
		if err != nil {
			return done, fmt.Errorf("prune images: %w", err)
		}
		done.Images++
		done.Bytes += img.Size
	}
	return done, nil
}

// inUse are the manifests that snapshots stand on.
func (s *Store) inUse() (map[digest.Digest]bool, error) {
	keys, err := s.Snapshots()
	if err != nil {
		return nil, err
	}
	used := map[digest.Digest]bool{}
	for _, key := range keys {
		snap, err := readSnapshot(filepath.Join(s.root, "snapshots", key))
		if errors.Is(err, fs.ErrNotExist) || errors.Is(err, errCut) {
			continue
		}
		if err != nil {
			return nil, err
		}
		used[snap.Image] = true
	}
	return used, nil
}
