package image

import (
	"archive/tar"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"

	"github.com/google/go-containerregistry/pkg/name"
	digest "github.com/opencontainers/go-digest"
	"github.com/opencontainers/image-spec/specs-go"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/sampan-dev/sampan/node/image/remote"
)

// maxArchive bounds an archive given to Load, spooled to disk.
const maxArchive = 64 << 30

// dockerEntry is one image in a docker-archive's manifest.json.
type dockerEntry struct {
	Config   string
	RepoTags []string
	Layers   []string
}

// Save writes images as one archive that is a docker-archive and an OCI layout at
// once, as docker 25 and later write it: docker, podman, skopeo, containerd and
// Load read it. An index goes whole into the layout.
func (s *Store) Save(w io.Writer, refs ...string) error {
	return s.write(w, archive{docker: true}, refs)
}

// SaveLayout writes images as a tar of an OCI layout and nothing else.
func (s *Store) SaveLayout(w io.Writer, refs ...string) error {
	return s.write(w, archive{}, refs)
}

// SavePlatform is Save, or with layout SaveLayout, of the images for one platform alone,
// such as arm64; "" is for all that there are.
func (s *Store) SavePlatform(w io.Writer, platform string, layout bool, refs ...string) error {
	return s.write(w, archive{docker: !layout, platform: platform}, refs)
}

// archive is one being written.
type archive struct {
	store *Store
	tar   *tar.Writer
	made  map[string]bool
	index ocispec.Index
	// docker: it is a docker-archive too, whose manifest.json has these entries.
	docker  bool
	entries []*dockerEntry
	// platform is the one of which an index's image is written; "" for the index.
	platform string
}

func (s *Store) write(w io.Writer, a archive, refs []string) error {
	end, err := s.begin()
	if err != nil {
		return fmt.Errorf("save images: %w", err)
	}
	defer end()
	a.store, a.tar, a.made = s, tar.NewWriter(w), map[string]bool{}
	a.index = ocispec.Index{Versioned: specs.Versioned{SchemaVersion: 2}, MediaType: ocispec.MediaTypeImageIndex}
	for _, ref := range refs {
		if err := a.add(ref); err != nil {
			return fmt.Errorf("save %q: %w", ref, err)
		}
	}
	if err := a.finish(a.docker); err != nil {
		return fmt.Errorf("save images: %w", err)
	}
	return nil
}

// add writes an image's blobs and notes its names.
func (a *archive) add(ref string) error {
	root, err := a.store.target(ref)
	if err != nil {
		return err
	}
	img, err := a.store.Get(ref)
	if errors.Is(err, ErrNotFound) && root.String() == ref { // an index without a name
		img, err = a.store.standsFor(root)
	}
	if err != nil {
		return err
	}
	full, err := Normalise(ref)
	named := err == nil && slices.Contains(img.Tags, full)
	if a.platform != "" {
		if root, img, err = a.part(root); err != nil {
			return err
		}
	}
	if err := a.tree(root); err != nil {
		return err
	}
	raw, err := a.store.readBlob(root)
	if err != nil {
		return err
	}
	desc := ocispec.Descriptor{MediaType: remote.MediaTypeOf(raw), Digest: root, Size: int64(len(raw))}
	if named {
		desc.Annotations = map[string]string{"io.containerd.image.name": full, refAnnotation: full[len(repository(full))+1:]}
	}
	a.index.Manifests = append(a.index.Manifests, desc)
	a.entry(img, full, named)
	return nil
}

// part is the image for the archive's platform, of an index or alone.
func (a *archive) part(root digest.Digest) (digest.Digest, Image, error) {
	only, err := a.store.only(root, a.platform)
	if err != nil {
		return "", Image{}, err
	}
	img, err := a.store.describe(only)
	if err == nil {
		err = arrival{platform: a.platform}.fits(img.Config)
	}
	return only, img, err
}

