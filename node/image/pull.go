package image

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"runtime"
	"strings"
	"time"

	"github.com/google/go-containerregistry/pkg/name"
	digest "github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/sampan-dev/sampan/node/image/remote"
)

// Limits of one pull or push.
const (
	// pullTimeout bounds a pull as a whole; a caller's context may be shorter.
	pullTimeout = time.Hour
	// maxPlatforms bounds the manifests of an index.
	maxPlatforms = 256
)

// Auth are a registry's credentials; the zero value is an anonymous caller.
type Auth = remote.Credentials

// Progress says how far one layer has come.
type Progress struct {
	Layer       digest.Digest
	Done, Total int64
	// Present: the layer was here already.
	Present bool
}

// TransferOptions shape a pull or push.
type TransferOptions struct {
	// Auth are the credentials; when it is zero, Credentials are asked for those
	// of a host, a mirror's too. Both missing, the caller is anonymous.
	Auth        Auth
	Credentials func(host string) (Auth, error)
	// Architecture picks from an index ("arm64", "arm/v7"); "" means this
	// machine's. AllPlatforms takes the whole index.
	Architecture string
	AllPlatforms bool
	// Transport replaces the default HTTPS transport; nil means the default.
	Transport http.RoundTripper
	// HostDirs are where hosts.toml is looked for; nil means
	// remote.DefaultHostDirs.
	HostDirs []string
	// Progress, when set, is called from several goroutines, often.
	Progress func(Progress)
}

// client is the way to the registry of ref.
func (o TransferOptions) client(ref name.Reference) (*remote.Client, remote.Repository) {
	credentials := o.Credentials
	registry, _, _ := strings.Cut(spoken(ref.Context().Name()), "/")
	if o.Auth != (Auth{}) {
		// Given for one registry: no mirror sees them.
		credentials = func(host string) (Auth, error) {
			if host == registry {
				return o.Auth, nil
			}
			return Auth{}, nil
		}
	}
	client := remote.New(remote.Config{HostDirs: o.HostDirs, Credentials: credentials, Transport: o.Transport})
	return client, remote.Repository{Registry: registry, Name: ref.Context().RepositoryStr()}
}

// Pull brings an image and makes it ready to run. What is here already is not
// fetched again; what was cut off goes on where it was; every byte is verified
// before it is visible.
func (s *Store) Pull(ctx context.Context, ref string, opts TransferOptions) (Image, error) {
	ctx, cancel := context.WithTimeoutCause(ctx, pullTimeout, fmt.Errorf("pull %q: took more than %s", ref, pullTimeout))
	defer cancel()
	parsed, err := name.ParseReference(ref)
	if err != nil {
		return Image{}, fmt.Errorf("pull %q: %w: %w", ref, ErrInvalid, err)
	}
	full := spoken(parsed.Name())
	client, repo := opts.client(parsed)
	top, raw, err := s.resolve(ctx, client, repo, parsed)
	if err != nil {
		return Image{}, fmt.Errorf("pull %q: %w", ref, registryError(err))
	}
	img, err := s.ingest(ctx, &fromRegistry{client, repo}, arrival{
		ref: full, top: top, raw: raw,
		platform: opts.Architecture, all: opts.AllPlatforms, tell: opts.Progress,
	})
	if err != nil {
		return Image{}, fmt.Errorf("pull %q: %w", ref, registryError(err))
	}
	return img, nil
}

// MaxTags bounds the tags of a repository that are asked for.
const MaxTags = 10_000

// Tags asks a registry for all tags of a repository; ref names it, without a tag.
func (s *Store) Tags(ctx context.Context, ref string, opts TransferOptions) ([]string, error) {
	named, err := name.NewRepository(ref)
	if err != nil {
		return nil, fmt.Errorf("repository %q: %w: %w", ref, ErrInvalid, err)
	}
	client, repo := opts.client(named.Tag(name.DefaultTag))
	tags, err := client.Tags(ctx, repo, MaxTags)
	if err != nil {
		return nil, fmt.Errorf("tags of %q: %w", ref, registryError(err))
	}
	return tags, nil
}

// arrival is an image on its way in.
type arrival struct {
	// ref is the normalised reference that it gets; "" for none.
	ref string
	// top describes the manifest or index, raw is it.
	top ocispec.Descriptor
	raw []byte
	// platform picks from an index; all takes everything that is in it.
	platform string
	all      bool
	// packed: the layers are kept as they come, since no container here will
	// want them.
	packed bool
	// made: it comes from no registry, so that this store is where it is to be had.
	made bool
	tell func(Progress)
}

// notes are what is kept about the name of an arrival; top is the index in its
// registry, of which only one image is here.
func (a arrival) notes(top digest.Digest) map[string]string {
	notes := map[string]string{}
	if a.made {
		notes = made()
	}
	if top != "" {
		notes[topAnnotation] = top.String()
	}
	return notes
}

