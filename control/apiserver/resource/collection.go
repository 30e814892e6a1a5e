package resource

import (
	"cmp"
	"context"
	"fmt"
	"net/http"
	"slices"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/validate/content"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"

	"github.com/sampan-dev/sampan/control/apiserver/cache"
	"github.com/sampan-dev/sampan/control/store"
	"github.com/sampan-dev/sampan/kinds"
)

// collection is one resource in one version, as it is served.
type collection struct {
	server  *Server
	kind    *kinds.Kind
	gvr     schema.GroupVersionResource
	storage *storage // nil for kinds that are never stored
}

// show turns what is stored into the collection's kind; stored is left alone.
func (c *collection) show(stored kinds.Object) kinds.Object {
	if c.kind.View == nil || stored == nil {
		return stored
	}
	obj := c.kind.View.FromStored(stored)
	obj.GetObjectKind().SetGroupVersionKind(c.kind.GVK)
	return obj
}

// stored turns an object of the collection's kind into the one that is stored.
func (c *collection) stored(obj kinds.Object) kinds.Object {
	if c.kind.View == nil {
		return obj
	}
	out := c.kind.View.ToStored(obj)
	out.GetObjectKind().SetGroupVersionKind(c.kind.View.Stored)
	return out
}

func (c *collection) listGVK() schema.GroupVersionKind {
	gvk := c.kind.GVK
	if c.kind.ListKind != "" {
		gvk.Kind = c.kind.ListKind
		return gvk
	}
	gvk.Kind += "List"
	return gvk
}

func (c *collection) hook() Hook { return c.server.cfg.Hooks[c.gvr.GroupResource()] }

// fieldSet gives the selectable fields of obj.
func fieldSet(k *kinds.Kind, obj kinds.Object) fields.Set {
	set := fields.Set{}
	if k.Fields != nil {
		for name, value := range k.Fields(obj) {
			set[name] = value
		}
	}
	set["metadata.name"] = obj.GetName()
	if k.Namespaced {
		set["metadata.namespace"] = obj.GetNamespace()
	}
	return set
}

// call is one request on its way through the server.
type call struct {
	*collection
	req *Request
	sub *kinds.Subresource // nil: the object itself
	// trusted calls are the server's own, in passing of a judged request.
	trusted bool
	// settled says that what this call writes in place of a settled object is settled, too.
	settled bool
}

// answer is what a call comes to; exactly one of object, page and stream is set.
type answer struct {
	code   int
	object runtime.Object
	entry  *cache.Entry // set when object is just what this entry shows
	page   *page
	stream *stream
}

// begin finds what the request is about and asks whether its user may do it.
func (s *Server) begin(ctx context.Context, r *Request) (*call, error) {
	if s.ctx.Err() != nil {
		return nil, interpret(store.ErrClosed, r.Target.Resource.GroupResource(), r.Target.Name)
	}
	col, ok := s.table.Load().byResource[r.Target.Resource]
	if !ok {
		return nil, unknownPath()
	}
	c := &call{collection: col, req: r}
	if err := c.authorize(ctx, r.Verb); err != nil {
		return nil, err
	}
	if err := col.placed(r); err != nil {
		return nil, err
	}
	verbs := col.kind.Verbs
	if name := r.Target.Subresource; name != "" {
		i := slices.IndexFunc(col.kind.Subresources, func(sub kinds.Subresource) bool { return sub.Name == name })
		switch {
		case i < 0 && col.kind.Custom != nil: // in the words of upstream's other server
			return nil, apierrors.NewNotFound(c.gr(), r.Target.Name)
		case i < 0:
			return nil, unknownPath()
		}
		c.sub = &col.kind.Subresources[i]
		verbs = c.sub.Verbs
	} else if col.storage == nil {
		if verbs = []string{verbCreate}; r.Target.Name != "" {
			return nil, unknownPath()
		}
	}
	if verbs != nil && !slices.Contains(verbs, r.Verb) {
		if c.sub != nil && col.kind.Custom != nil {
			return nil, apierrors.NewMethodNotSupported(c.gr(), r.Verb)
		}
		return nil, notAllowed()
	}
	if col.kind.Warning != "" {
		r.warn(col.kind.Warning)
	}
	return c, wellNamed(r)
}

