package build

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"strings"

	"github.com/moby/patternmatcher"
	"github.com/moby/patternmatcher/ignorefile"

	"github.com/sampan-dev/sampan/node/image"
)

// tree is a directory that files are copied from. All access goes through an
// os.Root: a symlink in it cannot lead outside.
type tree struct {
	*os.Root
	// name is what errors call it.
	name    string
	ignored *patternmatcher.PatternMatcher
	// owned: who a file belongs to comes along; those of a person's directory don't.
	owned bool
}

// buildContext is the tree that the person gave.
type buildContext struct {
	tree
	dir string
}

// source is one file, directory or link of a tree.
type source struct {
	tree *tree
	// path is relative to the tree, below to what was copied ("" for itself).
	path, below string
	info        fs.FileInfo
}

// openContext opens the context directory with its .dockerignore; a file
// Dockerfile.dockerignore beside the Dockerfile comes before it.
func openContext(dir, dockerfile string) (*buildContext, error) {
	root, err := os.OpenRoot(dir)
	if err != nil {
		return nil, fmt.Errorf("build context %q: %w", dir, err)
	}
	c := &buildContext{tree: tree{Root: root, name: "the build context (" + dir + ")"}, dir: dir}
	for _, name := range []string{dockerfile + ".dockerignore", filepath.Join(dir, ".dockerignore")} {
		f, err := openInput(dir, name)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return nil, errors.Join(err, root.Close())
		}
		patterns, err := readIgnore(f)
		f.Close()
		if err == nil {
			c.ignored, err = patternmatcher.New(patterns)
		}
		if err != nil {
			return nil, errors.Join(fmt.Errorf("%s: %w: %w", name, image.ErrInvalid, err), root.Close())
		}
		break
	}
	return c, nil
}

// maxIgnore bounds a .dockerignore in bytes, maxPatterns its lines: each file is compared
// with each.
const (
	maxIgnore   = 1 << 20
	maxPatterns = 10_000
)

// readIgnore reads a .dockerignore.
func readIgnore(f *os.File) ([]string, error) {
	if info, err := f.Stat(); err != nil || !info.Mode().IsRegular() {
		return nil, errors.Join(errors.New("it is no file"), err)
	}
	raw, err := io.ReadAll(io.LimitReader(f, maxIgnore+1))
	if err != nil {
		return nil, err
	}
	if len(raw) > maxIgnore {
		return nil, fmt.Errorf("more than %d bytes: %w", maxIgnore, image.ErrTooLarge)
	}
	patterns, err := ignorefile.ReadAll(bytes.NewReader(raw))
	if len(patterns) > maxPatterns {
		return nil, fmt.Errorf("%d patterns, at most %d: %w", len(patterns), maxPatterns, image.ErrTooLarge)
	}
	return patterns, err
}

// ignores says whether .dockerignore hides a path.
func (t *tree) ignores(p string) (bool, error) {
	if t.ignored == nil || p == "." {
		return false, nil
	}
	return t.ignored.MatchesOrParentMatches(p)
}

// maxLinks bounds the symlinks on the way to one file, as Linux does with more than 40.
const maxLinks = 255

// follow is where a path leads when the tree is all there is: the targets of symlinks
// begin at it, and .. ends there. What is not there is left as it is.
func (t *tree) follow(p string) (string, error) {
	rest, at, links := strings.Split(p, "/"), ".", 0
	for len(rest) > 0 {
		part := rest[0]
		rest = rest[1:]
		if part == "" || part == "." {
			continue
		}
		if part == ".." {
			at = path.Dir(at)
			continue
		}
		next := path.Join(at, part)
		info, err := t.Lstat(next)
		if err != nil || info.Mode()&os.ModeSymlink == 0 {
			at = next
			continue
		}
		if links++; links > maxLinks {
			return "", fmt.Errorf("%q: more than %d symlinks: %w", p, maxLinks, image.ErrInvalid)
		}
		target, err := t.Readlink(next)
		if err != nil {
			return "", err
		}
		if path.IsAbs(target) {
			at = "."
		}
		rest = append(strings.Split(target, "/"), rest...)
	}
	return at, nil
}

// single is one file or directory, followed and without what is in it.
func (t *tree) single(p string) (source, error) {
	real, err := t.follow(p)
	if err != nil {
		return source{}, err
	}
	info, err := t.Lstat(real)
	return source{tree: t, path: real, info: info}, err
}

// walk lists what is at from: the thing itself and, for a directory, everything
// below it in lexical order. An --exclude is about what is below a directory, and about
// a file's own name.
func (t *tree) walk(from string, excluded *patternmatcher.PatternMatcher) ([]source, error) {
	named, err := t.single(from) // what was named is followed, what is below is not
	if err != nil {
		return nil, err
	}
	if !named.info.IsDir() {
		if excluded != nil {
			if out, err := excluded.MatchesOrParentMatches(path.Base(from)); err != nil || out {
				return nil, err
			}
		}
		return []source{named}, nil
	}
	from = named.path
	var all []source
	err = fs.WalkDir(t.FS(), from, func(p string, _ fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		below := strings.TrimPrefix(strings.TrimPrefix(p, from), "/")
		if from == "." {
			below = strings.TrimPrefix(p, ".")
			if p != "." {
				below = p
			}
		}
		hidden, err := t.hides(p, below, excluded)
		if err != nil || hidden {
			return err
		}
		info, err := t.Lstat(p)
		if err != nil {
			return err
		}
		if all = append(all, source{tree: t, path: p, below: below, info: info}); len(all) > MaxContextFiles {
			return fmt.Errorf("more than %d files in %s: %w", MaxContextFiles, t.name, image.ErrTooLarge)
		}
		return nil
	})
	return all, err
}

// hides asks .dockerignore and --exclude about a path.
func (t *tree) hides(p, below string, excluded *patternmatcher.PatternMatcher) (bool, error) {
	if below == "" {
		return false, nil
	}
	hidden, err := t.ignores(p)
	if err != nil || hidden || excluded == nil {
		return hidden, err
	}
	return excluded.MatchesOrParentMatches(below)
}

// checksum stands for the content of sources: names, permissions and bytes, but
// not times, which a checkout changes.
func checksum(sources []source) (string, error) {
	h := sha256.New()
	for _, s := range sources {
		size := s.info.Size()
		if !s.info.Mode().IsRegular() {
			size = 0 // a directory's is its file system's business
		}
		fmt.Fprintf(h, "%d:%s %o %d\n", len(s.below), s.below, s.info.Mode(), size)
		if s.tree.owned {
			uid, gid := ownerOf(s.info)
			fmt.Fprintf(h, "%d:%d\n", uid, gid)
		}
		switch {
		case s.info.Mode()&os.ModeSymlink != 0:
			target, err := s.tree.Readlink(s.path)
			if err != nil {
				return "", err
			}
			fmt.Fprintf(h, "%d:%s\n", len(target), target)
		case s.info.Mode().IsRegular():
			f, err := s.tree.Open(s.path)
			if err != nil {
				return "", err
			}
			_, err = io.Copy(h, f)
			f.Close()
			if err != nil {
				return "", err
			}
		}
	}
	return hex.EncodeToString(h.Sum(nil)), nil
}
