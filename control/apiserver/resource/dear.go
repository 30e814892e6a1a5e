package resource

import (
	"context"
	"fmt"

	"k8s.io/apimachinery/pkg/runtime"

	"github.com/sampan-dev/sampan/control/apiserver/cache"
	"github.com/sampan-dev/sampan/kinds"
)

// Objects that a webhook must convert are dear to decode: they are asked for
// together, within the time of the request that wants them, and kept.

// loadOne is the one object of a custom kind's stored bytes.
func loadOne(ctx context.Context, data []byte, k *kinds.Kind) (kinds.Object, error) {
	all, err := k.Custom.Load(ctx, data)
	if err != nil {
		return nil, err
	}
	if len(all) != 1 {
		return nil, fmt.Errorf("decode stored %q: there are %d objects", k.GVK.Kind, len(all))
	}
	return all[0], nil
}

// decodeAll is how the cache decodes many entries at once; nil for kinds of which
// each may as well be decoded alone.
func (st *storage) decodeAll() func(ctx context.Context, values [][]byte) ([]runtime.Object, error) {
	if st.kind.Custom == nil || !st.kind.Custom.Asks {
		return nil
	}
	return func(ctx context.Context, values [][]byte) ([]runtime.Object, error) {
		all, err := st.kind.Custom.Load(ctx, values...)
		if err != nil {
			return nil, err
		}
		objects := make([]runtime.Object, len(all))
		for i, obj := range all {
			objects[i] = obj
		}
		return objects, nil
	}
}

// entryRecord gives an entry of mirror as a record.
func (st *storage) entryRecord(ctx context.Context, mirror *cache.Cache, e *cache.Entry) (*record, error) {
	if err := mirror.Together(ctx, e); err != nil {
		return nil, err
	}
	decoded, err := e.Decode()
	if err != nil {
		return nil, err
	}
	obj, ok := decoded.(kinds.Object)
	if !ok {
		return nil, fmt.Errorf("stored object %q is a %T", e.Key(), decoded)
	}
	return &record{obj: obj, revision: e.Revision(), entry: e}, nil
}

// together decodes what a list is going to look at: everything from a key on, or
// as much as is shown when nothing is chosen from it.
func (c *call) together(ctx context.Context, snap cache.Snapshot, sel selector, from string, limit int64) error {
	mirror := c.storage.running()
	if mirror == nil || c.kind.Custom == nil || !c.kind.Custom.Asks {
		return nil
	}
	var entries []*cache.Entry
	snap.Ascend(c.scope(), from, func(e *cache.Entry) bool {
		entries = append(entries, e)
		return limit <= 0 || !sel.all() || int64(len(entries)) < limit
	})
	return mirror.Together(ctx, entries...)
}

// scope is what the keys begin with that a request is about.
func (c *call) scope() string {
	if ns := c.req.Target.Namespace; ns != "" {
		return ns + "/"
	}
	return ""
}

// unshown says that an event cannot be shown to the watch's client, who must know.
type unshown struct{ cause error }

func (u *unshown) Error() string { return u.cause.Error() }

func (u *unshown) Unwrap() error { return u.cause }
