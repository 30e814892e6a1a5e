package apiserver

import (
	"context"
	"slices"
	"time"

	"golang.org/x/sync/errgroup"
	"k8s.io/apimachinery/pkg/watch"

	"github.com/sampan-dev/sampan/control/apiserver/admit/follow"
	"github.com/sampan-dev/sampan/internal/backoff"
	"github.com/sampan-dev/sampan/internal/target"
	"github.com/sampan-dev/sampan/kinds"
)

// ownAgain is how soon what could not be made again is tried anew; upstream looks
// every ten seconds.
var ownAgain = backoff.Policy{Min: 10 * time.Millisecond, Max: 10 * time.Second}

// keepOwnService makes the service "kubernetes", and what stands behind it, again as
// soon as somebody deletes it ("kubectl delete service --all"): pods find the API by
// it. What only changes is left alone until the next start, for other servers may be
// behind the service too.
func (s *Server) keepOwnService(ctx context.Context) error {
	g, ctx := errgroup.WithContext(ctx)
	for _, w := range s.ownService() {
		if s.served(w.at.Resource) {
			g.Go(func() error { return s.keep(ctx, w) })
		}
	}
	return g.Wait()
}

func (s *Server) keep(ctx context.Context, w wanted) error {
	own := follow.Source{From: s.own, At: target.Of(w.at.Resource, w.at.Namespace), Log: s.cfg.Log}
	meant := func(obj kinds.Object) bool { return obj.GetName() == w.at.Name }
	again := func() {
		// Not at once, often: the address of the deleted one is given back only after
		// everybody has been told of the deletion.
		for failures := 1; ; failures++ {
			fresh := w
			fresh.obj = w.obj.DeepCopyObject().(kinds.Object) // the server keeps what it is given
			err := s.ensure(ctx, fresh)
			if err == nil || ctx.Err() != nil {
				return
			}
			s.cfg.Log.Warn("make the API's own service again", "error", err)
			select {
			case <-time.After(ownAgain.After(failures)):
			case <-ctx.Done():
			}
		}
	}
	return follow.Each(ctx, own, func(all []kinds.Object) {
		if !slices.ContainsFunc(all, meant) {
			again()
		}
	}, func(e watch.EventType, obj kinds.Object) {
		if e == watch.Deleted && meant(obj) {
			again()
		}
	})
}
