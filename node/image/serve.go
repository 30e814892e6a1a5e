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
	"time"

	digest "github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/sampan-dev/sampan/internal/atomicfile"
	"github.com/sampan-dev/sampan/node/image/remote"
)

// This file is the store as a registry needs it: by repository, with content that
// comes before its manifest.

// pinLife is how long a blob that was pushed waits for a manifest that names it.
const pinLife = time.Hour

// maxPinned bounds the repositories that wait for one blob.
const maxPinned = 64

// Roots are the manifests and indexes that have a name in a repository
// ("localhost:5000/team/app").
func (s *Store) Roots(repo string) ([]digest.Digest, error) {
	index, err := s.current()
	if err != nil {
		return nil, err
	}
	var roots []digest.Digest
	for _, e := range index.Manifests {
		if ref := e.Annotations[refAnnotation]; ref != "" && repository(ref) == repo && !slices.Contains(roots, e.Digest) {
			roots = append(roots, e.Digest)
		}
	}
	return roots, nil
}

// Names are all references with a tag, of images and of what else there is: artifacts, and
// lists of other lists.
func (s *Store) Names() ([]string, error) {
	index, err := s.current()
	if err != nil {
		return nil, err
	}
	var names []string
	for _, e := range index.Manifests {
		if ref := e.Annotations[refAnnotation]; ref != "" && !strings.Contains(ref, "@") {
			names = append(names, ref)
		}
	}
	return names, nil
}

// Manifest reads a manifest or index of a repository by tag or digest.
func (s *Store) Manifest(repo, ref string) (digest.Digest, []byte, error) {
	if d := digest.Digest(ref); d.Validate() == nil {
		if !s.belongs(repo, d) {
			return "", nil, fmt.Errorf("manifest %q of %q: %w", ref, repo, ErrNotFound)
		}
		raw, err := s.readBlob(d)
		if err == nil && remote.MediaTypeOf(raw) == "" {
			err = fmt.Errorf("manifest %q of %q: %w", ref, repo, ErrNotFound)
		}
		return d, raw, err
	}
	index, err := s.current()
	if err != nil {
		return "", nil, err
	}
	for _, e := range index.Manifests {
		if e.Annotations[refAnnotation] == repo+":"+ref {
			raw, err := s.readBlob(e.Digest)
			return e.Digest, raw, err
		}
	}
	return "", nil, fmt.Errorf("manifest %q of %q: %w", ref, repo, ErrNotFound)
}

// BlobOf opens a blob that a repository has.
func (s *Store) BlobOf(repo string, d digest.Digest) (*Guarded, error) {
	if !s.belongs(repo, d) {
		return nil, fmt.Errorf("blob %q of %q: %w", d, repo, ErrNotFound)
	}
	return s.guard(d)
}

// belongs says whether a repository leads to a blob, or waits for its manifest.
func (s *Store) belongs(repo string, d digest.Digest) bool {
	if !s.hasBlob(d) {
		return false
	}
	if slices.Contains(s.pinned(d.Encoded()), repo) {
		return true
	}
	roots, err := s.Roots(repo)
	if err != nil {
		return false
	}
	blobs := map[string]bool{}
	for _, r := range roots {
		if s.markTree(r, blobs, map[string]bool{}) == nil && blobs[d.Encoded()] {
			return true
		}
	}
	return false
}

// pins: the file of a blob has the repositories that wait with it.

func (s *Store) pinned(hex string) []string {
	var repos []string
	path := filepath.Join(s.root, "pins", hex)
	if info, err := os.Stat(path); err != nil || time.Since(info.ModTime()) > pinLife {
		return nil
	}
	if atomicfile.ReadJSON(path, &repos) != nil {
		return nil
	}
	return repos
}

// Pin keeps a blob that is here for a repository until a manifest names it, or
// for an hour.
func (s *Store) Pin(repo string, d digest.Digest) error {
	end, err := s.begin()
	if err != nil {
		return err
	}
	defer end()
	if !s.hasBlob(d) {
		return fmt.Errorf("blob %q: %w", d, ErrNotFound)
	}
	return s.pin(repo, d)
}

func (s *Store) pin(repo string, d digest.Digest) error {
	unlock, err := s.flock(indexLock, lockExclusive)
	if err != nil {
		return err
	}
	defer unlock()
	repos := s.pinned(d.Encoded())
	if !slices.Contains(repos, repo) {
		repos = append(repos, repo)
	}
	if len(repos) > maxPinned {
		repos = repos[len(repos)-maxPinned:]
	}
	raw, err := json.Marshal(repos)
	if err != nil {
		return err
	}
	return atomicfile.WriteVolatile(filepath.Join(s.root, "pins", d.Encoded()), raw, 0o600)
}

