package resource

import (
	"slices"

	"k8s.io/apimachinery/pkg/runtime/schema"

	"github.com/sampan-dev/sampan/kinds"
)

// Kind returns what is served as a resource.
func (s *Server) Kind(gvr schema.GroupVersionResource) (*kinds.Kind, bool) {
	c, ok := s.table.Load().byResource[gvr]
	if !ok {
		return nil, false
	}
	return c.kind, true
}

// Equivalents returns the other kinds that show the same stored objects: other
// versions, or another group's view of them. The order is by group, version and
// resource.
func (s *Server) Equivalents(gvr schema.GroupVersionResource) []*kinds.Kind {
	t := s.table.Load()
	own, ok := t.byResource[gvr]
	if !ok || own.kind.Storage == "" {
		return nil
	}
	var out []*kinds.Kind
	for _, c := range t.byResource {
		if c != own && c.kind.Storage == own.kind.Storage && !c.kind.Hidden {
			out = append(out, c.kind)
		}
	}
	slices.SortFunc(out, func(a, b *kinds.Kind) int { return compareGVR(a.GVR(), b.GVR()) })
	return out
}

// LimitCopies bounds, for the whole process, what the "copy" operations of one
// JSON patch may add up to. Whoever applies a JSON patch calls it first.
func LimitCopies() { limitCopies() }
