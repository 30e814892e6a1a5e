package agent

import (
	"context"
	"fmt"
	"sync"
	"time"

	certificatesv1 "k8s.io/api/certificates/v1"

	"github.com/sampan-dev/sampan/client"
	"github.com/sampan-dev/sampan/client/informer"
)

// shared is a mirror that begins when the first pod needs it: most nodes never
// have such a pod. It may be used from any goroutine once Run has begun.
type shared[T client.Object] struct {
	mirror *informer.Informer[T]
	word   string
	// begin runs the mirror for as long as the agent runs.
	begin func(func(context.Context) error)
	once  sync.Once
}

// ready returns the mirror once it is complete.
func (s *shared[T]) ready(ctx context.Context) (*informer.Informer[T], error) {
	s.once.Do(func() { s.begin(s.mirror.Run) })
	timer := time.NewTimer(syncTimeout)
	defer timer.Stop()
	select {
	case <-s.mirror.Synced():
		return s.mirror, nil
	case <-timer.C:
		return nil, fmt.Errorf("failed to sync %s cache: timed out waiting for the condition", s.word)
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	}
}

// newBundles mirrors the trust bundles, all of them, since pods may select them
// by label.
func (a *Agent) newBundles() *shared[*certificatesv1.ClusterTrustBundle] {
	mirror := informer.New(a.cfg.Transport, client.ClusterTrustBundles, informer.Options{Log: a.cfg.Log})
	mirror.Subscribe(func(informer.Event[*certificatesv1.ClusterTrustBundle]) { a.wakeTrusting() })
	return &shared[*certificatesv1.ClusterTrustBundle]{mirror: mirror, word: "clustertrustbundle", begin: a.beginMirror}
}

// beginMirror runs a mirror beside the agent's other parts.
func (a *Agent) beginMirror(run func(context.Context) error) {
	a.spawn(func() { a.run(a.life, "mirror", run) })
}

// bundleList implements volume.Bundles.
func (a *Agent) bundleList(ctx context.Context) ([]*certificatesv1.ClusterTrustBundle, error) {
	mirror, err := a.bundles.ready(ctx)
	if err != nil {
		return nil, err
	}
	return mirror.List(), nil
}

// wakeTrusting tells the pods that show trust bundles that one has changed.
func (a *Agent) wakeTrusting() {
	a.mu.Lock()
	defer a.mu.Unlock()
	for _, m := range a.machines {
		if m.trusting {
			m.refsChanged()
		}
	}
}
