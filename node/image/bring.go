package image

import (
	"context"
	"fmt"
	"io"
	"os"

	digest "github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"golang.org/x/sync/errgroup"
)

// parallelLayers is how many layers of one image move and unpack at once.
const parallelLayers = 3

// A source has the blobs of an image: a registry, or an archive.
type source interface {
	// open gives a blob's bytes from offset on. Its errors may be transient.
	open(ctx context.Context, desc ocispec.Descriptor, offset int64) (io.ReadCloser, error)
}

// bring makes the layers of an image ready: blobs that are missing come from src
// (nil: there must be none), and each is unpacked while it arrives. A layer has
// its name only once its digests are right and those below it are there.
func (s *Store) bring(ctx context.Context, img Image, src source, tell func(Progress)) error {
	if err := checkLayers(img); err != nil {
		return err
	}
	if tell == nil {
		tell = func(Progress) {}
	}
	b := &bringing{store: s, img: img, src: src, tell: tell, staged: make([]chan *unpacked, len(img.Layers))}
	defer b.release()
	for i := range img.Layers {
		b.staged[i] = make(chan *unpacked, 1)
		// Bottom first: images that share layers share the lowest, so that two
		// pulls never wait for each other in a circle.
		unlock, err := s.unpacking.lock(ctx, img.Chain(i).String())
		if err != nil {
			return err
		}
		b.unlock = append(b.unlock, unlock)
	}
	b.announce()
	group, gctx := errgroup.WithContext(ctx)
	group.Go(func() error { return b.settle(gctx) })
	slots := make(chan struct{}, parallelLayers)
	for i := range img.Layers {
		group.Go(func() error {
			select {
			case slots <- struct{}{}:
				defer func() { <-slots }()
			case <-gctx.Done():
				return context.Cause(gctx)
			}
			u, err := b.stage(gctx, i)
			if err != nil {
				return fmt.Errorf("layer %q: %w", img.Layers[i].Digest, err)
			}
			b.staged[i] <- u
			return nil
		})
	}
	return group.Wait()
}

// bringing is one bring under way.
type bringing struct {
	store  *Store
	img    Image
	src    source
	tell   func(Progress)
	staged []chan *unpacked
	unlock []func()
	// done is how many layers, from the bottom, have their names.
	done int
}

// announce tells of everything that has to come, before the first byte.
func (b *bringing) announce() {
	for _, layer := range b.img.Layers {
		if b.src != nil && layer.Size > 0 && !b.store.hasBlob(layer.Digest) {
			b.tell(Progress{Layer: layer.Digest, Total: layer.Size})
		}
	}
}

// release gives back what an interrupted bring holds.
func (b *bringing) release() {
	for _, c := range b.staged {
		if c == nil {
			continue
		}
		select {
		case u := <-c:
			u.discard()
		default:
		}
	}
	for _, unlock := range b.unlock[min(b.done, len(b.unlock)):] {
		unlock()
	}
}

// stage fetches and unpacks layer i; nil means that it is unpacked already.
func (b *bringing) stage(ctx context.Context, i int) (*unpacked, error) {
	layer, diff := b.img.Layers[i], b.img.Config.RootFS.DiffIDs[i]
	_, err := os.Stat(b.store.layerPath(b.img.Chain(i)))
	have := err == nil
	unlock, err := b.store.fetching.lock(ctx, layer.Digest.String())
	if err != nil {
		return nil, err
	}
	if b.store.hasBlob(layer.Digest) {
		unlock()
		b.tell(Progress{Layer: layer.Digest, Done: layer.Size, Total: layer.Size, Present: true})
		if have {
			return nil, nil
		}
		return b.store.fromBlob(ctx, layer, diff)
	}
	defer unlock()
	if b.src == nil {
		if have {
			return nil, nil
		}
		return nil, fmt.Errorf("blob: %w", ErrNotFound)
	}
	for {
		u, err := b.arrive(ctx, i, have)
		if err == nil || ctx.Err() != nil || !doubtful(b.src, layer) {
			return u, err
		}
	}
}

// doubtful says whether a blob that could not be had may be another time: who sent
// it has been taken off the list, which gets shorter with every such answer.
func doubtful(src source, desc ocispec.Descriptor) bool {
	d, ok := src.(interface{ doubt(ocispec.Descriptor) bool })
	return ok && d.doubt(desc)
}

// arrive fetches layer i, and unpacks it on the way unless that has been done.
func (b *bringing) arrive(ctx context.Context, i int, have bool) (*unpacked, error) {
	layer, diff := b.img.Layers[i], b.img.Config.RootFS.DiffIDs[i]
	if have {
		return nil, b.store.fetchBlob(ctx, fetching{src: b.src, desc: layer, tell: b.tell}, io.Discard)
	}
	return b.stream(ctx, layer, diff)
}

// stream unpacks a layer while its blob arrives.
func (b *bringing) stream(ctx context.Context, layer ocispec.Descriptor, diff digest.Digest) (*unpacked, error) {
	reader, writer := io.Pipe()
	var u *unpacked
	unpacking := make(chan error, 1)
	go func() {
		var err error
		u, err = b.store.unpackVerified(ctx, reader, layer.Size, diff)
		// What follows the compressed stream is not ours to judge; and when the
		// content makes no sense, its digest tells whose fault that is.
		_, _ = io.Copy(io.Discard, reader) // its error is fetchBlob's
		unpacking <- err
	}()
	err := b.store.fetchBlob(ctx, fetching{src: b.src, desc: layer, tell: b.tell}, writer)
	_ = writer.CloseWithError(err) // never fails
	if unpackErr := <-unpacking; err == nil {
		err = unpackErr
	}
	if err != nil {
		u.discard()
		return nil, err
	}
	return u, nil
}

// settle gives the layers their names from the bottom up, as many at a time as
// are ready.
func (b *bringing) settle(ctx context.Context) error {
	var below []string
	for i := 0; i < len(b.staged); {
		var ready []*unpacked
		var finals []string
		first := i
		for ; i < len(b.staged); i++ {
			u, ok, err := b.next(ctx, i, i == first)
			if err != nil {
				return err
			}
			if !ok {
				break
			}
			final := b.store.layerPath(b.img.Chain(i))
			if u != nil {
				if err := u.settle(below); err != nil {
					return err
				}
				ready, finals = append(ready, u), append(finals, final)
				below = append(below, u.dir)
				continue
			}
			below = append(below, final)
		}
		if err := publish(ready, finals); err != nil {
			return err
		}
		for j := first; j < i; j++ {
			below[j] = b.store.layerPath(b.img.Chain(j))
			b.unlock[j]()
		}
		b.done = i
	}
	return nil
}

// next takes layer i when it is ready, or waits for it.
func (b *bringing) next(ctx context.Context, i int, wait bool) (u *unpacked, ok bool, err error) {
	if !wait {
		select {
		case u = <-b.staged[i]:
			return u, true, nil
		default:
			return nil, false, nil
		}
	}
	select {
	case u = <-b.staged[i]:
		return u, true, nil
	case <-ctx.Done():
		return nil, false, context.Cause(ctx)
	}
}
