package build

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"

	securejoin "github.com/cyphar/filepath-securejoin"
	"github.com/moby/buildkit/frontend/dockerfile/instructions"
	"golang.org/x/sys/unix"

	"github.com/sampan-dev/sampan/node/container/plan/overlay"
	"github.com/sampan-dev/sampan/node/image"
)

// mounted are the mounts of one RUN while it runs.
type mounted struct {
	mounts []Mount
	env    []string
	// undo are what must be done afterwards, last first.
	undo []func() error
}

// close undoes everything.
func (m *mounted) close() error {
	var err error
	for _, undo := range slices.Backward(m.undo) {
		err = errors.Join(err, undo())
	}
	return err
}

// mountKey stands for the mounts of a RUN in the cache's key: what they are, and
// for files of the context or of a stage their content. Caches and secrets are
// known by their names alone.
func (b *builder) mountKey(ctx context.Context, st *stage, mounts []*instructions.Mount) (string, error) {
	var parts []string
	for _, m := range mounts {
		parts = append(parts, fmt.Sprintf("%s %q %q %q %v %q %d", m.Type, m.From, m.Source, m.Target, m.ReadOnly, m.CacheID, m.SizeLimit))
		if m.Type == instructions.MountTypeSecret {
			if _, ok := b.opts.Secrets[secretID(m)]; !ok {
				parts = append(parts, "absent")
			}
		}
		files := b.filesOf(m.From)
		if m.From != "" && files == nil {
			key, err := b.mountedKey(ctx, st, m)
			if err != nil {
				return "", fmt.Errorf("--mount from=%s: %w", m.From, err)
			}
			parts = append(parts, key)
			continue
		}
		if m.Type != instructions.MountTypeBind && files == nil {
			continue
		}
		if files == nil {
			files = b.context
		}
		sources, err := files.walk(contextPath(m.Source), nil)
		if err != nil {
			return "", fmt.Errorf("--mount source=%s: %w", m.Source, err)
		}
		sum, err := checksum(sources)
		if err != nil {
			return "", err
		}
		parts = append(parts, sum)
	}
	return digestOf(parts...), nil
}

// mountedKey stands for what a mount shows of a stage or image: of a part of a stage its
// content, so that what else changes in the stage does not count; else all of it.
func (b *builder) mountedKey(ctx context.Context, st *stage, m *instructions.Mount) (key string, err error) {
	_, key, err = b.sourceLayers(ctx, st, m.From)
	if err != nil || m.Type != instructions.MountTypeBind || contextPath(m.Source) == "." || b.stageBefore(m.From, st.index) < 0 {
		return key, err
	}
	v, err := b.stageView(ctx, st, m.From)
	if err != nil {
		return "", err
	}
	defer func() { err = errors.Join(err, v.Close()) }()
	sources, err := v.walk(contextPath(m.Source), nil)
	if err != nil {
		return "", fmt.Errorf("source %q: %w", m.Source, err)
	}
	return checksum(sources)
}

// contextPath is a mount's source as a name in the context.
func contextPath(source string) string {
	if p := entryName("/" + source); p != "" {
		return p
	}
	return "."
}

// mount makes the mounts of a RUN ready below dir, which is the RUN's own.
func (b *builder) mount(ctx context.Context, st *stage, mounts []*instructions.Mount, dir string) (*mounted, error) {
	all := &mounted{}
	for i, m := range mounts {
		at := filepath.Join(dir, fmt.Sprintf("mount%d", i))
		if err := os.Mkdir(at, 0o700); err != nil {
			return nil, errors.Join(err, all.close())
		}
		var err error
		switch m.Type {
		case instructions.MountTypeBind:
			err = b.bind(ctx, st, all, m, at)
		case instructions.MountTypeCache:
			err = b.cacheMount(ctx, st, all, m, at)
		case instructions.MountTypeTmpfs:
			all.mounts = append(all.mounts, Mount{Target: st.resolve(m.Target), Size: m.SizeLimit})
		case instructions.MountTypeSecret:
			err = b.secret(st, all, m, at)
		case instructions.MountTypeSSH:
			err = b.agent(st, all, m, at)
		default:
			err = fmt.Errorf("%w", ErrUnsupported)
		}
		if err == nil && m.Type != instructions.MountTypeSecret && m.Type != instructions.MountTypeSSH && m.Target == "" {
			err = fmt.Errorf("it has no target: %w", image.ErrInvalid)
		}
		if err != nil {
			return nil, errors.Join(fmt.Errorf("--mount=type=%s: %w", m.Type, err), all.close())
		}
	}
	return all, nil
}

