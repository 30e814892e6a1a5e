package build

import (
	"fmt"
	"io/fs"
	"path"
	"slices"
	"strings"

	"github.com/sampan-dev/sampan/node/image"
)

// find expands one source argument of COPY or ADD to the paths that it names.
func (t *tree) find(pattern string) ([]string, error) {
	clean := entryName("/" + pattern)
	if clean == "" {
		return []string{"."}, nil
	}
	matches, err := t.glob(clean)
	if err != nil {
		return nil, fmt.Errorf("%q: %w: %w", pattern, image.ErrInvalid, err)
	}
	var kept []string
	there := 0
	for _, m := range matches {
		real, err := t.follow(m)
		if err != nil {
			return nil, err
		}
		info, err := t.Lstat(real)
		if err != nil && wild(pattern) {
			return nil, fmt.Errorf("%q: %w", m, err)
		}
		if err != nil {
			continue
		}
		there++
		hidden, err := t.ignores(m)
		if err == nil && !hidden {
			hidden, err = t.ignores(real)
		}
		if err != nil {
			return nil, err
		}
		// A hidden directory may hold files that an exception shows again.
		if !hidden || info.IsDir() && t.ignored.Exclusions() {
			kept = append(kept, m)
		}
	}
	if len(kept) == 0 && !wild(pattern) {
		return nil, fmt.Errorf("%q is not in %s%s: %w", pattern, t.name, hint(there), image.ErrNotFound)
	}
	return kept, nil
}

// glob is what a clean pattern matches. The directories before its first wildcard may be
// symlinks; below, none is followed.
func (t *tree) glob(clean string) ([]string, error) {
	parts := strings.Split(clean, "/")
	first := slices.IndexFunc(parts, func(part string) bool { return strings.ContainsAny(part, `*?[\`) })
	if first < 0 {
		return []string{clean}, nil
	}
	base, err := t.follow(path.Join(parts[:first]...))
	if err != nil {
		return nil, err
	}
	return fs.Glob(t.FS(), path.Join(literal.Replace(base), path.Join(parts[first:]...)))
}

// literal makes a pattern that matches a path alone.
var literal = strings.NewReplacer("*", `\*`, "?", `\?`, "[", `\[`, `\`, `\\`) //nolint:gochecknoglobals // a constant

// wild says whether a source is a pattern: as with BuildKit, one may match nothing.
func wild(pattern string) bool {
	for i := 0; i < len(pattern); i++ {
		switch pattern[i] {
		case '\\':
			i++
		case '*', '?', '[':
			return true
		}
	}
	return false
}

// pivotMark in a source of COPY --parents: the directories before it do not come along.
const pivotMark = "/./"

// pivoted is findDeep for a pattern with a pivot in it: the paths have it at the same
// place. Before it, ** is no more than *, as with BuildKit.
func (t *tree) pivoted(base, rest string) ([]string, error) {
	for strings.Contains(base, "**") {
		base = strings.ReplaceAll(base, "**", "*")
	}
	found, err := t.findDeep(path.Join(base, rest))
	if err != nil {
		return nil, err
	}
	cut := strings.Count(entryName("/"+base), "/") + 1
	for i, p := range found {
		parts := strings.Split(p, "/")
		found[i] = path.Join(parts[:cut]...) + pivotMark + path.Join(parts[cut:]...)
	}
	return found, nil
}

// findDeep is find for COPY --parents: ** matches any number of directories.
func (t *tree) findDeep(pattern string) ([]string, error) {
	pattern = strings.TrimPrefix(strings.TrimPrefix(pattern, "/"), "./")
	if base, rest, ok := strings.Cut(pattern, pivotMark); ok && path.Clean("/"+base) != "/" {
		return t.pivoted(base, rest)
	}
	if !strings.Contains(pattern, "**") {
		return t.find(pattern)
	}
	parts := strings.Split(entryName("/"+pattern), "/")
	var kept []string
	err := fs.WalkDir(t.FS(), ".", func(p string, d fs.DirEntry, err error) error {
		if err != nil || p == "." {
			return err
		}
		hidden, err := t.ignores(p)
		if err != nil {
			return err
		}
		ok, err := deepMatch(parts, strings.Split(p, "/"))
		if err != nil {
			return fmt.Errorf("%q: %w: %w", pattern, image.ErrInvalid, err)
		}
		if ok && !hidden {
			kept = append(kept, p)
			if d.IsDir() {
				return fs.SkipDir // it comes with all that is in it
			}
		}
		return nil
	})
	return kept, err
}

// deepMatch matches a path's parts with a pattern's.
func deepMatch(pattern, parts []string) (bool, error) {
	if len(pattern) == 0 {
		return len(parts) == 0, nil
	}
	if pattern[0] == "**" {
		for i := range len(parts) + 1 {
			if ok, err := deepMatch(pattern[1:], parts[i:]); ok || err != nil {
				return ok, err
			}
		}
		return false, nil
	}
	if len(parts) == 0 {
		return false, nil
	}
	ok, err := path.Match(pattern[0], parts[0])
	if !ok || err != nil {
		return false, err
	}
	return deepMatch(pattern[1:], parts[1:])
}

// hint explains why something that is there is not.
func hint(matches int) string {
	if matches > 0 {
		return " (.dockerignore hides it)"
	}
	return ""
}