// standsFor is the image that a manifest is, or that an index has for this machine.
func (s *Store) standsFor(d digest.Digest) (Image, error) {
	chosen, err := s.choose(ocispec.Descriptor{Digest: d})
	if err != nil {
		return Image{}, err
	}
	return s.describe(chosen)
}

// entry notes an image for manifest.json.
func (a *archive) entry(img Image, full string, named bool) {
	config := blobName(digest.Digest(img.ID))
	for _, e := range a.entries {
		if e.Config == config {
			if named {
				e.RepoTags = append(e.RepoTags, familiar(full))
			}
			return
		}
	}
	e := &dockerEntry{Config: config, RepoTags: []string{}, Layers: []string{}}
	if named {
		e.RepoTags = append(e.RepoTags, familiar(full))
	}
	for _, l := range img.Layers {
		e.Layers = append(e.Layers, blobName(l.Digest))
	}
	a.entries = append(a.entries, e)
}

func blobName(d digest.Digest) string { return path.Join("blobs", d.Algorithm().String(), d.Encoded()) }

// tree writes a manifest or index with all that it leads to and that is here.
func (a *archive) tree(d digest.Digest) error {
	raw, err := a.store.readBlob(d)
	if err != nil {
		return err
	}
	if remote.IsIndex(remote.MediaTypeOf(raw)) {
		var index ocispec.Index
		if err := json.Unmarshal(raw, &index); err != nil {
			return fmt.Errorf("index %q: %w: %w", d, ErrInvalid, err)
		}
		for _, m := range index.Manifests {
			if !a.store.hasBlob(m.Digest) {
				continue
			}
			if err := a.tree(m.Digest); err != nil {
				return err
			}
		}
		return a.blob(d)
	}
	m, err := a.store.manifest(d)
	if err != nil {
		return err
	}
	for _, l := range append(m.Layers, m.Config) {
		if elsewhere(l) && !a.store.hasBlob(l.Digest) {
			continue
		}
		if err := a.blob(l.Digest); err != nil {
			return err
		}
	}
	return a.blob(d)
}

// blob writes one blob, once.
func (a *archive) blob(d digest.Digest) error {
	name := blobName(d)
	if a.made[name] {
		return nil
	}
	a.made[name] = true
	f, err := a.store.openBlob(d)
	if err != nil {
		return err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return err
	}
	if err := a.tar.WriteHeader(&tar.Header{Name: name, Typeflag: tar.TypeReg, Mode: 0o644, Size: info.Size()}); err != nil {
		return err
	}
	hash := newCounter(f)
	if _, err = io.Copy(a.tar, hash); err != nil {
		return err
	}
	if hash.hash.Digest() != d {
		return a.store.damaged(d)
	}
	return nil
}

// finish writes what says which blob is which.
func (a *archive) finish(docker bool) error {
	files := map[string]any{"oci-layout": ocispec.ImageLayout{Version: ocispec.ImageLayoutVersion}, "index.json": a.index}
	names := []string{"oci-layout", "index.json"}
	if docker {
		files["manifest.json"] = a.entries
		names = append(names, "manifest.json")
	}
	for _, name := range names {
		raw, err := json.Marshal(files[name])
		if err != nil {
			return err
		}
		if err := a.tar.WriteHeader(&tar.Header{Name: name, Typeflag: tar.TypeReg, Mode: 0o644, Size: int64(len(raw))}); err != nil {
			return err
		}
		if _, err := a.tar.Write(raw); err != nil {
			return err
		}
	}
	return a.tar.Close()
}

