package image

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"time"

	digest "github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"golang.org/x/sys/unix"

	"github.com/sampan-dev/sampan/internal/atomicfile"
	"github.com/sampan-dev/sampan/node/image/remote"
)

// Limits of fetching one blob.
const (
	// fruitless is how many attempts in a row may bring no byte.
	fruitless = 3
	// maxResumes bounds the attempts altogether.
	maxResumes = 32
	// resumeAfter is the pause before an attempt, times the fruitless ones.
	resumeAfter = time.Second
	// partialFor is how long the beginning of a blob is kept for the next pull.
	partialFor = 24 * time.Hour
)

// fetching is one blob on its way.
type fetching struct {
	src  source
	desc ocispec.Descriptor
	tell func(Progress)
}

// fetchBlob brings a blob into the store, going on where an earlier attempt, of
// this process or another, was cut off. All its bytes are also written to copy.
func (s *Store) fetchBlob(ctx context.Context, f fetching, copy io.Writer) error {
	if err := f.desc.Digest.Validate(); err != nil || f.desc.Digest.Algorithm() != digest.SHA256 {
		return fmt.Errorf("not a sha256 digest: %w", ErrInvalid)
	}
	if f.desc.Size < 0 || f.desc.Size > MaxLayerBytes {
		return fmt.Errorf("blob of %d bytes: %w", f.desc.Size, ErrTooLarge)
	}
	p, err := s.openPartial(ctx, f, copy)
	if err != nil {
		return err
	}
	defer p.file.Close()
	for attempt, idle := 0, 0; p.size < f.desc.Size || attempt == 0; attempt++ {
		before := p.size
		err := p.more(ctx, f)
		if err == nil && p.size == f.desc.Size {
			break
		}
		if err == nil {
			err = fmt.Errorf("ended after %d of %d bytes: %w", p.size, f.desc.Size, io.ErrUnexpectedEOF)
		}
		if idle++; p.size > before {
			idle = 0
		}
		if !remote.Transient(err) || idle >= fruitless || attempt >= maxResumes || ctx.Err() != nil {
			return err
		}
		select {
		case <-time.After(time.Duration(idle) * resumeAfter):
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
	return p.commit(f.desc.Digest)
}

// partial is a blob that has not come to its end.
type partial struct {
	store *Store
	file  *os.File
	hash  digest.Digester
	size  int64
	out   io.Writer
	tell  func(int64)
}

// openPartial takes up what is there of a blob. Another process that fetches the
// same blob is waited for by way of its lock; if it holds it, we fetch apart.
func (s *Store) openPartial(ctx context.Context, f fetching, copy io.Writer) (*partial, error) {
	path := filepath.Join(s.root, "partial", f.desc.Digest.Encoded())
	file, err := os.OpenFile(path, os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return nil, err
	}
	if err := unix.Flock(int(file.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		file.Close()
		if file, err = os.CreateTemp(filepath.Join(s.root, "ingest"), "blob-*"); err != nil {
			return nil, err
		}
	}
	p := &partial{store: s, file: file, hash: digest.SHA256.Digester(), out: copy}
	p.tell = func(n int64) { f.tell(Progress{Layer: f.desc.Digest, Done: n, Total: f.desc.Size}) }
	known, err := file.Stat()
	if err == nil && known.Size() > f.desc.Size {
		err = file.Truncate(0)
	}
	if err == nil {
		p.size, err = io.Copy(io.MultiWriter(p.hash.Hash(), p.out), reader{ctx, file})
	}
	if err != nil {
		file.Close()
		return nil, err
	}
	if p.size > 0 {
		p.tell(p.size)
	}
	return p, nil
}

// reader stops when the context ends.
type reader struct {
	ctx context.Context
	r   io.Reader
}

func (r reader) Read(p []byte) (int, error) {
	if r.ctx.Err() != nil {
		return 0, context.Cause(r.ctx)
	}
	return r.r.Read(p)
}

// more fetches from where the blob ends.
func (p *partial) more(ctx context.Context, f fetching) error {
	if p.size == f.desc.Size && p.size > 0 {
		return nil
	}
	body, err := f.src.open(ctx, f.desc, p.size)
	if err != nil {
		return err
	}
	defer body.Close()
	left := f.desc.Size - p.size
	n, err := io.Copy(p, io.LimitReader(reader{ctx, body}, left+1))
	if err != nil {
		return err
	}
	if n > left {
		return fmt.Errorf("more than the %d bytes that the manifest says: %w", f.desc.Size, ErrInvalid)
	}
	return nil
}

func (p *partial) Write(b []byte) (int, error) {
	n, err := p.file.Write(b)
	p.hash.Hash().Write(b[:n])
	p.size += int64(n)
	if err != nil {
		return n, err
	}
	p.tell(p.size)
	return p.out.Write(b)
}

// commit verifies the blob and makes it durable and visible. What is wrong is
// thrown away: going on from there would never help.
func (p *partial) commit(want digest.Digest) error {
	if got := p.hash.Digest(); got != want {
		return errors.Join(fmt.Errorf("content has digest %q: %w", got, ErrInvalid), os.Remove(p.file.Name()))
	}
	if err := p.file.Sync(); err != nil {
		return err
	}
	final := p.store.blobPath(want)
	if err := os.Rename(p.file.Name(), final); err != nil {
		return err
	}
	return atomicfile.SyncDir(filepath.Dir(final))
}

// sweepPartial removes beginnings of blobs that nobody has come back for.
func (s *Store) sweepPartial() error {
	dir := filepath.Join(s.root, "partial")
	entries, err := os.ReadDir(dir)
	if err != nil {
		return err
	}
	for _, e := range entries {
		info, err := e.Info()
		if err != nil || time.Since(info.ModTime()) < partialFor {
			continue
		}
		if err := os.Remove(filepath.Join(dir, e.Name())); err != nil && !errors.Is(err, os.ErrNotExist) {
			return err
		}
	}
	return nil
}