// overlay joins lower directories (topmost first) with a writable one below at.
func (m *mounted) overlay(lower []string, upper, at string) (string, error) {
	root := filepath.Join(at, "root")
	work := upper + ".work"
	for _, d := range []string{root, upper, work} {
		if err := os.MkdirAll(d, 0o755); err != nil {
			return "", err
		}
	}
	if len(lower) == 0 {
		empty := filepath.Join(at, "empty")
		if err := os.Mkdir(empty, 0o755); err != nil {
			return "", err
		}
		lower = []string{empty}
	}
	if err := (overlay.Layers{Lower: lower, Upper: upper, Work: work}).Mount(root, unix.MS_NODEV|unix.MS_NOSUID); err != nil {
		return "", err
	}
	m.undo = append(m.undo, func() error { return unix.Unmount(root, unix.MNT_DETACH) })
	return root, nil
}

// shown are the layers of what a RUN is shown: of another stage or image, or the
// context, less what upper hides of it.
func (b *builder) shown(ctx context.Context, st *stage, from, upper string) ([]string, error) {
	files := b.filesOf(from)
	if from != "" && files == nil {
		layers, _, err := b.sourceLayers(ctx, st, from)
		if err != nil {
			return nil, err
		}
		return b.content.Unpack(ctx, layers)
	}
	if files == nil {
		files = b.context
	}
	dir, err := filepath.Abs(files.dir)
	if err != nil {
		return nil, err
	}
	if strings.ContainsAny(dir, ":,\\") {
		return nil, fmt.Errorf("the context's path %q has a character that overlayfs cannot take: %w", dir, ErrUnsupported)
	}
	return []string{dir}, files.hide(upper)
}

// bind shows a RUN the context or another stage. What it writes there is lost.
func (b *builder) bind(ctx context.Context, st *stage, all *mounted, m *instructions.Mount, at string) error {
	upper := filepath.Join(at, "upper")
	lower, err := b.shown(ctx, st, m.From, upper)
	if err != nil {
		return err
	}
	root, err := all.overlay(lower, upper, at)
	if err != nil {
		return err
	}
	source, err := securejoin.SecureJoin(root, m.Source)
	if err != nil {
		return err
	}
	if _, err := os.Stat(source); err != nil {
		return fmt.Errorf("source %q: %w", m.Source, image.ErrNotFound)
	}
	all.mounts = append(all.mounts, Mount{Source: source, Target: st.resolve(m.Target), ReadOnly: m.ReadOnly})
	return nil
}

// hide makes an overlay's upper directory in which everything that .dockerignore
// hides is a whiteout.
func (c *buildContext) hide(upper string) error {
	if err := os.MkdirAll(upper, 0o755); err != nil || c.ignored == nil {
		return err
	}
	return fs.WalkDir(c.FS(), ".", func(p string, d fs.DirEntry, err error) error {
		if err != nil || p == "." {
			return err
		}
		hidden, err := c.ignores(p)
		if err != nil || !hidden {
			return err
		}
		if d.IsDir() && c.ignored.Exclusions() {
			return nil // some of it may be shown again
		}
		if err := os.MkdirAll(filepath.Join(upper, filepath.Dir(p)), 0o755); err != nil {
			return err
		}
		if err := unix.Mknod(filepath.Join(upper, p), unix.S_IFCHR, 0); err != nil {
			return err
		}
		if d.IsDir() {
			return fs.SkipDir
		}
		return nil
	})
}

// stubs are the places of mounts that the image does not have: whatever is made
// there for the RUN must not become part of the layer.
func stubs(v *view, targets []string) ([]string, error) {
	var missing []string
	for _, t := range targets {
		at, err := v.destination(t)
		if err != nil {
			return nil, err
		}
		for p := at; p != "/"; p = path.Dir(p) {
			if v.dir != "" {
				if _, err := os.Lstat(filepath.Join(v.dir, p)); err == nil {
					break
				}
			}
			missing = append(missing, entryName(p))
		}
	}
	slices.SortFunc(missing, func(a, b string) int { return strings.Count(b, "/") - strings.Count(a, "/") })
	return slices.Compact(missing), nil
}

// sweepStubs removes from an upper directory what was made for mounts, where the
// RUN has not put anything.
func sweepStubs(upper string, missing []string) error {
	root, err := os.OpenRoot(upper)
	if err != nil {
		return err
	}
	defer root.Close()
	for _, p := range missing {
		info, err := root.Lstat(p)
		if err != nil || info.Mode().IsRegular() && info.Size() > 0 || !info.IsDir() && !info.Mode().IsRegular() {
			continue
		}
		_ = root.Remove(p) // a directory with something in it stays
	}
	return nil
}
