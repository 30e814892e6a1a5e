package build

import (
	"archive/tar"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path"
	"strconv"
	"strings"

	"github.com/moby/buildkit/frontend/dockerfile/instructions"
	"github.com/moby/patternmatcher"

	"github.com/sampan-dev/sampan/node/image"
)

// copying is a COPY or ADD with everything looked up.
type copying struct {
	items []item
	owner owner
	// text is the instruction for the cache key.
	text string
}

// item is one source argument's tree and where it goes.
type item struct {
	sources []source
	to      string
	// content is a heredoc's, when there are no sources.
	content *string
	// archive: the source is a tar to be unpacked at to.
	archive bool
}

// copy executes COPY.
func (b *builder) copy(ctx context.Context, st *stage, cmd *instructions.CopyCommand) (bool, error) {
	if cmd.Parents {
		return false, fmt.Errorf("--parents: %w", ErrUnsupported)
	}
	from := &b.context.tree
	if cmd.From != "" {
		v, err := b.stageView(ctx, cmd.From)
		if err != nil {
			return false, err
		}
		defer func() { _ = v.Close() }()
		from = &v.tree
	}
	return b.transfer(ctx, st, transfer{
		verb: "COPY", from: from, what: cmd.SourcesAndDest,
		chown: cmd.Chown, chmod: cmd.Chmod, exclude: cmd.ExcludePatterns,
	})
}

// add executes ADD: as COPY, but local archives are unpacked.
func (b *builder) add(ctx context.Context, st *stage, cmd *instructions.AddCommand) (bool, error) {
	for _, s := range cmd.SourcePaths {
		if strings.Contains(s, "://") || strings.HasPrefix(s, "git@") {
			return false, fmt.Errorf("ADD of the remote source %q: %w; fetch it first and COPY it", s, ErrUnsupported)
		}
	}
	unpack := cmd.Unpack == nil || *cmd.Unpack
	return b.transfer(ctx, st, transfer{
		verb: "ADD", from: &b.context.tree, what: cmd.SourcesAndDest, unpack: unpack,
		chown: cmd.Chown, chmod: cmd.Chmod, exclude: cmd.ExcludePatterns,
	})
}

// transfer is what COPY and ADD have in common.
type transfer struct {
	verb         string
	from         *tree
	what         instructions.SourcesAndDest
	chown, chmod string
	exclude      []string
	unpack       bool
}

// transfer looks up the sources, and adds the layer that holds them.
func (b *builder) transfer(ctx context.Context, st *stage, t transfer) (bool, error) {
	v, err := b.view(ctx, st.layers)
	if err != nil {
		return false, err
	}
	defer func() { _ = v.Close() }()
	plan, err := b.plan(st, t, v)
	if err != nil {
		return false, err
	}
	content, err := plan.checksum()
	if err != nil {
		return false, err
	}
	return b.layer(ctx, st, change{
		instruction: plan.text, content: content,
		write: plan.write,
	})
}

// plan decides what goes where.
func (b *builder) plan(st *stage, t transfer, v *view) (copying, error) {
	own, err := t.owner(v)
	if err != nil {
		return copying{}, err
	}
	excluded, err := patternmatcher.New(t.exclude)
	if err != nil {
		return copying{}, fmt.Errorf("--exclude: %w: %w", image.ErrInvalid, err)
	}
	var paths []string
	for _, arg := range t.what.SourcePaths {
		found, err := t.from.find(arg)
		if err != nil {
			return copying{}, err
		}
		paths = append(paths, found...)
	}
	if len(paths)+len(t.what.SourceContents) > 1 && !strings.HasSuffix(t.what.DestPath, "/") && path.Base(t.what.DestPath) != "." {
		return copying{}, fmt.Errorf("with more than one source the destination %q must be a directory and end with a /: %w", t.what.DestPath, image.ErrInvalid)
	}
	dest, err := v.destination(st.resolve(t.what.DestPath))
	if err != nil {
		return copying{}, err
	}
	into := strings.HasSuffix(t.what.DestPath, "/") || path.Base(t.what.DestPath) == "." || v.isDir(dest)
	c := copying{owner: own, text: fmt.Sprintf("%s %q %q %q %v", t.verb, dest, t.chown, t.chmod, into)}
	for _, p := range paths {
		sources, err := t.from.walk(p, excluded)
		if err != nil {
			return copying{}, fmt.Errorf("%q: %w", p, err)
		}
		c.items = append(c.items, t.item(p, sources, dest, into))
	}
	return b.heredocs(st, t, c, dest, into)
}

// item decides where one source goes: a directory's content into dest, a file
// into a directory or under the name dest.
func (t transfer) item(p string, sources []source, dest string, into bool) item {
	one := item{sources: sources, to: dest}
	if sources[0].info.IsDir() {
		return one
	}
	if t.unpack && isArchive(sources[0]) {
		one.archive = true
		return one
	}
	if into {
		one.to = path.Join(dest, path.Base(p))
	}
	return one
}

