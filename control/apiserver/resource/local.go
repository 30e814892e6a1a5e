package resource

import (
	"context"
	"fmt"
	"net/http"
	"runtime/debug"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/watch"

	"github.com/sampan-dev/sampan/internal/identity"
	"github.com/sampan-dev/sampan/internal/target"
)

// Local carries the requests of one component of the same process. It satisfies
// client.Transport without knowing it: nothing is encoded and no HTTP is spoken,
// but authorisation, admission, validation and audit are those of any request.
// Objects that come back are shared and read-only; objects handed in are copied.
type Local struct {
	server *Server
	who    identity.Identity
	agent  string
}

// Local returns a transport for who; agent takes the place of a User-Agent.
func (s *Server) Local(who identity.Identity, agent string) *Local {
	return &Local{server: s, who: who, agent: agent}
}

func (l *Local) request(verb string, t target.Target) *Request {
	return &Request{Verb: verb, Target: t, User: l.who, Agent: l.agent, Received: l.server.cfg.Now()}
}

// do takes a request through the server. A panic is the request's failure, not
// the process's: over HTTP it would be no more.
func (l *Local) do(ctx context.Context, r *Request) (c *call, out *answer, err error) {
	defer func() {
		if p := recover(); p != nil {
			l.server.cfg.Log.Error("request panicked", "verb", r.Verb, "target", r.Target.String(),
				"panic", fmt.Sprint(p), "stack", string(debug.Stack()))
			c, out, err = nil, nil, panicked()
		}
	}()
	c, err = l.server.begin(ctx, r)
	if err != nil {
		l.server.audit(ctx, r, nil, err)
		return nil, nil, err
	}
	out, err = c.run(ctx)
	l.server.audit(ctx, r, out, err)
	return c, out, err
}

// Get returns one object.
func (l *Local) Get(ctx context.Context, t target.Target, opts metav1.GetOptions) (runtime.Object, error) {
	if l.beyond(t) {
		return l.far(ctx, errand{method: http.MethodGet, at: t, options: &opts})
	}
	r := l.request(verbGet, t)
	r.Get = opts
	return l.one(ctx, r)
}

// List returns the kind's list type; its items share the stored objects' insides.
func (l *Local) List(ctx context.Context, t target.Target, opts metav1.ListOptions) (runtime.Object, error) {
	if l.beyond(t) {
		return l.far(ctx, errand{method: http.MethodGet, at: t, options: &opts})
	}
	r := l.request(verbList, t)
	r.List = opts
	c, out, err := l.do(ctx, r)
	if err != nil {
		return nil, err
	}
	return c.listObject(out.page)
}

// Watch delivers events until Stop or ctx ends.
func (l *Local) Watch(ctx context.Context, t target.Target, opts metav1.ListOptions) (watch.Interface, error) {
	if l.beyond(t) {
		return l.farWatch(ctx, t, opts)
	}
	r := l.request(verbWatch, t)
	r.List = opts
	_, out, err := l.do(ctx, r)
	if err != nil {
		return nil, err
	}
	return newLocalWatch(out.stream), nil
}

// Create stores a new object, or posts to a subresource or a virtual kind.
func (l *Local) Create(ctx context.Context, t target.Target, obj runtime.Object, opts metav1.CreateOptions) (runtime.Object, error) {
	if l.beyond(t) {
		return l.far(ctx, errand{method: http.MethodPost, at: t, options: &opts, body: obj})
	}
	r := l.request(verbCreate, t)
	r.Create, r.Body = opts, obj.DeepCopyObject()
	return l.one(ctx, r)
}

// Update replaces an object, or the part of it that a subresource is.
func (l *Local) Update(ctx context.Context, t target.Target, obj runtime.Object, opts metav1.UpdateOptions) (runtime.Object, error) {
	if l.beyond(t) {
		return l.far(ctx, errand{method: http.MethodPut, at: t, options: &opts, body: obj})
	}
	r := l.request(verbUpdate, t)
	r.Update, r.Body = opts, obj.DeepCopyObject()
	return l.one(ctx, r)
}

// Patch changes an object by one of the API's patch formats.
func (l *Local) Patch(ctx context.Context, t target.Target, pt types.PatchType, data []byte, opts metav1.PatchOptions) (runtime.Object, error) {
	if l.beyond(t) {
		return l.far(ctx, farPatch(t, pt, data, &opts))
	}
	r := l.request(verbPatch, t)
	r.Patch, r.PatchType, r.PatchData = opts, pt, data
	return l.one(ctx, r)
}

// Delete asks for an object's end.
func (l *Local) Delete(ctx context.Context, t target.Target, opts metav1.DeleteOptions) error {
	if l.beyond(t) {
		_, err := l.far(ctx, errand{method: http.MethodDelete, at: t, body: &opts})
		return err
	}
	r := l.request(verbDelete, t)
	r.Delete = opts
	_, _, err := l.do(ctx, r)
	return err
}

// DeleteCollection deletes what a list with the same options shows.
func (l *Local) DeleteCollection(ctx context.Context, t target.Target, opts metav1.DeleteOptions, list metav1.ListOptions) error {
	if l.beyond(t) {
		_, err := l.far(ctx, errand{method: http.MethodDelete, at: t, options: &list, body: &opts})
		return err
	}
	r := l.request(verbDeleteCollection, t)
	r.Delete, r.List = opts, list
	_, _, err := l.do(ctx, r)
	return err
}

func (l *Local) one(ctx context.Context, r *Request) (runtime.Object, error) {
	_, out, err := l.do(ctx, r)
	if err != nil {
		return nil, err
	}
	return out.object, nil
}

// listObject makes the kind's list type of a page.
func (c *call) listObject(p *page) (runtime.Object, error) {
	list := c.kind.NewList()
	objects := make([]runtime.Object, 0, len(p.items))
	for _, it := range p.items {
		obj := it.object(c.collection)
		if obj == nil {
			_, err := it.entry.Decode()
			return nil, c.unreadable(err)
		}
		objects = append(objects, obj)
	}
	if err := meta.SetList(list, objects); err != nil {
		return nil, apierrors.NewInternalError(fmt.Errorf("list of %q: %w", c.gvr, err))
	}
	stripItems(list)
	list.GetObjectKind().SetGroupVersionKind(c.listGVK())
	accessor, err := meta.ListAccessor(list)
	if err != nil {
		return nil, apierrors.NewInternalError(err)
	}
	m := p.meta()
	accessor.SetResourceVersion(m.ResourceVersion)
	accessor.SetContinue(m.Continue)
	accessor.SetRemainingItemCount(m.RemainingItemCount)
	return list, nil
}
