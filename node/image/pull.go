package image

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"time"

	"github.com/google/go-containerregistry/pkg/authn"
	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/google/go-containerregistry/pkg/v1/remote/transport"
	digest "github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"golang.org/x/sync/errgroup"
)

// Limits of one pull or push.
const (
	// parallelLayers is how many layers move at once.
	parallelLayers = 3
	// pullTimeout bounds a pull as a whole; a caller's context may be shorter.
	pullTimeout = time.Hour
)

// Auth are a registry's credentials; the zero value is an anonymous caller.
type Auth struct {
	Username, Password string
	// IdentityToken is exchanged for an access token; RegistryToken is one.
	IdentityToken, RegistryToken string
}

func (a Auth) authenticator() authn.Authenticator {
	if a == (Auth{}) {
		return authn.Anonymous
	}
	return authn.FromConfig(authn.AuthConfig{
		Username: a.Username, Password: a.Password,
		IdentityToken: a.IdentityToken, RegistryToken: a.RegistryToken,
	})
}

// Progress says how far one layer has come.
type Progress struct {
	Layer       digest.Digest
	Done, Total int64
	// Present: the layer was here already.
	Present bool
}

// TransferOptions shape a pull or push.
type TransferOptions struct {
	Auth Auth
	// Architecture picks from an index; "" means this machine's.
	Architecture string
	// Transport replaces the default HTTPS transport; nil means the default.
	Transport http.RoundTripper
	// Progress, when set, is called from several goroutines, often.
	Progress func(Progress)
}

func (o TransferOptions) remote(ctx context.Context) []remote.Option {
	opts := []remote.Option{
		remote.WithContext(ctx), remote.WithAuth(o.Auth.authenticator()),
		remote.WithPlatform(v1.Platform{OS: "linux", Architecture: architecture(o.Architecture)}),
		remote.WithUserAgent("sampan"), remote.WithJobs(parallelLayers),
	}
	if o.Transport != nil {
		opts = append(opts, remote.WithTransport(o.Transport))
	}
	return opts
}

// Pull brings an image and makes it ready to run. What is here already is not
// fetched again; every byte is verified before it is visible.
func (s *Store) Pull(ctx context.Context, ref string, opts TransferOptions) (Image, error) {
	ctx, cancel := context.WithTimeoutCause(ctx, pullTimeout, fmt.Errorf("pull %q: took more than %s", ref, pullTimeout))
	defer cancel()
	parsed, err := name.ParseReference(ref)
	if err != nil {
		return Image{}, fmt.Errorf("pull %q: %w: %w", ref, ErrInvalid, err)
	}
	desc, err := remote.Get(parsed, opts.remote(ctx)...)
	if err != nil {
		return Image{}, fmt.Errorf("pull %q: %w", ref, registryError(err))
	}
	picked, err := desc.Image()
	if err != nil {
		return Image{}, fmt.Errorf("pull %q: %w", ref, registryError(err))
	}
	img, err := s.ingest(ctx, picked, spoken(parsed.Name()), ingestOptions{
		top: digest.Digest(desc.Digest.String()), progress: opts.Progress,
	})
	if err != nil {
		return Image{}, fmt.Errorf("pull %q: %w", ref, registryError(err))
	}
	return img, nil
}

type ingestOptions struct {
	top      digest.Digest
	progress func(Progress)
}

// ingest takes an image from anywhere into the store under the normalised ref.
func (s *Store) ingest(ctx context.Context, from v1.Image, ref string, opts ingestOptions) (Image, error) {
	end, err := s.begin()
	if err != nil {
		return Image{}, err
	}
	defer end()
	img, err := s.fetch(ctx, from, opts)
	if err != nil {
		return Image{}, err
	}
	if err := s.unpackAll(ctx, img); err != nil {
		return Image{}, err
	}
	return s.name(ref, img.Manifest, opts.top)
}

// name points ref at a manifest and returns the image.
func (s *Store) name(ref string, manifest, top digest.Digest) (Image, error) {
	err := s.change(func(index *ocispec.Index) error {
		if err := s.point(index, ref, manifest); err != nil {
			return err
		}
		if top != "" && top != manifest {
			index.Manifests[len(index.Manifests)-1].Annotations[topAnnotation] = top.String()
		}
		return nil
	})
	if err != nil {
		return Image{}, err
	}
	return s.Get(ref)
}

// fetch brings manifest, config and compressed layers.
func (s *Store) fetch(ctx context.Context, from v1.Image, opts ingestOptions) (Image, error) {
	layers, err := from.Layers()
	if err != nil {
		return Image{}, err
	}
	if len(layers) > MaxLayers {
		return Image{}, fmt.Errorf("%d layers, at most %d: %w", len(layers), MaxLayers, ErrTooLarge)
	}
	group, gctx := errgroup.WithContext(ctx)
	group.SetLimit(parallelLayers)
	for _, l := range layers {
		group.Go(func() error { return s.fetchLayer(gctx, l, opts.progress) })
	}
	if err := group.Wait(); err != nil {
		return Image{}, err
	}
	rawConfig, err := from.RawConfigFile()
	if err != nil {
		return Image{}, err
	}
	if _, err := s.putBlob(rawConfig); err != nil {
		return Image{}, err
	}
	rawManifest, err := from.RawManifest()
	if err != nil {
		return Image{}, err
	}
	manifest, err := s.putBlob(rawManifest)
	if err != nil {
		return Image{}, err
	}
	return s.describe(manifest)
}

// fetchLayer brings one compressed layer unless it is here.
func (s *Store) fetchLayer(ctx context.Context, l v1.Layer, progress func(Progress)) error {
	hash, err := l.Digest()
	if err != nil {
		return err
	}
	want := digest.Digest(hash.String())
	size, err := l.Size()
	if err != nil {
		return err
	}
	if progress == nil {
		progress = func(Progress) {}
	}
	if s.hasBlob(want) {
		progress(Progress{Layer: want, Done: size, Total: size, Present: true})
		return nil
	}
	stream, err := l.Compressed()
	if err != nil {
		return fmt.Errorf("layer %q: %w", want, err)
	}
	defer stream.Close()
	w, err := s.newBlob()
	if err != nil {
		return err
	}
	defer w.abort()
	report := &reporter{ctx: ctx, r: stream, at: Progress{Layer: want, Total: size}, tell: progress}
	if _, err := io.Copy(w, io.LimitReader(report, size+1)); err != nil {
		return fmt.Errorf("layer %q: %w", want, err)
	}
	_, err = w.commit(want)
	return err
}

// reporter tells of every read, and stops when the context ends.
type reporter struct {
	ctx  context.Context
	r    io.Reader
	at   Progress
	tell func(Progress)
}

func (r *reporter) Read(p []byte) (int, error) {
	if r.ctx.Err() != nil {
		return 0, context.Cause(r.ctx)
	}
	n, err := r.r.Read(p)
	r.at.Done += int64(n)
	r.tell(r.at)
	return n, err
}

// registryError turns what a registry answered into one of our kinds.
func registryError(err error) error {
	var answer *transport.Error
	if !errors.As(err, &answer) {
		return err
	}
	switch answer.StatusCode {
	case http.StatusNotFound:
		return fmt.Errorf("%w: %s", ErrNotFound, brief(answer))
	case http.StatusUnauthorized, http.StatusForbidden:
		return fmt.Errorf("%w: %s", ErrDenied, brief(answer))
	}
	return err
}

// brief is the first line of a registry's answer.
func brief(err error) string {
	line, _, _ := strings.Cut(err.Error(), "\n")
	return line
}