// heredocs adds the inline files of the instruction.
func (b *builder) heredocs(st *stage, t transfer, c copying, dest string, into bool) (copying, error) {
	for _, s := range t.what.SourceContents {
		data := s.Data
		if s.Expand {
			expanded, err := b.expand(data, st.variables())
			if err != nil {
				return c, err
			}
			data = expanded
		}
		to := dest
		if into {
			to = path.Join(dest, s.Path)
		}
		c.items = append(c.items, item{content: &data, to: to})
	}
	return c, nil
}

// checksum stands for everything that the copy reads.
func (c copying) checksum() (string, error) {
	var parts []string
	for _, it := range c.items {
		if it.content != nil {
			parts = append(parts, it.to, *it.content)
			continue
		}
		sum, err := checksum(it.sources)
		if err != nil {
			return "", err
		}
		parts = append(parts, it.to, sum)
	}
	return digestOf(parts...), nil
}

// write puts the files into the layer.
func (c copying) write(w *layerWriter) error {
	for _, it := range c.items {
		if it.content != nil {
			if err := w.file(it.to, []byte(*it.content), c.owner); err != nil {
				return err
			}
			continue
		}
		if it.archive {
			if err := w.unpack(it.sources[0], it.to, c.owner); err != nil {
				return fmt.Errorf("%q: %w", it.sources[0].path, err)
			}
			continue
		}
		for _, s := range it.sources {
			to := path.Join(it.to, s.below)
			if s.info.IsDir() && (to == "/" || w.made[entryName(to)]) {
				continue
			}
			if err := w.copy(s, to, c.owner); err != nil {
				return fmt.Errorf("%q: %w", s.path, err)
			}
		}
	}
	return nil
}

// owner reads --chown and --chmod; names are looked up in the image itself.
func (t transfer) owner(v *view) (owner, error) {
	var o owner
	var err error
	if t.chown != "" {
		user, group, hasGroup := strings.Cut(t.chown, ":")
		if o.uid, o.gid, err = v.user(user); err != nil {
			return o, fmt.Errorf("--chown=%s: %w", t.chown, err)
		}
		if hasGroup {
			if o.gid, err = v.group(group); err != nil {
				return o, fmt.Errorf("--chown=%s: %w", t.chown, err)
			}
		}
	}
	if t.chmod == "" {
		return o, nil
	}
	bits, err := strconv.ParseUint(t.chmod, 8, 32)
	if err != nil || bits > 0o7777 {
		return o, fmt.Errorf("--chmod=%s: want an octal mode such as 755: %w", t.chmod, image.ErrInvalid)
	}
	mode := os.FileMode(bits & 0o777)
	for bit, flag := range map[uint64]os.FileMode{0o4000: os.ModeSetuid, 0o2000: os.ModeSetgid, 0o1000: os.ModeSticky} {
		if bits&bit != 0 {
			mode |= flag
		}
	}
	o.mode = &mode
	return o, nil
}

// isArchive says whether a file is a tar, compressed or not.
func isArchive(s source) bool {
	if !s.info.Mode().IsRegular() || s.info.Size() < 512 && !strings.Contains(s.path, ".t") {
		return false
	}
	f, err := s.tree.Open(s.path)
	if err != nil {
		return false
	}
	defer f.Close()
	plain, done, err := image.Decompress(f)
	if err != nil {
		return false
	}
	defer done()
	_, err = tar.NewReader(plain).Next()
	return err == nil
}

// unpack copies the entries of an archive below to.
func (w *layerWriter) unpack(s source, to string, o owner) error {
	f, err := s.tree.Open(s.path)
	if err != nil {
		return err
	}
	defer f.Close()
	plain, done, err := image.Decompress(f)
	if err != nil {
		return err
	}
	defer done()
	for tr := tar.NewReader(plain); ; {
		h, err := tr.Next()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return fmt.Errorf("tar: %w: %w", image.ErrInvalid, err)
		}
		name := path.Join(to, path.Clean("/"+h.Name))
		if name == "/" {
			continue
		}
		h.Name = entryName(name)
		if h.Typeflag == tar.TypeDir {
			h.Name += "/"
		}
		if h.Typeflag == tar.TypeLink {
			h.Linkname = entryName(path.Join(to, path.Clean("/"+h.Linkname)))
		}
		if o.uid != 0 || o.gid != 0 {
			h.Uid, h.Gid = o.uid, o.gid
		}
		if err := w.header(h); err != nil {
			return err
		}
		if _, err := io.Copy(w.tar, tr); err != nil {
			return err
		}
	}
}