// ingest takes an image from anywhere into the store.
func (s *Store) ingest(ctx context.Context, from source, a arrival) (Image, error) {
	end, err := s.begin()
	if err != nil {
		return Image{}, err
	}
	defer end()
	kind := remote.MediaTypeOf(a.raw)
	if remote.IsManifest(kind) {
		img, err := s.fetchImage(ctx, from, arrival{raw: a.raw, platform: a.platform, tell: a.tell})
		if err != nil {
			return Image{}, err
		}
		return s.name(a.ref, img.Manifest, a.notes(""))
	}
	if !remote.IsIndex(kind) {
		return Image{}, fmt.Errorf("%q is neither a manifest nor an index: %w", kind, ErrInvalid)
	}
	return s.ingestIndex(ctx, from, a)
}

// ingestIndex takes one image of an index, or all of them.
func (s *Store) ingestIndex(ctx context.Context, from source, a arrival) (Image, error) {
	var index ocispec.Index
	if err := json.Unmarshal(a.raw, &index); err != nil {
		return Image{}, fmt.Errorf("index %q: %w: %w", a.top.Digest, ErrInvalid, err)
	}
	if len(index.Manifests) > maxPlatforms {
		return Image{}, fmt.Errorf("index of %d manifests: %w", len(index.Manifests), ErrTooLarge)
	}
	if err := checkDigests(index.Manifests); err != nil {
		return Image{}, fmt.Errorf("index %q: %w", a.top.Digest, err)
	}
	if !a.all {
		picked, ok := pick(index.Manifests, a.platform)
		if !ok {
			return Image{}, fmt.Errorf("the index has no image for linux/%s, only %s: %w",
				architecture(a.platform), platforms(index.Manifests), ErrNotFound)
		}
		img, err := s.fetchManifest(ctx, from, picked, arrival{tell: a.tell})
		if err != nil {
			return Image{}, err
		}
		if _, err := s.putBlob(a.raw); err != nil {
			return Image{}, err
		}
		return s.name(a.ref, img.Manifest, a.notes(a.top.Digest))
	}
	d, err := s.takeAll(ctx, from, a, index)
	if err != nil {
		return Image{}, err
	}
	return s.name(a.ref, d, a.notes(""))
}

// fetchManifest brings the image that an index describes.
func (s *Store) fetchManifest(ctx context.Context, from source, desc ocispec.Descriptor, a arrival) (Image, error) {
	raw, err := s.fetchSmall(ctx, from, desc)
	if err != nil {
		return Image{}, err
	}
	a.raw = raw
	return s.fetchImage(ctx, from, a)
}

// fetchImage brings config and layers of a manifest.
func (s *Store) fetchImage(ctx context.Context, from source, a arrival) (Image, error) {
	raw := a.raw
	var m ocispec.Manifest
	if err := json.Unmarshal(raw, &m); err != nil {
		return Image{}, fmt.Errorf("manifest: %w: %w", ErrInvalid, err)
	}
	if len(m.Layers) > MaxLayers {
		return Image{}, fmt.Errorf("%d layers, at most %d: %w", len(m.Layers), MaxLayers, ErrTooLarge)
	}
	if err := checkDigests(m.Layers); err != nil {
		return Image{}, fmt.Errorf("manifest: %w", err)
	}
	config, err := s.fetchSmall(ctx, from, m.Config)
	if err != nil {
		return Image{}, fmt.Errorf("config: %w", err)
	}
	if _, err := s.putBlob(config); err != nil {
		return Image{}, err
	}
	img := Image{ID: m.Config.Digest.String(), Layers: m.Layers}
	if isImageConfig(m.Config.MediaType) {
		if err := json.Unmarshal(config, &img.Config); err != nil {
			return Image{}, fmt.Errorf("config %q: %w: %w", m.Config.Digest, ErrInvalid, err)
		}
		if err := a.fits(img.Config); err != nil {
			return Image{}, err
		}
	}
	if a.packed || attestation(m) {
		err = s.fetchOthers(ctx, from, m.Layers)
	} else {
		err = s.bring(ctx, img, from, a.tell)
	}
	if err != nil {
		return Image{}, err
	}
	d, err := s.putBlob(raw)
	if err != nil {
		return Image{}, err
	}
	return s.describe(d)
}

// fits says whether an image that is in no index is for the platform that was asked for.
// When none was, whatever there is is meant.
func (a arrival) fits(config ocispec.Image) error {
	arch, _, _ := strings.Cut(architecture(a.platform), "/")
	if a.platform == "" || config.Architecture == "" || config.Architecture == arch {
		return nil
	}
	return fmt.Errorf("the image is for %s/%s, and not for linux/%s as asked for: %w", config.OS, config.Architecture, architecture(a.platform), ErrPlatform)
}

