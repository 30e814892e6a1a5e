package build

import (
	"archive/tar"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path"
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
	// above are directories to be made on the way, outermost first.
	above []string
	// mode replaces a file's permissions when no --chmod does; 0 keeps them.
	mode os.FileMode
}

// copy executes COPY.
func (b *builder) copy(ctx context.Context, st *stage, cmd *instructions.CopyCommand) (bool, error) {
	from := &b.context.tree
	if files := b.filesOf(cmd.From); files != nil {
		from = &files.tree
	} else if cmd.From != "" {
		v, err := b.stageView(ctx, st, cmd.From)
		if err != nil {
			return false, err
		}
		defer func() { _ = v.Close() }()
		from = &v.tree
	}
	return b.transfer(ctx, st, transfer{
		verb: "COPY", from: from, what: cmd.SourcesAndDest, link: cmd.Link, parents: cmd.Parents,
		chown: cmd.Chown, chmod: cmd.Chmod, exclude: cmd.ExcludePatterns,
	})
}

// add executes ADD: as COPY, but local archives are unpacked, and URLs fetched.
func (b *builder) add(ctx context.Context, st *stage, cmd *instructions.AddCommand) (bool, error) {
	t := transfer{
		verb: "ADD", from: &b.context.tree, what: cmd.SourcesAndDest, link: cmd.Link,
		unpack:       cmd.Unpack == nil || *cmd.Unpack,
		unpackRemote: cmd.Unpack != nil && *cmd.Unpack,
		chown:        cmd.Chown, chmod: cmd.Chmod, exclude: cmd.ExcludePatterns,
	}
	var local []string
	for _, s := range cmd.SourcePaths {
		if isGit(s) {
			got, err := b.clone(ctx, s, cmd)
			if err != nil {
				return false, err
			}
			defer func() { _ = got.close() }() //nolint:gocritic // they are wanted until all is copied
			t.clones = append(t.clones, got)
			continue
		}
		if !isURL(s) {
			local = append(local, s)
			continue
		}
		got, err := b.download(ctx, s, cmd.Checksum)
		if err != nil {
			return false, err
		}
		defer func() { _ = got.close() }() //nolint:gocritic // they are wanted until all is copied
		t.remote = append(t.remote, got)
	}
	if cmd.Checksum != "" && (len(local) > 0 || len(t.remote)+len(t.clones) != 1) {
		return false, fmt.Errorf("--checksum is for one URL or repository: %w", image.ErrInvalid)
	}
	t.what.SourcePaths = local
	return b.transfer(ctx, st, t)
}

// transfer is what COPY and ADD have in common.
type transfer struct {
	verb         string
	from         *tree
	what         instructions.SourcesAndDest
	chown, chmod string
	exclude      []string
	// unpack: local archives are taken apart; unpackRemote: those fetched too.
	unpack, unpackRemote bool
	// link: the layer stands for itself, whatever is below it.
	link bool
	// parents: the sources' directories come along.
	parents bool
	remote  []*downloaded
	clones  []*cloned
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
		instruction: plan.text, content: content, apart: t.link,
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
		find := t.from.find
		if t.parents {
			find = t.from.findDeep
		}
		found, err := find(arg)
		if err != nil {
			return copying{}, err
		}
		paths = append(paths, found...)
	}
	slashed := strings.HasSuffix(t.what.DestPath, "/") || path.Base(t.what.DestPath) == "."
	if len(paths)+len(t.what.SourceContents)+len(t.remote)+len(t.clones) > 1 && !slashed {
		return copying{}, fmt.Errorf("with more than one source the destination %q must be a directory and end with a /: %w", t.what.DestPath, image.ErrInvalid)
	}
	dest := st.resolve(t.what.DestPath)
	into := slashed || t.parents
	if !t.link {
		if dest, err = v.destination(dest); err != nil {
			return copying{}, err
		}
		into = into || v.isDir(dest)
	}
	c := copying{owner: own, text: fmt.Sprintf("%s %q %q %q %v %v %v", t.verb, dest, t.chown, t.chmod, into, t.parents, t.unpack)}
	for _, p := range paths {
		sources, err := t.from.walk(path.Clean(p), excluded)
		if err != nil {
			return copying{}, fmt.Errorf("%q: %w", p, err)
		}
		one, err := t.item(p, sources, dest, into)
		if err != nil {
			return copying{}, err
		}
		c.items = append(c.items, one)
	}
	for _, g := range t.clones {
		sources, err := g.tree.walk(".", excluded)
		if err != nil {
			return copying{}, fmt.Errorf("%q: %w", g.tree.name, err)
		}
		c.items = append(c.items, item{sources: sources, to: dest})
	}
	for _, r := range t.remote {
		one, err := t.fetched(r, dest, into)
		if err != nil {
			return copying{}, err
		}
		c.items = append(c.items, one)
	}
	return heredocItems(t, c, dest, into), nil
}

