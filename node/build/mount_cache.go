package build

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path"
	"path/filepath"
	"sync"

	securejoin "github.com/cyphar/filepath-securejoin"
	"github.com/moby/buildkit/frontend/dockerfile/instructions"
	"golang.org/x/sys/unix"

	"github.com/sampan-dev/sampan/node/image"
)

// turns makes RUNs of this process take turns at a cache that is locked.
var turns sync.Map //nolint:gochecknoglobals // locks are the process's

// cacheMount shows a RUN a directory that outlives it. Builds in other processes
// take turns at it by its lock file.
func (b *builder) cacheMount(ctx context.Context, st *stage, all *mounted, m *instructions.Mount, at string) error {
	id := m.CacheID
	if id == "" {
		id = path.Clean(m.Target)
	}
	if own := b.opts.Args[argCaches]; own != "" {
		id = own + "/" + id
	}
	var lower []string
	key := digestOf(id)
	if m.From != "" {
		layers, from, err := b.sourceLayers(ctx, st, m.From)
		if err != nil {
			return err
		}
		if lower, err = b.content.Unpack(ctx, layers); err != nil {
			return err
		}
		key = digestOf(id, from)
	}
	if m.CacheSharing == instructions.MountSharingPrivate {
		key = digestOf(key, b.private(key))
	}
	dir := filepath.Join(b.opts.Cache, "mounts", key[:32])
	if err := os.MkdirAll(filepath.Dir(dir), 0o700); err != nil {
		return err
	}
	made := os.Mkdir(dir, 0o755) == nil
	if made {
		if err := errors.Join(os.Chmod(dir, cacheMode(m)), os.Chown(dir, id32(m.UID), id32(m.GID))); err != nil {
			return err
		}
	}
	if m.CacheSharing == instructions.MountSharingLocked || len(lower) > 0 || m.CacheSharing == instructions.MountSharingPrivate {
		if err := lockCache(ctx, all, dir+".lock"); err != nil {
			return err
		}
	}
	source := dir
	if len(lower) > 0 {
		root, err := all.overlay(lower, dir, at)
		if err != nil {
			return err
		}
		if source, err = securejoin.SecureJoin(root, m.Source); err != nil {
			return err
		}
		if info, err := os.Stat(source); err != nil || !info.IsDir() {
			return fmt.Errorf("source %q is no directory of %q: %w", m.Source, m.From, image.ErrNotFound)
		}
	}
	all.mounts = append(all.mounts, Mount{Source: source, Target: st.resolve(m.Target), ReadOnly: m.ReadOnly})
	return nil
}

// private is the number of a private cache that no other RUN has now: they are
// locked while they are used.
func (b *builder) private(key string) string {
	for n := range 64 {
		name := fmt.Sprint(n)
		lock := filepath.Join(b.opts.Cache, "mounts", digestOf(key, name)[:32]+".lock")
		if _, busy := turns.Load(lock); !busy {
			return name
		}
	}
	return "64"
}

// lockCache waits for the cache's lock and holds it for as long as the RUN runs.
func lockCache(ctx context.Context, all *mounted, path string) error {
	turn, _ := turns.LoadOrStore(path, make(chan struct{}, 1))
	select {
	case turn.(chan struct{}) <- struct{}{}:
	case <-ctx.Done():
		return context.Cause(ctx)
	}
	f, err := os.OpenFile(path, os.O_CREATE|os.O_RDWR, 0o600)
	if err == nil {
		err = unix.Flock(int(f.Fd()), unix.LOCK_EX)
	}
	all.undo = append(all.undo, func() error {
		turns.CompareAndDelete(path, turn)
		<-turn.(chan struct{})
		if f != nil {
			return f.Close()
		}
		return nil
	})
	return err
}

func cacheMode(m *instructions.Mount) os.FileMode {
	if m.Mode == nil {
		return 0o755
	}
	return os.FileMode(*m.Mode & 0o777)
}

// id32 is an ID of a mount; the parser keeps it within 32 bits.
func id32(id *uint64) int {
	if id == nil {
		return 0
	}
	return int(*id) //nolint:gosec // as above
}
