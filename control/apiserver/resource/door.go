package resource

import (
	"context"
	"net/http"

	"k8s.io/apimachinery/pkg/runtime/schema"

	"github.com/sampan-dev/sampan/control/apiserver/cache"
	"github.com/sampan-dev/sampan/internal/target"
	"github.com/sampan-dev/sampan/kinds"
)

// Asked is what an HTTP request asks for, as far as its head tells: what whoever
// stands before the server (audit, priority and fairness) needs to know.
type Asked struct {
	// Verb is as in Request; for a path that is no resource the method in lower case.
	Verb   string
	Target target.Target
	// Resource says that the path names a resource, known or not.
	Resource bool
	// Connection says that the request stays as long as the client likes: exec,
	// log, proxy and their like.
	Connection bool
}

// Asks reads the head of an HTTP request.
func (s *Server) Asks(r *http.Request) Asked {
	at, ok := parsePath(r.URL.Path)
	if !ok {
		return Asked{Verb: lowerMethod(r.Method)}
	}
	a := Asked{Target: at.target, Resource: true}
	if at.target.Subresource != "" {
		_, a.Connection = s.cfg.Connect[at.target.Resource.Resource+"/"+at.target.Subresource]
	}
	watches := !a.Connection && r.Method == http.MethodGet && (at.watch || r.URL.RawQuery != "" && wantsWatch(r.URL.Query()))
	if a.Verb = at.verb(r.Method, watches); a.Verb == "" {
		a.Verb = lowerMethod(r.Method)
	}
	return a
}

func lowerMethod(method string) string {
	switch method {
	case http.MethodGet:
		return "get"
	case http.MethodHead:
		return "head"
	case http.MethodPost:
		return "post"
	case http.MethodPut:
		return "put"
	case http.MethodPatch:
		return "patch"
	case http.MethodDelete:
		return "delete"
	case http.MethodOptions:
		return "options"
	}
	return "other"
}

// sampled is how many objects Stored looks at to tell their usual size.
const sampled = 16

// Stored tells roughly how many objects a resource has and how many bytes one of
// them is stored in. ok is false where that is not known: no such resource, or
// nobody has listed it yet.
func (s *Server) Stored(gvr schema.GroupVersionResource) (objects, bytes int64, ok bool) {
	c, served := s.table.Load().byResource[gvr]
	if !served || c.storage == nil {
		return 0, 0, false
	}
	mirror := c.storage.running()
	if mirror == nil {
		return 0, 0, false
	}
	snap := mirror.Snapshot()
	seen, total := 0, 0
	snap.Ascend("", "", func(e *cache.Entry) bool {
		seen++
		total += len(e.Raw())
		return seen < sampled
	})
	if seen > 0 {
		bytes = int64(total / seen)
	}
	return int64(snap.Len()), bytes, true
}

type startedKey struct{}

// OnStarted returns a context in which a watch calls f once its initial state has
// been written; a watch without one never calls it.
func OnStarted(ctx context.Context, f func()) context.Context {
	if earlier, ok := ctx.Value(startedKey{}).(func()); ok {
		last := f
		f = func() { earlier(); last() }
	}
	return context.WithValue(ctx, startedKey{}, f)
}

// told calls what OnStarted left, if batch ends the initial state.
func told(ctx context.Context, batch []cache.Event) {
	if len(batch) == 0 || batch[len(batch)-1].Type != cache.InitialDone {
		return
	}
	if f, ok := ctx.Value(startedKey{}).(func()); ok {
		f()
	}
}

// transformer is what seals a kind's bytes; nil: nothing.
func (s *Server) transformer(k *kinds.Kind) Transformer {
	if s.cfg.Transformer != nil {
		if t := s.cfg.Transformer(k); t != nil {
			return t
		}
	}
	return s.cfg.Transformers[k.Storage]
}
