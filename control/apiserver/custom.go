package apiserver

import (
	"context"
	"errors"
	"net/http"
	"slices"
	"strings"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/util/managedfields"

	"github.com/sampan-dev/sampan/control/apiserver/crd"
	"github.com/sampan-dev/sampan/control/apiserver/metricsapi"
	"github.com/sampan-dev/sampan/control/apiserver/openapi"
	"github.com/sampan-dev/sampan/control/apiserver/resource"
	"github.com/sampan-dev/sampan/control/apiserver/webhook"
	"github.com/sampan-dev/sampan/kinds"
)

// custom makes the parts by which users bring kinds of their own.
func (s *Server) custom(reader *ownReader) {
	s.webhooks = webhook.New(reader)
	s.crds = crd.New(crd.Config{
		Webhooks: s.webhooks, Now: s.cfg.Now, Log: s.cfg.Log,
		Metadata: func() (map[string]*crd.Schema, error) { return s.schemas.Metadata() },
	})
	s.metrics.registry.MustRegister(s.crds)
	s.schemas = openapi.New(s.published, s.crds.Models)
}

// published are the kinds whose schemas this server publishes: those of its table, and
// those of metrics until another server has them.
func (s *Server) published() []*kinds.Kind {
	all := s.resources.Kinds()
	if s.remotes.AnswersInside(metricsapi.GroupVersion) {
		all = slices.Concat(all, metricsapi.Kinds)
	}
	return all
}

// types is the typed schema of a kind that client-go does not know: a custom one,
// or one whose types live elsewhere.
func (s *Server) types(gvk schema.GroupVersionKind) managedfields.TypeConverter {
	if known := s.crds.Types(gvk); known != nil {
		return known
	}
	known, err := s.schemas.Types(gvk)
	if err != nil {
		s.cfg.Log.Warn("typed schema", "kind", gvk, "error", err)
		return nil
	}
	return known
}

// customKnown waits until the definitions in the store are served: a restart must
// not look as if their kinds were gone.
func (s *Server) customKnown(ctx context.Context) error {
	select {
	case <-s.crds.Synced():
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// awaitCustom makes requests wait that custom kinds have a part in: for groups
// other than the built-in ones, for discovery and for schemas.
func (s *Server) awaitCustom(w http.ResponseWriter, r *http.Request) bool {
	path := strings.Trim(r.URL.Path, "/")
	switch parts := strings.SplitN(path, "/", 4); {
	case path == "apis", parts[0] == "openapi":
	case parts[0] == "apis" && len(parts) == 4 && s.serves(schema.GroupVersion{Group: parts[1], Version: parts[2]}):
		return true
	case parts[0] != "apis":
		return true
	}
	if s.customKnown(r.Context()) != nil {
		refuse(w, r, apierrors.NewServiceUnavailable("the custom resource definitions are not known yet"))
		return false
	}
	return true
}

// serves says that a group version has kinds.
func (s *Server) serves(gv schema.GroupVersion) bool {
	select {
	case <-s.crds.Synced():
		return true // nothing to wait for
	default:
	}
	for _, k := range s.cfg.Kinds {
		if k.GVK.GroupVersion() == gv {
			return true
		}
	}
	return false
}

// unlessEnding refuses new objects of a definition that is being deleted, before
// all other admission.
func (s *Server) unlessEnding(next resource.Admission) resource.Admission {
	return &endingGuard{Admission: next, crds: s.crds}
}

type endingGuard struct {
	resource.Admission
	crds *crd.Definitions
}

func (g *endingGuard) Admit(ctx context.Context, a *resource.Attributes) error {
	if a.Operation == resource.OpCreate && a.Target.Subresource == "" && g.crds.Ending(a.Target.Resource.GroupResource()) {
		return apierrors.NewForbidden(a.Target.Resource.GroupResource(), a.Target.Name,
			errors.New("create not allowed while custom resource definition is terminating"))
	}
	return g.Admission.Admit(ctx, a)
}
