package seeded

import (
	"context"
	"fmt"

	"k8s.io/apimachinery/pkg/api/equality"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"

	"github.com/sampan-dev/sampan/control/apiserver"
	"github.com/sampan-dev/sampan/internal/identity"
	"github.com/sampan-dev/sampan/internal/target"
	"github.com/sampan-dev/sampan/kinds"
)

// freshOdds is how many lives there are for each whose end is read afresh: a server's
// start is a good part of what a life costs.
const freshOdds = 8

// afresh compares what the server that lived shows with what one shows that has just
// read the store. What is written is shown to watchers and readers without being decoded
// again: somebody who writes into what was shown to him changes what all others see, and
// this is where it comes out, as long as he holds it.
func (w *world) afresh(ctx context.Context) {
	lived := w.server.Load()
	if w.seed%freshOdds != 0 || lived == nil {
		return
	}
	ctx, stop := context.WithCancel(ctx)
	fresh, ended := w.newServer(ctx)
	defer func() {
		stop()
		<-ended
	}()
	for _, k := range w.keys.kinds {
		if k.Storage == "" || k.Hidden {
			continue // nothing is kept of it, or nobody is shown it
		}
		was, is := w.lists(ctx, lived, k), w.lists(ctx, fresh, k)
		for name, obj := range was {
			stored := is[name] // none, or another version: it has been written meanwhile
			if stored != nil && stored.GetResourceVersion() == obj.GetResourceVersion() && !equality.Semantic.DeepEqual(obj, stored) {
				w.fail("%s %s is shown as\n%+v\nand stored as\n%+v", k.Resource, name, obj, stored)
			}
		}
	}
}

// person is who may look at everything.
func (w *world) person() identity.Identity { return w.admin.(door).id }

// lists are the objects of a kind, by namespace and name.
func (w *world) lists(ctx context.Context, s *apiserver.Server, k *kinds.Kind) map[string]kinds.Object {
	all, err := s.Local(w.person()).List(ctx, target.Of(k.GVR(), ""), metav1.ListOptions{})
	if err != nil {
		w.fail("list %s: %v", k.Resource, err)
		return nil
	}
	out := map[string]kinds.Object{}
	if err := meta.EachListItem(all, func(obj runtime.Object) error {
		o, ok := obj.(kinds.Object)
		if !ok {
			return fmt.Errorf("%T is no object", obj)
		}
		out[o.GetNamespace()+"/"+o.GetName()] = o
		return nil
	}); err != nil {
		w.fail("look at %s: %v", k.Resource, err)
	}
	return out
}
