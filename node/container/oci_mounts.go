package container

import (
	"path/filepath"
	"strings"

	specs "github.com/opencontainers/runtime-spec/specs-go"
)

// absoluteSources completes the sources of bind mounts, which may be relative to the
// bundle.
func absoluteSources(spec *specs.Spec, bundle string) {
	for i := range spec.Mounts {
		m := &spec.Mounts[i]
		if pm, err := planMount(*m); err == nil && pm.Bind && !filepath.IsAbs(m.Source) {
			m.Source = filepath.Join(bundle, m.Source)
		}
	}
}

// seenFromRoot takes the root away from the destinations of mounts that begin with it. The
// specification has them begin in the container; runc and crun know both, and callers do.
func seenFromRoot(spec *specs.Spec, root string) {
	root = filepath.Clean(root)
	for i := range spec.Mounts {
		m := &spec.Mounts[i]
		rest, below := strings.CutPrefix(filepath.Clean(m.Destination), root)
		if root != "/" && below && (rest == "" || rest[0] == '/') {
			m.Destination = "/" + strings.TrimPrefix(rest, "/")
		}
	}
}