// Load takes in every image of a docker-archive or of a tar of an OCI layout,
// compressed or not, and returns what it took. The stream is spooled to disk.
func (s *Store) Load(ctx context.Context, r io.Reader) ([]Image, error) {
	end, err := s.begin()
	if err != nil {
		return nil, fmt.Errorf("load images: %w", err)
	}
	defer end()
	dir, err := os.MkdirTemp(filepath.Join(s.root, "ingest"), "load-*")
	if err != nil {
		return nil, fmt.Errorf("load images: %w", err)
	}
	defer os.RemoveAll(dir)
	plain, done, err := Decompress(r)
	if err != nil {
		return nil, fmt.Errorf("load images: %w", err)
	}
	defer done()
	if err := spool(ctx, plain, dir); err != nil {
		return nil, fmt.Errorf("load images: %w", err)
	}
	l, err := openLayout(dir)
	if err != nil {
		return nil, fmt.Errorf("load images: %w", err)
	}
	defer l.close()
	loaded, err := s.loadFrom(ctx, l)
	if err != nil {
		return loaded, fmt.Errorf("load images: %w", err)
	}
	return loaded, nil
}

// LoadLayout takes in every image of an OCI layout directory.
func (s *Store) LoadLayout(ctx context.Context, dir string) ([]Image, error) {
	l, err := openLayout(dir)
	if err != nil {
		return nil, fmt.Errorf("load images: %w", err)
	}
	defer l.close()
	loaded, err := s.loadFrom(ctx, l)
	if err != nil {
		return loaded, fmt.Errorf("load images of %q: %w", dir, err)
	}
	return loaded, nil
}

// spool unpacks an archive's files; anything but files, directories and links
// has no place in one.
func spool(ctx context.Context, r io.Reader, dir string) error {
	root, err := os.OpenRoot(dir)
	if err != nil {
		return err
	}
	defer root.Close()
	limited := &bomb{r: r, allowed: maxArchive}
	x := &extractor{root: root}
	defer x.leave()
	found := false
	for tr := tar.NewReader(limited); ; {
		h, err := tr.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return fmt.Errorf("tar: %w: %w", ErrInvalid, err)
		}
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		if err := x.count(h); err != nil {
			return err
		}
		name, err := cleanPath(h.Name)
		if err != nil {
			return err
		}
		found = found || name == "manifest.json" || name == "oci-layout"
		if err := x.archived(h, name, tr); err != nil {
			return fmt.Errorf("entry %q: %w", h.Name, err)
		}
	}
	if !found {
		return fmt.Errorf("neither manifest.json nor oci-layout in it: %w", ErrInvalid)
	}
	return nil
}

// archived writes one entry of an archive. Old docker-archives have symlinks
// where two images share a layer; the root keeps them inside.
func (x *extractor) archived(h *tar.Header, name string, r io.Reader) error {
	switch h.Typeflag {
	case tar.TypeReg, tar.TypeSymlink, tar.TypeLink:
	case tar.TypeDir:
		return x.root.MkdirAll(name, 0o755)
	default:
		return nil
	}
	h.Name = name
	if err := x.parents(path.Dir(name)); err != nil {
		return err
	}
	if h.Typeflag == tar.TypeReg || h.Typeflag == tar.TypeGNUSparse {
		return x.content(h, r, nil)
	}
	if err := x.replace(h); err != nil {
		return err
	}
	return x.create(h)
}

// referenceOf is the name that an OCI layout's entry carries: containerd's full
// name, else the specification's reference when that is one, else none.
func referenceOf(desc ocispec.Descriptor) (string, error) {
	for _, key := range []string{"io.containerd.image.name", refAnnotation} {
		if ref := desc.Annotations[key]; ref != "" {
			return Normalise(ref)
		}
	}
	return "", nil
}

// familiar is a normalised reference as Docker's archives have it: what Docker
// Hub's official images are called leaves out what is understood.
func familiar(full string) string {
	parsed, err := name.ParseReference(full)
	if err != nil {
		return full
	}
	tag, ok := parsed.(name.Tag)
	if !ok || parsed.Context().RegistryStr() != defaultAPIHost {
		return full
	}
	repo := parsed.Context().RepositoryStr()
	if rest, ok := strings.CutPrefix(repo, "library/"); ok {
		repo = rest
	}
	return repo + ":" + tag.TagStr()
}
