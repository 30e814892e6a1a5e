package image

import (
	"archive/tar"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"

	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/layout"
	"github.com/google/go-containerregistry/pkg/v1/tarball"
)

// maxArchive bounds an archive given to Load, spooled to disk.
const maxArchive = 64 << 30

// Save writes images as one docker-archive, which docker, podman, skopeo and
// Load read.
func (s *Store) Save(w io.Writer, refs ...string) error {
	end, err := s.begin()
	if err != nil {
		return fmt.Errorf("save images: %w", err)
	}
	defer end()
	images := map[name.Reference]v1.Image{}
	for _, ref := range refs {
		img, err := s.Get(ref)
		if err != nil {
			return fmt.Errorf("save %q: %w", ref, err)
		}
		stored, err := s.stored(img)
		if err != nil {
			return fmt.Errorf("save %q: %w", ref, err)
		}
		parsed, err := name.ParseReference(ref)
		if err != nil {
			return fmt.Errorf("save %q: %w: %w", ref, ErrInvalid, err)
		}
		images[parsed] = stored
	}
	if err := tarball.MultiRefWrite(images, w); err != nil {
		return fmt.Errorf("save images: %w", err)
	}
	return nil
}

// Load takes in every image of a docker-archive or of a tar of an OCI layout,
// and returns what it took. The stream is spooled to disk first.
func (s *Store) Load(ctx context.Context, r io.Reader) ([]Image, error) {
	end, err := s.begin()
	if err != nil {
		return nil, fmt.Errorf("load images: %w", err)
	}
	defer end()
	spool, err := os.CreateTemp(filepath.Join(s.root, "ingest"), "load-*")
	if err != nil {
		return nil, fmt.Errorf("load images: %w", err)
	}
	defer os.Remove(spool.Name())
	defer spool.Close()
	n, err := io.Copy(spool, io.LimitReader(r, maxArchive+1))
	if err != nil {
		return nil, fmt.Errorf("load images: %w", err)
	}
	if n > maxArchive {
		return nil, fmt.Errorf("load images: archive of more than %d bytes: %w", int64(maxArchive), ErrTooLarge)
	}
	kind, err := archiveKind(spool)
	if err != nil {
		return nil, fmt.Errorf("load images: %w", err)
	}
	if kind == "oci-layout" {
		return s.loadLayout(ctx, spool)
	}
	return s.loadDocker(ctx, spool.Name())
}

// archiveKind looks for the file that tells the two formats apart. An archive
// with both (docker 25 and later writes such) counts as docker's, which has the tags.
func archiveKind(f *os.File) (string, error) {
	if _, err := f.Seek(0, io.SeekStart); err != nil {
		return "", err
	}
	kind := ""
	for tr := tar.NewReader(f); ; {
		h, err := tr.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return "", fmt.Errorf("tar: %w: %w", ErrInvalid, err)
		}
		switch filepath.Clean(h.Name) {
		case "manifest.json":
			return "docker", nil
		case "oci-layout":
			kind = "oci-layout"
		}
	}
	if kind == "" {
		return "", fmt.Errorf("neither manifest.json nor oci-layout in it: %w", ErrInvalid)
	}
	return kind, nil
}

func (s *Store) loadDocker(ctx context.Context, path string) ([]Image, error) {
	open := func() (io.ReadCloser, error) { return os.Open(path) }
	manifest, err := tarball.LoadManifest(open)
	if err != nil {
		return nil, fmt.Errorf("load images: %w: %w", ErrInvalid, err)
	}
	var loaded []Image
	for _, m := range manifest {
		for _, tag := range m.RepoTags {
			parsed, err := name.NewTag(tag)
			if err != nil {
				return loaded, fmt.Errorf("load image %q: %w: %w", tag, ErrInvalid, err)
			}
			img, err := tarball.Image(open, &parsed)
			if err != nil {
				return loaded, fmt.Errorf("load image %q: %w: %w", tag, ErrInvalid, err)
			}
			got, err := s.ingest(ctx, img, spoken(parsed.Name()), ingestOptions{})
			if err != nil {
				return loaded, fmt.Errorf("load image %q: %w", tag, err)
			}
			loaded = append(loaded, got)
		}
	}
	return loaded, nil
}

// loadLayout unpacks a tar of an OCI layout beside the store and takes it in.
func (s *Store) loadLayout(ctx context.Context, spool *os.File) ([]Image, error) {
	dir, err := os.MkdirTemp(filepath.Join(s.root, "ingest"), "layout-*")
	if err != nil {
		return nil, err
	}
	defer os.RemoveAll(dir)
	if _, err := spool.Seek(0, io.SeekStart); err != nil {
		return nil, err
	}
	if err := extractPlain(ctx, spool, dir); err != nil {
		return nil, fmt.Errorf("load images: %w", err)
	}
	index, err := layout.ImageIndexFromPath(dir)
	if err != nil {
		return nil, fmt.Errorf("load images: %w: %w", ErrInvalid, err)
	}
	manifest, err := index.IndexManifest()
	if err != nil {
		return nil, fmt.Errorf("load images: %w: %w", ErrInvalid, err)
	}
	var loaded []Image
	for _, desc := range manifest.Manifests {
		if !desc.MediaType.IsImage() {
			continue
		}
		img, err := index.Image(desc.Digest)
		if err != nil {
			return loaded, fmt.Errorf("load image %q: %w: %w", desc.Digest, ErrInvalid, err)
		}
		ref, err := layoutReference(desc)
		if err != nil {
			return loaded, err
		}
		got, err := s.ingest(ctx, img, ref, ingestOptions{})
		if err != nil {
			return loaded, fmt.Errorf("load image %q: %w", ref, err)
		}
		loaded = append(loaded, got)
	}
	return loaded, nil
}

// layoutReference is the name that an OCI layout's entry carries: containerd's
// full name, else the specification's reference, else the digest.
func layoutReference(desc v1.Descriptor) (string, error) {
	for _, key := range []string{"io.containerd.image.name", refAnnotation} {
		if ref := desc.Annotations[key]; ref != "" {
			return Normalise(ref)
		}
	}
	return Normalise("unnamed@" + desc.Digest.String())
}

// extractPlain unpacks regular files and directories of a tar below dir.
func extractPlain(ctx context.Context, r io.Reader, dir string) error {
	root, err := os.OpenRoot(dir)
	if err != nil {
		return err
	}
	defer root.Close()
	x := &extractor{root: root}
	return x.extract(ctx, tar.NewReader(r))
}