// fits checks the target's namespace and name against the collection.
func (c *collection) fits(r *Request) error {
	if err := c.placed(r); err != nil {
		return err
	}
	return wellNamed(r)
}

// placed says whether there is such a path and such a method for the collection.
func (c *collection) placed(r *Request) error {
	t := r.Target
	if !c.kind.Namespaced && t.Namespace != "" {
		return unknownPath()
	}
	if everywhere := c.kind.Namespaced && t.Namespace == ""; everywhere {
		switch { // there is only a list of all namespaces: nobody empties them all at once
		case t.Name != "":
			return unknownPath()
		case r.Verb == verbCreate || r.Verb == verbDeleteCollection:
			return notAllowed()
		}
	}
	return nil
}

// wellNamed checks the names in a path.
func wellNamed(r *Request) error {
	t := r.Target
	if bad := content.IsPathSegmentName(t.Name); len(bad) > 0 {
		return apierrors.NewBadRequest(fmt.Sprintf("Name parameter invalid: %q: %s", t.Name, bad[0]))
	}
	if bad := content.IsPathSegmentName(t.Namespace); len(bad) > 0 {
		return apierrors.NewBadRequest(fmt.Sprintf("Namespace parameter invalid: %q: %s", t.Namespace, bad[0]))
	}
	onOne := r.Verb == verbGet || r.Verb == verbUpdate || r.Verb == verbPatch || r.Verb == verbDelete
	if onOne && t.Name == "" {
		return apierrors.NewBadRequest("Name parameter required.")
	}
	return nil
}

// run does the call's verb.
func (c *call) run(ctx context.Context) (*answer, error) {
	switch c.req.Verb {
	case verbGet:
		return c.get(ctx)
	case verbList:
		return c.list(ctx)
	case verbWatch:
		return c.watch(ctx)
	case verbCreate:
		return c.create(ctx)
	case verbUpdate:
		return c.update(ctx)
	case verbPatch:
		return c.patch(ctx)
	case verbDelete:
		return c.delete(ctx)
	case verbDeleteCollection:
		return c.deleteCollection(ctx)
	}
	return nil, apierrors.NewMethodNotSupported(c.gvr.GroupResource(), c.req.Verb)
}

// gvk is the kind that the request speaks of: the subresource's or the object's.
func (c *call) gvk() schema.GroupVersionKind {
	if c.sub != nil && !c.sub.GVK.Empty() {
		return c.sub.GVK
	}
	return c.kind.GVK
}

// newBody makes an empty object for a request's body.
func (c *call) newBody() runtime.Object {
	if c.sub != nil && c.sub.New != nil {
		return c.sub.New()
	}
	return c.kind.New()
}

// foreign says that the subresource speaks another kind than its parent (scale).
func (c *call) foreign() bool { return foreign(c.kind, c.sub) }

// done answers with an object of the collection's kind, or with what the
// subresource shows of it.
func (c *call) done(code int, obj kinds.Object) *answer {
	if c.sub != nil && c.sub.Show != nil {
		return &answer{code: code, object: c.sub.Show(obj)}
	}
	return &answer{code: code, object: obj}
}

func (c *call) gr() schema.GroupResource { return c.gvr.GroupResource() }

// failed turns an error of the store into what the client is told.
func (c *call) failed(err error) error {
	return interpret(err, c.gr(), c.req.Target.Name)
}

func unknownPath() error {
	return &apierrors.StatusError{ErrStatus: metav1.Status{
		Status:  metav1.StatusFailure,
		Code:    http.StatusNotFound,
		Reason:  metav1.StatusReasonNotFound,
		Message: "the server could not find the requested resource",
		Details: &metav1.StatusDetails{},
	}}
}

// notAllowed is 405: the path is one of ours, the method is not.
func notAllowed() error {
	return apierrors.NewGenericServerResponse(http.StatusMethodNotAllowed, "", schema.GroupResource{}, "", "", 0, false)
}

func compareGVR(a, b schema.GroupVersionResource) int {
	return cmp.Or(cmp.Compare(a.Group, b.Group), cmp.Compare(a.Version, b.Version), cmp.Compare(a.Resource, b.Resource))
}
