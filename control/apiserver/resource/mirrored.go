package resource

import (
	"k8s.io/apimachinery/pkg/runtime/schema"

	"github.com/sampan-dev/sampan/control/apiserver/cache"
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
