package image

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"strings"

	"github.com/google/go-containerregistry/pkg/name"
	digest "github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"golang.org/x/sync/errgroup"

	"github.com/sampan-dev/sampan/node/image/remote"
)

// Push sends what ref leads to, an image or an index with all its images, to the
// registry that ref names; with an Architecture, that one image of the index. Layers that the registry has are not sent again, those
// that another of its repositories has are mounted from there.
func (s *Store) Push(ctx context.Context, ref string, opts TransferOptions) (digest.Digest, error) {
	parsed, err := name.ParseReference(ref)
	if err != nil {
		return "", fmt.Errorf("push %q: %w: %w", ref, ErrInvalid, err)
	}
	end, err := s.begin()
	if err != nil {
		return "", fmt.Errorf("push %q: %w", ref, err)
	}
	defer end()
	root, err := s.target(ref)
	if err != nil {
		return "", fmt.Errorf("push %q: %w", ref, err)
	}
	if opts.Architecture != "" {
		if root, err = s.only(root, opts.Architecture); err != nil {
			return "", fmt.Errorf("push %q: %w", ref, err)
		}
	}
	client, repo := opts.client(parsed)
	p := &pushing{store: s, client: client, repo: repo, tell: opts.Progress}
	if p.tell == nil {
		p.tell = func(Progress) {}
	}
	if err := p.push(ctx, root, parsed.Identifier()); err != nil {
		return "", fmt.Errorf("push %q: %w", ref, registryError(err))
	}
	return root, nil
}

// only is the one image of an index that is for a platform.
func (s *Store) only(root digest.Digest, platform string) (digest.Digest, error) {
	raw, err := s.readBlob(root)
	if err != nil || !remote.IsIndex(remote.MediaTypeOf(raw)) {
		return root, err
	}
	var index ocispec.Index
	if err := json.Unmarshal(raw, &index); err != nil {
		return "", fmt.Errorf("index %q: %w: %w", root, ErrInvalid, err)
	}
	picked, ok := pick(index.Manifests, platform)
	if !ok {
		return "", fmt.Errorf("the index has no image for linux/%s, only %s: %w", architecture(platform), platforms(index.Manifests), ErrNotFound)
	}
	return picked.Digest, nil
}

// pushing is one push under way.
type pushing struct {
	store  *Store
	client *remote.Client
	repo   remote.Repository
	tell   func(Progress)
}

// push sends a manifest or index and all it needs, and then itself, under ref.
func (p *pushing) push(ctx context.Context, d digest.Digest, ref string) error {
	raw, err := p.store.readBlob(d)
	if err != nil {
		return err
	}
	kind := remote.MediaTypeOf(raw)
	if remote.IsIndex(kind) {
		var index ocispec.Index
		if err := json.Unmarshal(raw, &index); err != nil {
			return fmt.Errorf("index %q: %w: %w", d, ErrInvalid, err)
		}
		for _, m := range index.Manifests {
			if !p.store.hasBlob(m.Digest) {
				return fmt.Errorf("the index names an image for %s that is not here (pull it with --all-platforms): %w", platformOf(m), ErrNotFound)
			}
			if err := p.push(ctx, m.Digest, m.Digest.String()); err != nil {
				return err
			}
		}
		return p.client.PushManifest(ctx, p.repo, ref, kind, raw)
	}
	m, err := p.store.manifest(d)
	if err != nil {
		return err
	}
	group, gctx := errgroup.WithContext(ctx)
	group.SetLimit(parallelLayers)
	sent := map[digest.Digest]bool{}
	for _, desc := range append(m.Layers, m.Config) {
		if !sent[desc.Digest] && (!elsewhere(desc) || p.store.hasBlob(desc.Digest)) {
			sent[desc.Digest] = true
			group.Go(func() error { return p.blob(gctx, desc) })
		}
	}
	if err := group.Wait(); err != nil {
		return err
	}
	return p.client.PushManifest(ctx, p.repo, ref, kind, raw)
}

// blob sends one blob.
func (p *pushing) blob(ctx context.Context, desc ocispec.Descriptor) error {
	sent, err := p.client.Push(ctx, p.repo, remote.Upload{
		Desc: desc, From: p.store.siblings(p.repo, desc.Digest),
		Open: func() (*os.File, error) { return p.store.openBlob(desc.Digest) },
		Sent: func(n int64) { p.tell(Progress{Layer: desc.Digest, Done: n, Total: desc.Size}) },
	})
	if err != nil && errors.Is(p.store.verify(desc.Digest), errContent) { // the registry's word for that is less clear
		return p.store.damaged(desc.Digest)
	}
	if err == nil && !sent {
		p.tell(Progress{Layer: desc.Digest, Done: desc.Size, Total: desc.Size, Present: true})
	}
	return err
}

// maxSiblings bounds the repositories that a push tries to mount a blob from.
const maxSiblings = 3

// siblings are other repositories of the same registry of which an image here
// has the blob.
func (s *Store) siblings(repo remote.Repository, blob digest.Digest) []string {
	images, err := s.List()
	if err != nil {
		return nil // only a saving is lost
	}
	var names []string
	for _, img := range images {
		has := img.ID == blob.String()
		for _, l := range img.Layers {
			has = has || l.Digest == blob
		}
		if !has {
			continue
		}
		for _, ref := range append(img.Tags, img.Digests...) {
			registry, rest, _ := strings.Cut(repository(ref), "/")
			if registry == repo.Registry && rest != repo.Name && len(names) < maxSiblings {
				names = append(names, rest)
			}
		}
	}
	return names
}
