package resource

import (
	"context"
	"errors"
	"fmt"
	"net/http"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"

	"github.com/sampan-dev/sampan/control/store"
	"github.com/sampan-dev/sampan/kinds"
)

// within makes a call on an object that another request is about to change in
// passing (a pod by its binding). The request has been authorised and admitted
// as what it is: the call is not judged again.
func (s *Server) within(r *Request, gvr schema.GroupVersionResource, name string) (*call, error) {
	col, ok := s.table.Load().byResource[gvr]
	if !ok || col.storage == nil {
		return nil, apierrors.NewInternalError(fmt.Errorf("%s are not served", gvr.GroupResource()))
	}
	inner := *r
	inner.Target.Resource, inner.Target.Name, inner.Target.Subresource = gvr, name, ""
	return &call{collection: col, req: &inner, trusted: true}, nil
}

// rewrite changes the call's object by compare-and-swap, without the rules for
// clients' updates. change makes another object of the one there is, which it leaves
// alone; its failure from an old copy is not told.
func (c *call) rewrite(ctx context.Context, change func(old kinds.Object) (kinds.Object, error)) (kinds.Object, error) {
	t := c.req.Target
	cur, latest := c.storage.base(ctx, t.Namespace, t.Name), false
	for range maxEdits {
		if cur == nil {
			var err error
			if cur, err = c.storage.read(ctx, t.Namespace, t.Name); err != nil {
				return nil, c.failed(err)
			}
			latest = true
		}
		next, err := change(c.show(cur.obj))
		if err == nil {
			var out *answer
			if out, err = c.write(ctx, cur, next, latest); err == nil {
				return out.object.(kinds.Object), nil
			}
		}
		if !errors.Is(err, errAgain) && latest {
			return nil, err
		}
		if ctx.Err() != nil {
			return nil, c.failed(context.Cause(ctx))
		}
		cur = nil
	}
	return nil, c.failed(store.ErrConflict)
}

// copied lets change work on a copy of the object there is.
func copied(change func(next kinds.Object) error) func(old kinds.Object) (kinds.Object, error) {
	return func(old kinds.Object) (kinds.Object, error) {
		next := old.DeepCopyObject().(kinds.Object)
		return next, change(next)
	}
}

// success is the Status of a creation that answers with nothing else.
func success() *metav1.Status {
	s := &metav1.Status{Status: metav1.StatusSuccess, Code: http.StatusCreated}
	s.Kind, s.APIVersion = "Status", "v1"
	return s
}
