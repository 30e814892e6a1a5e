package resource

import (
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"

	"github.com/sampan-dev/sampan/control/apiserver/cache"
	"github.com/sampan-dev/sampan/internal/target"
)

// Mirrored tells how a resource's watch cache is doing; ok is false where there is
// none yet.
func (s *Server) Mirrored(gvr schema.GroupVersionResource) (stats cache.Stats, ok bool) {
	c, served := s.table.Load().byResource[gvr]
	if !served || c.storage == nil {
		return stats, false
	}
	mirror := c.storage.running()
	if mirror == nil {
		return stats, false
	}
	return mirror.Stats(), true
}

// Peek is the object as a watch cache has it, read-only, without authorisation and
// all else that a request goes through: for what the server asks itself again and
// again. ok is false where there is no such object, or no cache yet.
func (s *Server) Peek(t target.Target) (obj runtime.Object, ok bool) {
	mirror, ok := s.glance(t)
	if !ok {
		return nil, false
	}
	entry, ok := mirror.Get(cacheKey(t.Namespace, t.Name))
	if !ok {
		return nil, false
	}
	obj = entry.Object()
	return obj, obj != nil
}

// PeekAll is Peek for all objects of a resource, or those of a namespace, in the
// order of a list.
func (s *Server) PeekAll(t target.Target) (objects []runtime.Object, ok bool) {
	ok = s.PeekEach(t, func(obj runtime.Object) bool {
		objects = append(objects, obj)
		return true
	})
	return objects, ok
}

// PeekEach is PeekAll one by one, until see has seen enough. ok is false where there
// is no cache, or see has not been shown what it would have been.
func (s *Server) PeekEach(t target.Target, see func(runtime.Object) (more bool)) (ok bool) {
	mirror, ok := s.glance(t)
	if !ok {
		return false
	}
	scope := ""
	if t.Namespace != "" {
		scope = t.Namespace + "/"
	}
	mirror.Snapshot().Ascend(scope, "", func(e *cache.Entry) bool {
		obj := e.Object()
		ok = obj != nil
		return ok && see(obj)
	})
	return ok
}

// glance is the watch cache of a built-in kind, if there is one.
func (s *Server) glance(t target.Target) (mirror *cache.Cache, ok bool) {
	c, served := s.table.Load().byResource[t.Resource]
	if !served || c.storage == nil || c.kind.View != nil || c.kind.Custom != nil {
		return nil, false
	}
	mirror = c.storage.running()
	return mirror, mirror != nil
}