// item decides where one source goes: a directory's content into dest, a file
// into a directory or under the name dest; with --parents, below its own path.
func (t transfer) item(p string, sources []source, dest string, into bool) (item, error) {
	one := item{sources: sources, to: dest}
	if t.parents {
		if _, after, ok := strings.Cut(p, pivotMark); ok {
			p = after
		}
		one.to = path.Join(dest, p)
		for dir := path.Dir(p); dir != "."; dir = path.Dir(dir) {
			one.above = append([]string{path.Join(dest, dir)}, one.above...)
		}
		return one, nil
	}
	if sources[0].info.IsDir() {
		return one, nil
	}
	if t.unpack && t.verb == "ADD" {
		is, err := isArchive(sources[0])
		if err != nil {
			return one, err
		}
		if one.archive = is; is {
			return one, nil
		}
	}
	if into {
		one.to = path.Join(dest, path.Base(p))
	}
	return one, nil
}

// fetched decides where a download goes.
func (t transfer) fetched(r *downloaded, dest string, into bool) (item, error) {
	one := item{sources: []source{r.source}, to: dest, mode: 0o600}
	if t.unpackRemote {
		is, err := isArchive(r.source)
		if err != nil || is {
			one.archive = is
			return one, err
		}
	}
	if !into {
		return one, nil
	}
	if r.name == "" {
		return one, fmt.Errorf("%q does not say what its file is called: give a destination that does not end with a /: %w", r.url, image.ErrInvalid)
	}
	one.to = path.Join(dest, r.name)
	return one, nil
}

// heredocItems adds the inline files of the instruction.
func heredocItems(t transfer, c copying, dest string, into bool) copying {
	for _, s := range t.what.SourceContents {
		to := dest
		if into {
			to = path.Join(dest, s.Path)
		}
		c.items = append(c.items, item{content: &s.Data, to: to})
	}
	return c
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
		for _, dir := range it.above {
			if !w.made[entryName(dir)] {
				if err := w.dirs(dir); err != nil {
					return err
				}
			}
		}
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
			own := c.owner
			if it.mode != 0 && own.mode == nil {
				own.mode = func(os.FileMode, bool) os.FileMode { return it.mode }
			}
			if err := w.copy(s, to, own); err != nil {
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
	o.mode, err = parseMode(t.chmod)
	return o, err
}

// isArchive says whether a file is a tar, compressed or not.
func isArchive(s source) (bool, error) {
	if !s.info.Mode().IsRegular() {
		return false, nil
	}
	f, err := s.tree.Open(s.path)
	if err != nil {
		return false, err
	}
	defer f.Close()
	plain, done, err := decompress(f)
	if err != nil {
		return false, nil //nolint:nilerr // it only begins like something compressed
	}
	defer done()
	_, err = tar.NewReader(plain).Next()
	return err == nil, nil
}

// unpack copies the entries of an archive below to.
func (w *layerWriter) unpack(s source, to string, o owner) error {
	f, err := s.tree.Open(s.path)
	if err != nil {
		return err
	}
	defer f.Close()
	plain, done, err := decompress(f)
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