// markPinned marks the blobs that wait, and forgets those that have waited long.
func (s *Store) markPinned(blobs map[string]bool) error {
	entries, err := os.ReadDir(filepath.Join(s.root, "pins"))
	if err != nil {
		return err
	}
	for _, e := range entries {
		info, err := e.Info()
		if err != nil {
			continue
		}
		if time.Since(info.ModTime()) <= pinLife {
			blobs[e.Name()] = true
			continue
		}
		err = os.Remove(filepath.Join(s.root, "pins", e.Name()))
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
	}
	return nil
}

// Upload is a blob that somebody brings in pieces. It is for one goroutine at a
// time, and ends with Commit or Abort; Abort may come after Commit.
type Upload struct {
	store *Store
	blob  *blobWriter
	end   func()
}

// NewUpload begins a blob. Nothing is swept while one is open.
func (s *Store) NewUpload() (*Upload, error) {
	end, err := s.begin()
	if err != nil {
		return nil, err
	}
	w, err := s.newBlob()
	if err != nil {
		end()
		return nil, err
	}
	return &Upload{store: s, blob: w, end: end}, nil
}

// Size is how many bytes have come.
func (u *Upload) Size() int64 { return u.blob.size }

// Write takes a piece; more than MaxLayerBytes altogether is ErrTooLarge.
func (u *Upload) Write(p []byte) (int, error) {
	if u.blob.size+int64(len(p)) > MaxLayerBytes {
		return 0, fmt.Errorf("blob of more than %d bytes: %w", int64(MaxLayerBytes), ErrTooLarge)
	}
	return u.blob.Write(p)
}

// Commit verifies the blob and keeps it for the repository.
func (u *Upload) Commit(repo string, want digest.Digest) error {
	if _, err := u.blob.commit(want); err != nil {
		return err
	}
	return u.store.pin(repo, want)
}

// Abort ends the upload.
func (u *Upload) Abort() {
	if u.end == nil {
		return
	}
	u.blob.abort()
	u.end()
	u.end = nil
}

// Receive takes in a manifest or index whose content is here, under a tag or its
// own digest. It is not unpacked until a container wants it.
func (s *Store) Receive(_ context.Context, repo, ref string, raw []byte) (digest.Digest, error) {
	end, err := s.begin()
	if err != nil {
		return "", err
	}
	defer end()
	if err := s.complete(raw); err != nil {
		return "", err
	}
	d, err := s.putBlob(raw)
	if err != nil {
		return "", err
	}
	full := repo + ":" + ref
	if strings.Contains(ref, ":") {
		full = repo + "@" + d.String()
	}
	if full, err = Normalise(full); err != nil {
		return "", err
	}
	return d, s.change(func(index *ocispec.Index) error { return s.point(index, full, d, made()) })
}

// complete says what a manifest needs and is not here.
func (s *Store) complete(raw []byte) error {
	kind := remote.MediaTypeOf(raw)
	var m struct {
		Config    ocispec.Descriptor   `json:"config"`
		Layers    []ocispec.Descriptor `json:"layers"`
		Manifests []ocispec.Descriptor `json:"manifests"`
	}
	if err := json.Unmarshal(raw, &m); err != nil {
		return fmt.Errorf("manifest: %w: %w", ErrInvalid, err)
	}
	if !remote.IsManifest(kind) && !remote.IsIndex(kind) {
		return fmt.Errorf("media type %q: neither a manifest nor an index: %w", kind, ErrInvalid)
	}
	most := MaxLayers
	if !isImageConfig(m.Config.MediaType) {
		most = maxTravelling // of an artifact, which is not unpacked
	}
	if len(m.Layers) > most || len(m.Manifests) > maxPlatforms {
		return fmt.Errorf("%d layers, %d manifests: %w", len(m.Layers), len(m.Manifests), ErrTooLarge)
	}
	needed := slices.Concat(m.Layers, m.Manifests)
	if remote.IsManifest(kind) {
		needed = append(needed, m.Config)
	}
	for _, desc := range needed {
		if desc.Digest.Validate() != nil || desc.Digest.Algorithm() != digest.SHA256 {
			return fmt.Errorf("digest %q: %w", desc.Digest, ErrInvalid)
		}
		if !s.hasBlob(desc.Digest) && !elsewhere(desc) {
			return fmt.Errorf("it needs %q, which has not been pushed: %w", desc.Digest, ErrNotFound)
		}
	}
	return nil
}

// Untag removes one name: a repository with ":TAG" or "@DIGEST", which takes the
// tags of that digest along.
func (s *Store) Untag(repo, suffix string) error {
	err := s.change(func(index *ocispec.Index) error {
		index.Manifests = slices.DeleteFunc(index.Manifests, func(e ocispec.Descriptor) bool {
			ref := e.Annotations[refAnnotation]
			if ref == repo+suffix {
				return true
			}
			return ref != "" && repository(ref) == repo && "@"+e.Digest.String() == suffix
		})
		return nil
	})
	if err != nil {
		return err
	}
	return s.sweep()
}
