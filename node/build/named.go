package build

import (
	"fmt"
	"path/filepath"
	"strings"

	"github.com/sampan-dev/sampan/node/image"
)

// maxContexts bounds the contexts of one build that have names.
const maxContexts = 64

// openNamed opens the directories among the named contexts.
func openNamed(all map[string]NamedContext) (map[string]*buildContext, error) {
	if len(all) > maxContexts {
		return nil, fmt.Errorf("%d named contexts, at most %d: %w", len(all), maxContexts, image.ErrTooLarge)
	}
	named := map[string]*buildContext{}
	for name, c := range all {
		if c.Dir == "" {
			continue
		}
		files, err := openContext(c.Dir, filepath.Join(c.Dir, "Dockerfile"))
		if err != nil {
			closeNamed(named)
			return nil, fmt.Errorf("context %q: %w", name, err)
		}
		files.name = "the context " + name + " (" + c.Dir + ")"
		named[strings.ToLower(name)] = files
	}
	return named, nil
}

func closeNamed(named map[string]*buildContext) {
	for _, c := range named {
		c.Close()
	}
}

// contextOf finds the named context that replaces a stage or image.
func (b *builder) contextOf(name string) (NamedContext, bool) {
	if len(b.opts.Contexts) == 0 || name == "" {
		return NamedContext{}, false
	}
	full, err := image.Normalise(name)
	for known, c := range b.opts.Contexts {
		if strings.EqualFold(known, name) {
			return c, true
		}
		if other, e := image.Normalise(known); e == nil && err == nil && other == full && c.Image != "" {
			return c, true
		}
	}
	return NamedContext{}, false
}

// filesOf is a named context that is a directory; nil when there is none.
func (b *builder) filesOf(name string) *buildContext {
	if name == "" {
		return nil
	}
	return b.named[strings.ToLower(name)]
}
