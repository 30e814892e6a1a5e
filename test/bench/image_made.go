package main

import (
	"archive/tar"
	"compress/gzip"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"hash"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"

	digest "github.com/opencontainers/go-digest"
	"github.com/opencontainers/image-spec/specs-go"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// imageParts are this machine's own files, of which the image is made: large ones,
// and many small ones. Each is a layer of at most so many megabytes.
var imageParts = []struct {
	dir string
	mb  int64
}{{"/usr/bin", 120}, {"/usr/lib", 120}, {"/usr/share", 120}}

// big is an image on disk.
type big struct {
	// layout is a directory, archive the same as one tar: an OCI layout.
	layout, archive string
	bytes           int64 // unpacked
	files           int
}

const bigName = "localhost/bench:1"

// makeBig makes the image of this machine's files.
func makeBig(dir string) (big, error) {
	b := big{layout: filepath.Join(dir, "layout"), archive: filepath.Join(dir, "image.tar")}
	blobs := filepath.Join(b.layout, "blobs/sha256")
	if err := os.MkdirAll(blobs, 0o755); err != nil {
		return b, err
	}
	put := func(kind string, v any) (ocispec.Descriptor, error) {
		raw, err := json.Marshal(v)
		d := digest.FromBytes(raw)
		return ocispec.Descriptor{MediaType: kind, Digest: d, Size: int64(len(raw))}, errors.Join(err, os.WriteFile(filepath.Join(blobs, d.Encoded()), raw, 0o644))
	}
	config := ocispec.Image{Platform: ocispec.Platform{Architecture: "amd64", OS: "linux"}, RootFS: ocispec.RootFS{Type: "layers"}}
	manifest := ocispec.Manifest{Versioned: specs.Versioned{SchemaVersion: 2}, MediaType: ocispec.MediaTypeImageManifest}
	for _, part := range imageParts {
		layer, diff, err := b.layer(part.dir, part.mb<<20, blobs)
		if err != nil {
			return b, fmt.Errorf("layer of %q: %w", part.dir, err)
		}
		manifest.Layers, config.RootFS.DiffIDs = append(manifest.Layers, layer), append(config.RootFS.DiffIDs, diff)
	}
	var err error
	if manifest.Config, err = put(ocispec.MediaTypeImageConfig, config); err != nil {
		return b, err
	}
	named, err := put(ocispec.MediaTypeImageManifest, manifest)
	if err != nil {
		return b, err
	}
	named.Annotations = map[string]string{ocispec.AnnotationRefName: "1", "io.containerd.image.name": bigName}
	raw, err := json.Marshal(ocispec.Index{Versioned: specs.Versioned{SchemaVersion: 2}, Manifests: []ocispec.Descriptor{named}})
	err = errors.Join(err, os.WriteFile(filepath.Join(b.layout, "index.json"), raw, 0o644),
		os.WriteFile(filepath.Join(b.layout, "oci-layout"), []byte(`{"imageLayoutVersion":"1.0.0"}`), 0o644))
	if err != nil {
		return b, err
	}
	out, err := exec.Command("tar", "-C", b.layout, "-cf", b.archive, ".").CombinedOutput()
	if err != nil {
		err = fmt.Errorf("tar: %w: %s", err, out)
	}
	return b, err
}

// layer packs files of a directory until they are limit bytes.
func (b *big) layer(from string, limit int64, blobs string) (ocispec.Descriptor, digest.Digest, error) {
	f, err := os.CreateTemp(blobs, "layer-*")
	if err != nil {
		return ocispec.Descriptor{}, "", err
	}
	defer f.Close()
	packed, plain := sha256.New(), sha256.New()
	z := gzip.NewWriter(io.MultiWriter(f, packed))
	t := tar.NewWriter(io.MultiWriter(z, plain))
	left := limit
	err = filepath.WalkDir(from, func(path string, e fs.DirEntry, err error) error {
		if err == nil && left < 0 {
			err = filepath.SkipAll
		}
		if err != nil {
			return err
		}
		n, err := addFile(t, path, e)
		left, b.bytes, b.files = left-n, b.bytes+n, b.files+1
		return err
	})
	if err := errors.Join(err, t.Close(), z.Close()); err != nil {
		return ocispec.Descriptor{}, "", err
	}
	info, err := f.Stat()
	if err != nil {
		return ocispec.Descriptor{}, "", err
	}
	d := digestOf(packed)
	return ocispec.Descriptor{MediaType: ocispec.MediaTypeImageLayerGzip, Digest: d, Size: info.Size()}, digestOf(plain), os.Rename(f.Name(), filepath.Join(blobs, d.Encoded()))
}

func digestOf(h hash.Hash) digest.Digest { return digest.NewDigest(digest.SHA256, h) }

// addFile packs one file, directory or link.
func addFile(t *tar.Writer, path string, e fs.DirEntry) (int64, error) {
	info, err := e.Info()
	if err != nil {
		return 0, err
	}
	link := ""
	if info.Mode()&fs.ModeSymlink != 0 {
		if link, err = os.Readlink(path); err != nil {
			return 0, err
		}
	}
	h, err := tar.FileInfoHeader(info, link)
	if err != nil {
		return 0, err
	}
	if h.Name = strings.TrimPrefix(path, "/"); info.IsDir() {
		h.Name += "/"
	}
	if err := t.WriteHeader(h); err != nil || !info.Mode().IsRegular() {
		return 0, err
	}
	f, err := os.Open(path)
	if err != nil {
		return 0, err
	}
	defer f.Close()
	return io.Copy(t, f)
}
