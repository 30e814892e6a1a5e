package build

import (
	"context"
	"fmt"
	"os"
	"path"
	"slices"
	"strings"

	"github.com/moby/buildkit/frontend/dockerfile/instructions"
	"github.com/moby/buildkit/frontend/dockerfile/linter"
	"github.com/moby/buildkit/frontend/dockerfile/parser"
	"github.com/moby/patternmatcher"

	"github.com/sampan-dev/sampan/node/image"
)

// copying is a COPY or ADD with everything looked up.
type copying struct {
	items []item
	owner owner
	// parents are the directories on the way that are not there yet, outermost first.
	parents []string
	// under is what the copy goes over; nil when that does not matter (--link).
	under *view
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
	// above are the sources' directories on the way, outermost first.
	above []raised
	// merged: the source is a directory whose content goes into to, which is there.
	merged bool
	// mode replaces a file's permissions when no --chmod does; 0 keeps them.
	mode os.FileMode
}

// raised is a source's directory and where it comes to lie.
type raised struct {
	source source
	to     string
}

// copy executes COPY.
func (b *builder) copy(ctx context.Context, st *stage, cmd *instructions.CopyCommand) (bool, error) {
	if strings.Contains(cmd.From, "$") {
		return false, fmt.Errorf("variable expansion is not supported for --from, define a new stage with FROM using ARG from global scope as a workaround: %w", image.ErrInvalid)
	}
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
		verb: "COPY", from: from, at: cmd.Location(), what: cmd.SourcesAndDest, link: cmd.Link, parents: cmd.Parents,
		chown: cmd.Chown, chmod: cmd.Chmod, exclude: cmd.ExcludePatterns,
	})
}