// fetchOthers brings blobs that are not layers of a file system.
func (s *Store) fetchOthers(ctx context.Context, from source, blobs []ocispec.Descriptor) error {
	for _, desc := range blobs {
		if s.hasBlob(desc.Digest) {
			continue
		}
		err := s.fetchBlob(ctx, fetching{src: from, desc: desc, tell: func(Progress) {}}, io.Discard)
		for err != nil && ctx.Err() == nil && doubtful(from, desc) {
			err = s.fetchBlob(ctx, fetching{src: from, desc: desc, tell: func(Progress) {}}, io.Discard)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// attestation says whether a manifest's layers are statements, not files.
func attestation(m ocispec.Manifest) bool {
	return len(m.Layers) > 0 && !strings.Contains(m.Layers[0].MediaType, "tar") && !strings.Contains(m.Layers[0].MediaType, "layer")
}

func isImageConfig(mediaType string) bool {
	return mediaType == ocispec.MediaTypeImageConfig || mediaType == "application/vnd.docker.container.image.v1+json"
}

// fetchSmall brings a manifest or config and verifies it; it is not stored.
func (s *Store) fetchSmall(ctx context.Context, from source, desc ocispec.Descriptor) ([]byte, error) {
	if !isDigest(desc.Digest) {
		return nil, fmt.Errorf("blob %q: not a sha256 digest: %w", desc.Digest, ErrInvalid)
	}
	if s.hasBlob(desc.Digest) {
		return s.readBlob(desc.Digest)
	}
	if desc.Size > MaxManifest {
		return nil, fmt.Errorf("blob %q: %d bytes, at most %d: %w", desc.Digest, desc.Size, MaxManifest, ErrTooLarge)
	}
	for {
		raw, err := readSmall(ctx, from, desc)
		if err == nil || ctx.Err() != nil || !doubtful(from, desc) {
			return raw, err
		}
	}
}

// readSmall reads a manifest or config of a source, and verifies it.
func readSmall(ctx context.Context, from source, desc ocispec.Descriptor) ([]byte, error) {
	body, err := from.open(ctx, desc, 0)
	if err != nil {
		return nil, err
	}
	defer body.Close()
	raw, err := io.ReadAll(io.LimitReader(body, MaxManifest+1))
	if err != nil {
		return nil, err
	}
	if digest.FromBytes(raw) != desc.Digest {
		return nil, fmt.Errorf("blob %q: content does not match its digest: %w", desc.Digest, ErrInvalid)
	}
	return raw, nil
}

// pick finds the image for a platform in an index: the same variant if one is
// asked for, else one without, else any.
func pick(from []ocispec.Descriptor, platform string) (best ocispec.Descriptor, ok bool) {
	arch, variant, _ := strings.Cut(architecture(platform), "/")
	score := 0
	for _, d := range from {
		if d.Platform == nil && len(from) == 1 && remote.IsManifest(d.MediaType) {
			return d, true
		}
		if d.Platform == nil || d.Platform.OS != "linux" || d.Platform.Architecture != arch {
			continue
		}
		worth := 1
		if d.Platform.Variant == variant {
			worth = 3
		} else if variant != "" {
			continue
		} else if d.Platform.Variant == "v8" || d.Platform.Variant == "v1" {
			worth = 2
		}
		if worth > score {
			best, ok, score = d, true, worth
		}
	}
	return best, ok
}

// platformOf is a descriptor's platform as people write it.
func platformOf(d ocispec.Descriptor) string {
	if d.Platform == nil {
		return "unknown"
	}
	text := d.Platform.OS + "/" + d.Platform.Architecture
	if d.Platform.Variant != "" {
		text += "/" + d.Platform.Variant
	}
	return text
}

func platforms(all []ocispec.Descriptor) string {
	var texts []string
	for _, d := range all {
		texts = append(texts, platformOf(d))
	}
	return strings.Join(texts, ", ")
}

// architecture is want, or this machine's.
func architecture(want string) string {
	if want == "" {
		return runtime.GOARCH
	}
	return strings.TrimPrefix(want, "linux/")
}

// name points ref at a manifest or index and returns the image; without a ref it
// only sees to it that the manifest is listed.
func (s *Store) name(ref string, manifest digest.Digest, notes map[string]string) (Image, error) {
	err := s.change(func(index *ocispec.Index) error { return s.point(index, ref, manifest, notes) })
	if err != nil {
		return Image{}, err
	}
	if ref != "" {
		return s.Get(ref)
	}
	return s.standsFor(manifest)
}

// registryError turns what a registry answered into one of our kinds.
func registryError(err error) error {
	for theirs, ours := range map[error]error{
		remote.ErrNotFound: ErrNotFound, remote.ErrDenied: ErrDenied, remote.ErrInvalid: ErrInvalid, remote.ErrTooLarge: ErrTooLarge,
	} {
		if errors.Is(err, theirs) && !errors.Is(err, ours) {
			return fmt.Errorf("%w: %w", ours, err)
		}
	}
	return err
}
