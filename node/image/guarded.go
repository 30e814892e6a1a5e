package image

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"time"

	digest "github.com/opencontainers/go-digest"
)

// Guarded is a stored blob as it is given to others, who must not get what the disk has
// made of it since: what is read is compared with the digest on the way, and the last
// bytes of a blob that is damaged are not given away, so that whoever has got the others
// knows that it is not whole. The blob is put aside then, and told of in the log.
// It is for one goroutine.
type Guarded struct {
	store *Store
	file  *os.File
	name  digest.Digest
	state blobState
	// at is where the next read begins; the first hashed bytes have gone through hash.
	at, hashed int64
	hash       digest.Digester
	err        error
}

// blobState is a file of which the content was compared with its digest.
type blobState struct {
	size int64
	when time.Time
}

// guard opens a blob for others.
func (s *Store) guard(d digest.Digest) (*Guarded, error) {
	f, err := s.openBlob(d)
	if err != nil {
		return nil, err
	}
	info, err := f.Stat()
	if err != nil {
		f.Close()
		return nil, fmt.Errorf("blob %q: %w", d, err)
	}
	g := &Guarded{store: s, file: f, name: d, hash: digest.SHA256.Digester(), state: blobState{info.Size(), info.ModTime()}}
	if info.Size() == 0 {
		if err := g.compare(); err != nil {
			f.Close()
			return nil, err
		}
	}
	return g, nil
}

// Close ends it.
func (g *Guarded) Close() { _ = g.file.Close() } // it was only read

// Seek implements io.Seeker. It reads nothing.
func (g *Guarded) Seek(offset int64, whence int) (int64, error) {
	switch whence {
	case io.SeekCurrent:
		offset += g.at
	case io.SeekEnd:
		offset += g.state.size
	}
	if offset < 0 {
		return 0, fmt.Errorf("blob %q: seek to %d: %w", g.name, offset, fs.ErrInvalid)
	}
	g.at = offset
	return offset, nil
}

// Read implements io.Reader. A read from the middle on reads what is before, too.
func (g *Guarded) Read(p []byte) (int, error) {
	if g.err != nil {
		return 0, g.err
	}
	if g.at >= g.state.size {
		return 0, io.EOF
	}
	if g.err = g.reach(g.at); g.err != nil {
		return 0, g.err
	}
	n, err := g.file.ReadAt(p[:min(int64(len(p)), g.state.size-g.at)], g.at)
	if fresh := g.at + int64(n) - g.hashed; fresh > 0 {
		g.hash.Hash().Write(p[int64(n)-fresh : n])
		g.hashed += fresh
		if g.hashed == g.state.size {
			if g.err = g.compare(); g.err != nil {
				return 0, g.err
			}
		}
	}
	g.at += int64(n)
	if err != nil && !errors.Is(err, io.EOF) {
		g.err = g.unreadable(err)
	}
	if n == 0 && g.err == nil {
		g.err = fmt.Errorf("blob %q was cut short while it was read: %w", g.name, io.ErrUnexpectedEOF)
	}
	return n, g.err
}

// reach hashes what is before a place and was not read.
func (g *Guarded) reach(to int64) error {
	if to <= g.hashed {
		return nil
	}
	n, err := io.Copy(g.hash.Hash(), io.NewSectionReader(g.file, g.hashed, to-g.hashed))
	g.hashed += n
	if err != nil {
		return g.unreadable(err)
	}
	return nil
}

func (g *Guarded) unreadable(err error) error {
	g.store.log.Error("a blob of the image store can't be read", "blob", g.name, "error", err)
	return fmt.Errorf("blob %q: %w", g.name, err)
}

// compare judges what has been hashed, which is all there is.
func (g *Guarded) compare() error {
	if g.hash.Digest() != g.name {
		return g.store.damaged(g.name)
	}
	g.store.sound.Store(g.name, g.state)
	return nil
}

// Prove reads the blob to its end, unless this store has done so since it was opened and
// the file is as it was. It is for whoever will read a part that does not reach the end,
// which says nothing about its digest.
func (g *Guarded) Prove() error {
	if known, ok := g.store.sound.Load(g.name); ok && known.(blobState).when.Equal(g.state.when) && known.(blobState).size == g.state.size {
		return nil
	}
	if g.err == nil {
		g.err = g.reach(g.state.size)
	}
	if g.err == nil {
		g.err = g.compare()
	}
	return g.err
}