// add executes ADD: as COPY, but local archives are unpacked, and URLs fetched.
func (b *builder) add(ctx context.Context, st *stage, cmd *instructions.AddCommand) (bool, error) {
	t := transfer{
		verb: "ADD", from: &b.context.tree, at: cmd.Location(), what: cmd.SourcesAndDest, link: cmd.Link,
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
	at           []parser.Range
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
	if t.from == &b.context.tree {
		b.mu.Lock()
		err = t.from.lint(b.file.lintAt(t.at), t.verb, t.what.SourcePaths, t.at)
		b.mu.Unlock()
		if err != nil {
			return false, err
		}
	}
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

// lint warns of sources that .dockerignore hides. With exceptions in it, whether what is
// below a source shows again is not known beforehand.
func (t *tree) lint(lint *linter.Linter, verb string, sources []string, at []parser.Range) error {
	if t.ignored == nil || t.ignored.Exclusions() {
		return nil
	}
	word := map[string]string{"COPY": "Copy", "ADD": "Add"}[verb]
	for _, s := range sources {
		hidden, err := t.ignores(path.Clean(s))
		if err != nil {
			return err
		}
		if s = path.Clean(s); s == "." || s == "/" { // which no pattern hides, but what is in it
			hidden = slices.ContainsFunc(t.ignored.Patterns(), func(p *patternmatcher.Pattern) bool { return hidesAll(p.String()) })
		}
		if hidden {
			lint.Run(&linter.RuleCopyIgnoredFile, at, linter.RuleCopyIgnoredFile.Format(word, path.Clean(s)))
		}
	}
	return nil
}

// hidesAll says whether a pattern of .dockerignore is about everything.
func hidesAll(pattern string) bool { return pattern == "*" || pattern == "**" || pattern == "**/*" }

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
	paths, err := t.paths()
	if err != nil {
		return copying{}, err
	}
	slashed := strings.HasSuffix(t.what.DestPath, "/") || path.Base(t.what.DestPath) == "."
	if len(paths)+len(t.what.SourceContents)+len(t.remote)+len(t.clones) > 1 && !slashed && !t.directories(paths) {
		return copying{}, fmt.Errorf("with more than one source the destination %q must be a directory and end with a /: %w", t.what.DestPath, image.ErrInvalid)
	}
	dest := st.resolve(t.what.DestPath)
	if len(dest) > image.MaxPath {
		return copying{}, fmt.Errorf("a destination of %d bytes, at most %d: %w", len(dest), image.MaxPath, image.ErrTooLarge)
	}
	into := slashed || t.parents
	if !t.link {
		if dest, err = v.destination(dest); err != nil {
			return copying{}, err
		}
		into = into || v.isDir(dest)
	}
	c := copying{owner: own, under: v}
	for _, p := range paths {
		sources, err := t.from.walk(path.Clean(p), excluded)
		if err != nil {
			return copying{}, fmt.Errorf("%q: %w", p, err)
		}
		if len(sources) == 0 {
			continue
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
		c.items = append(c.items, item{sources: sources, to: dest, merged: true})
	}
	for _, r := range t.remote {
		one, err := t.fetched(r, dest, into)
		if err != nil {
			return copying{}, err
		}
		c.items = append(c.items, one)
	}
	c = heredocItems(t, c, dest, into)
	if err := c.way(t, dest, into); err != nil {
		return copying{}, err
	}
	c.text = fmt.Sprintf("%s %q %q %q %v %v %v %v", t.verb, dest, t.chown, t.chmod, into, t.parents, t.unpack, c.parents)
	return c, nil
}

// paths are what the arguments of the instruction lead to.
func (t transfer) paths() (paths []string, err error) {
	find := t.from.find
	if t.parents {
		find = t.from.findDeep
	}
	for _, arg := range t.what.SourcePaths {
		found, err := find(arg)
		if err != nil {
			return nil, err
		}
		paths = append(paths, found...)
	}
	return paths, nil
}

// directories says whether one pattern stands for all the sources, which are directories:
// their content goes into the destination, whatever that is called.
func (t transfer) directories(paths []string) bool {
	if len(t.what.SourcePaths) != 1 || len(paths) < 2 {
		return false
	}
	return !slices.ContainsFunc(paths, func(p string) bool {
		one, err := t.from.single(p)
		return err != nil || !one.info.IsDir()
	})
}

// way finds the directories that the copy has to make before its files. One that
// stands for itself makes that alone into which it copies a directory: what lies above
// has its owner and mode from the layers below.
func (c *copying) way(t transfer, dest string, into bool) (err error) {
	for _, it := range c.items {
		into = into || it.merged || it.archive
	}
	if !into {
		dest = path.Dir(dest)
	}
	if !t.link {
		c.parents, err = c.under.missing(dest)
		return err
	}
	c.under = nil
	if dest != "/" && slices.ContainsFunc(c.items, func(it item) bool { return it.merged }) {
		c.parents = []string{dest}
	}
	return nil
}

// item decides where one source goes: a directory's content into dest, a file
// into a directory or under the name dest; with --parents, below its own path.
func (t transfer) item(p string, sources []source, dest string, into bool) (item, error) {
	one := item{sources: sources, to: dest}
	if t.parents {
		base, rest, ok := strings.Cut(p, pivotMark)
		if !ok {
			base, rest = ".", p
		}
		one.to = path.Join(dest, rest)
		one.merged = one.to == dest
		for dir := path.Dir(rest); dir != "."; dir = path.Dir(dir) {
			from, err := t.from.single(path.Join(base, dir))
			if err != nil {
				return one, err
			}
			one.above = append([]raised{{source: from, to: path.Join(dest, dir)}}, one.above...)
		}
		return one, nil
	}
	if sources[0].info.IsDir() {
		one.merged = true
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

// owner reads --chown and --chmod; names are looked up in the image itself.
func (t transfer) owner(v *view) (owner, error) {
	o := owner{kept: t.chown == "" && t.from != nil && t.from.owned, parent: 0o755}
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
	if bits, ok := octal(t.chmod); ok {
		o.parent = bits
	}
	o.mode, err = parseMode(t.chmod)
	return o, err
}
