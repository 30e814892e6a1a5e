package build

import (
	"context"

	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"sync"

	securejoin "github.com/cyphar/filepath-securejoin"
	"github.com/moby/buildkit/frontend/dockerfile/instructions"
	"golang.org/x/sys/unix"

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
		if m.From != "" {
			_, key, err := b.sourceLayers(ctx, st, m.From)
			if err != nil {
				return "", fmt.Errorf("--mount from=%s: %w", m.From, err)
			}
			parts = append(parts, key)
			continue
		}
		if m.Type != instructions.MountTypeBind {
			continue
		}
		sources, err := b.context.walk(contextPath(m.Source), nil)
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
	data := "lowerdir=" + strings.Join(lower, ":") + ",upperdir=" + upper + ",workdir=" + work
	if err := unix.Mount("overlay", root, "overlay", unix.MS_NODEV|unix.MS_NOSUID, data); err != nil {
		return "", fmt.Errorf("overlay: %w", err)
	}
	m.undo = append(m.undo, func() error { return unix.Unmount(root, unix.MNT_DETACH) })
	return root, nil
}

// shown are the layers of what a RUN is shown: of another stage or image, or the
// context, less what upper hides of it.
func (b *builder) shown(ctx context.Context, st *stage, from, upper string) ([]string, error) {
	if from != "" {
		layers, _, err := b.sourceLayers(ctx, st, from)
		if err != nil {
			return nil, err
		}
		return b.content.Unpack(ctx, layers)
	}
	dir, err := filepath.Abs(b.context.dir)
	if err != nil {
		return nil, err
	}
	if strings.ContainsAny(dir, ":,\\") {
		return nil, fmt.Errorf("the context's path %q has a character that overlayfs cannot take: %w", dir, ErrUnsupported)
	}
	return []string{dir}, b.context.hide(upper)
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

// turns makes RUNs of this process take turns at a cache that is locked.
var turns sync.Map //nolint:gochecknoglobals // locks are the process's

// cacheMount shows a RUN a directory that outlives it. Builds in other processes
// take turns at it by its lock file.
func (b *builder) cacheMount(ctx context.Context, st *stage, all *mounted, m *instructions.Mount, at string) error {
	id := m.CacheID
	if id == "" {
		id = path.Clean(m.Target)
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

// secretID is the name of a secret: its id, else its source, else the target's
// last part.
func secretID(m *instructions.Mount) string {
	switch {
	case m.CacheID != "":
		return m.CacheID
	case m.Source != "":
		return m.Source
	}
	return path.Base(m.Target)
}

// secret shows a RUN a secret, from memory and nowhere else.
func (b *builder) secret(st *stage, all *mounted, m *instructions.Mount, at string) error {
	id := secretID(m)
	given, ok := b.opts.Secrets[id]
	if !ok {
		if m.Required {
			return fmt.Errorf("the secret %q is required: give it with --secret id=%s,src=FILE: %w", id, id, image.ErrNotFound)
		}
		return nil
	}
	value, err := given.read(id)
	if err != nil {
		return err
	}
	if m.Env != nil {
		name := *m.Env
		if name == "" {
			name = id
		}
		all.env = append(all.env, name+"="+string(value))
		if m.Target == "" {
			return nil
		}
	}
	if err := all.memory(at); err != nil {
		return err
	}
	file := filepath.Join(at, "secret")
	if err := os.WriteFile(file, value, 0o600); err != nil {
		return err
	}
	mode := os.FileMode(0o400)
	if m.Mode != nil {
		mode = os.FileMode(*m.Mode & 0o777)
	}
	if err := errors.Join(os.Chown(file, id32(m.UID), id32(m.GID)), os.Chmod(file, mode)); err != nil {
		return err
	}
	target := m.Target
	if target == "" {
		target = "/run/secrets/" + id
	}
	all.mounts = append(all.mounts, Mount{Source: file, Target: st.resolve(target), ReadOnly: true})
	return nil
}

// read gives a secret's value.
func (s Secret) read(id string) ([]byte, error) {
	if s.File == "" {
		return s.Value, nil
	}
	f, err := os.Open(s.File)
	if err != nil {
		return nil, fmt.Errorf("secret %q: %w", id, err)
	}
	defer f.Close()
	value, err := io.ReadAll(io.LimitReader(f, MaxSecret+1))
	if err != nil {
		return nil, fmt.Errorf("secret %q: %w", id, err)
	}
	if len(value) > MaxSecret {
		return nil, fmt.Errorf("secret %q: more than %d bytes: %w", id, MaxSecret, image.ErrTooLarge)
	}
	return value, nil
}

// memory mounts a small tmpfs at a directory: its content never meets a disk.
func (m *mounted) memory(at string) error {
	if err := unix.Mount("tmpfs", at, "tmpfs", unix.MS_NODEV|unix.MS_NOSUID|unix.MS_NOEXEC, "mode=0700,size=2m"); err != nil {
		return fmt.Errorf("tmpfs: %w", err)
	}
	m.undo = append(m.undo, func() error { return unix.Unmount(at, unix.MNT_DETACH) })
	return nil
}

// agent shows a RUN an SSH agent: a socket of its own, with the owner and mode
// that it asks for, before the person's.
func (b *builder) agent(st *stage, all *mounted, m *instructions.Mount, at string) error {
	id := m.CacheID
	if id == "" {
		id = "default"
	}
	agent, ok := b.opts.Agents[id]
	if !ok {
		if m.Required {
			return fmt.Errorf("the SSH agent %q is required: give it with --ssh %s: %w", id, id, image.ErrNotFound)
		}
		return nil
	}
	if err := all.memory(at); err != nil {
		return err
	}
	socket := filepath.Join(at, "s")
	listener, err := listenShort(socket)
	if err != nil {
		return fmt.Errorf("SSH agent: %w", err)
	}
	all.undo = append(all.undo, listener.Close)
	mode := os.FileMode(0o600)
	if m.Mode != nil {
		mode = os.FileMode(*m.Mode & 0o777)
	}
	if err := errors.Join(os.Chown(socket, id32(m.UID), id32(m.GID)), os.Chmod(socket, mode)); err != nil {
		return err
	}
	go relay(listener, agent)
	target := m.Target
	if target == "" {
		target = fmt.Sprintf("/run/buildkit/ssh_agent.%d", len(all.mounts))
	}
	all.mounts = append(all.mounts, Mount{Source: socket, Target: st.resolve(target)})
	if !slices.ContainsFunc(all.env, func(kv string) bool { return strings.HasPrefix(kv, "SSH_AUTH_SOCK=") }) {
		all.env = append(all.env, "SSH_AUTH_SOCK="+st.resolve(target))
	}
	return nil
}

// listenShort listens at a socket whose path may be longer than the kernel takes.
func listenShort(path string) (net.Listener, error) {
	dir, err := os.Open(filepath.Dir(path))
	if err != nil {
		return nil, err
	}
	defer dir.Close()
	listener, err := net.Listen("unix", fmt.Sprintf("/proc/self/fd/%d/%s", dir.Fd(), filepath.Base(path)))
	if unixListener, ok := listener.(*net.UnixListener); ok {
		unixListener.SetUnlinkOnClose(false)
	}
	return listener, err
}

// maxAgentConnections bounds those of one RUN at a time.
const maxAgentConnections = 16

// relay joins every connection with one to the agent, until the listener closes.
func relay(listener net.Listener, agent string) {
	slots := make(chan struct{}, maxAgentConnections)
	for {
		from, err := listener.Accept()
		if err != nil {
			return
		}
		slots <- struct{}{}
		go func() {
			defer func() { <-slots }()
			defer from.Close()
			to, err := net.Dial("unix", agent)
			if err != nil {
				return // the caller sees its connection close
			}
			defer to.Close()
			go func() {
				_, _ = io.Copy(to, from) // as above
				to.Close()
			}()
			_, _ = io.Copy(from, to) // as above
		}()
	}
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
