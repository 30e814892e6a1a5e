package resource

import (
	"slices"

	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/util/managedfields"

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

// KindOf returns what is served as a kind.
func (s *Server) KindOf(gvk schema.GroupVersionKind) (*kinds.Kind, bool) {
	for _, c := range s.table.Load().byResource {
		if c.kind.GVK == gvk && !c.kind.Hidden {
			return c.kind, true
		}
	}
	return nil, false
}

// Types returns the typed schema by which objects of a kind are merged, as
// server-side apply does it.
func (s *Server) Types(k *kinds.Kind) managedfields.TypeConverter {
	if _, custom := k.New().(runtime.Unstructured); !custom {
		return s.fields.converter()
	}
	if s.cfg.CustomTypes != nil {
		if known := s.cfg.CustomTypes(k.GVK); known != nil {
			return known
		}
	}
	return managedfields.NewDeducedTypeConverter()
}
