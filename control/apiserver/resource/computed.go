package resource

import (
	"context"
	"slices"
	"strings"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"

	"github.com/sampan-dev/sampan/control/apiserver/cache"
	"github.com/sampan-dev/sampan/kinds"
)

// Computed gives the objects of a kind that nobody stores, as they are now. They can
// be got and listed like any others.
type Computed func(ctx context.Context) ([]kinds.Object, error)

// newComputed is a storage that keeps nothing.
func newComputed(s *Server, k *kinds.Kind, objects Computed) *storage {
	st := newStorage(s, k)
	st.computed = objects
	return st
}

// compute gives the objects as entries, by name.
func (st *storage) compute(ctx context.Context) ([]*cache.Entry, error) {
	objects, err := st.computed(ctx)
	if err != nil {
		return nil, err
	}
	cfg := &cache.Config{
		Decode: func(plain []byte) (runtime.Object, error) { return st.server.codec.load(st.ctx, plain, st.kind) },
		Fields: st.selectable,
	}
	entries := make([]*cache.Entry, 0, len(objects))
	for _, obj := range objects {
		obj.GetObjectKind().SetGroupVersionKind(st.kind.GVK)
		value, err := st.server.codec.store(ctx, obj, st.kind)
		if err != nil {
			return nil, err
		}
		entries = append(entries, cache.Loose(cfg, cacheKey(obj.GetNamespace(), obj.GetName()), value))
	}
	slices.SortFunc(entries, func(a, b *cache.Entry) int { return strings.Compare(a.Key(), b.Key()) })
	return entries, nil
}

// computedPage is a list of them: always whole.
func (c *call) computedPage(ctx context.Context, sel selector) (*page, error) {
	entries, err := c.storage.compute(ctx)
	if err != nil {
		return nil, err
	}
	p := &page{}
	for _, e := range entries {
		ok, err := c.chosen(sel, e)
		if err != nil {
			return nil, err
		}
		if ok && strings.HasPrefix(e.Key(), c.scope()) {
			p.items = append(p.items, item{e})
		}
	}
	return p, nil
}

// computedRecord is one of them.
func (c *call) computedRecord(ctx context.Context) (*record, error) {
	entries, err := c.storage.compute(ctx)
	if err != nil {
		return nil, err
	}
	key := cacheKey(c.req.Target.Namespace, c.req.Target.Name)
	for _, e := range entries {
		if e.Key() != key {
			continue
		}
		obj, err := e.Decode()
		if err != nil {
			return nil, err
		}
		return &record{obj: obj.(kinds.Object), entry: e}, nil
	}
	// Upstream's words, which have no plural of what they are about.
	return nil, apierrors.NewNotFound(schema.GroupResource{Group: c.gvr.Group, Resource: c.kind.Singular}, c.req.Target.Name)
}
