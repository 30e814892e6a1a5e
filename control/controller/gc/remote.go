package gc

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	apiregistrationv1 "k8s.io/kube-aggregator/pkg/apis/apiregistration/v1"

	"github.com/sampan-dev/sampan/client"
	"github.com/sampan-dev/sampan/client/informer"
	"github.com/sampan-dev/sampan/control/controller"
)

// services are the registrations of groups that other servers answer for.
var services = client.Resource[*apiregistrationv1.APIService]{
	GroupVersionResource: apiregistrationv1.SchemeGroupVersion.WithResource("apiservices"), Kind: "APIService",
}

const (
	// askAgain is how often other servers are asked what they keep, while there
	// are any. Upstream's.
	askAgain = 30 * time.Second
	// maxKinds bounds the kinds of one group version of another server.
	maxKinds = 1000
)

// remotes are the kinds that other servers keep, as they last said. A server that
// is down keeps its kinds: what is known of them may still be true, and nothing
// follows from what is not.
type remotes struct {
	transport client.Transport
	known     *informer.Informer[*apiregistrationv1.APIService]
	// look is told when a server came, went, or became well.
	look chan struct{}

	mu      sync.Mutex // guards what follows
	kinds   map[schema.GroupVersion][]controller.Kind
	all     []controller.Kind
	changed chan struct{}
}

func newRemotes(cfg controller.Config, t client.Transport) *remotes {
	r := &remotes{transport: t, known: controller.Mirror(cfg.Mirrors, services), look: make(chan struct{}, 1),
		kinds: map[schema.GroupVersion][]controller.Kind{}, changed: make(chan struct{})}
	r.known.Subscribe(func(informer.Event[*apiregistrationv1.APIService]) {
		select {
		case r.look <- struct{}{}:
		default:
		}
	})
	return r
}

// list returns the kinds, and a channel that closes when they are others.
func (r *remotes) list() ([]controller.Kind, <-chan struct{}) {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.all, r.changed
}

// run asks the servers until ctx ends. While there are none, it sleeps.
func (r *remotes) run(ctx context.Context) {
	for {
		var again <-chan time.Time
		var tick *time.Timer
		if r.ask(ctx) {
			tick = time.NewTimer(askAgain)
			again = tick.C
		}
		select {
		case <-r.look:
		case <-again:
		case <-ctx.Done():
		}
		if tick != nil {
			tick.Stop()
		}
		if ctx.Err() != nil {
			return
		}
	}
}

// ask finds out what the servers keep, and says whether there are any.
func (r *remotes) ask(ctx context.Context) (any bool) {
	found := map[schema.GroupVersion][]controller.Kind{}
	for _, s := range r.known.List() {
		if s.Spec.Service == nil {
			continue
		}
		any = true
		gv := schema.GroupVersion{Group: s.Spec.Group, Version: s.Spec.Version}
		kinds, err := r.keptBy(ctx, s, gv)
		if err != nil {
			r.mu.Lock()
			kinds = r.kinds[gv]
			r.mu.Unlock()
		}
		found[gv] = kinds
	}
	if ctx.Err() == nil {
		r.replace(found)
	}
	return any
}

// replace takes over what was found: of a resource that several versions show, one
// is enough.
func (r *remotes) replace(found map[schema.GroupVersion][]controller.Kind) {
	var all []controller.Kind
	for _, kinds := range found {
		all = append(all, kinds...)
	}
	slices.SortFunc(all, func(a, b controller.Kind) int { return strings.Compare(a.String(), b.String()) })
	seen := map[schema.GroupResource]bool{}
	all = slices.DeleteFunc(all, func(k controller.Kind) bool {
		twice := seen[k.GroupResource()]
		seen[k.GroupResource()] = true
		return twice
	})
	r.mu.Lock()
	defer r.mu.Unlock()
	r.kinds = found
	if slices.Equal(all, r.all) {
		return
	}
	r.all = all
	close(r.changed)
	r.changed = make(chan struct{})
}

// keptBy is what one server keeps, and lets be listed, watched and deleted.
func (r *remotes) keptBy(ctx context.Context, s *apiregistrationv1.APIService, gv schema.GroupVersion) ([]controller.Kind, error) {
	well := slices.ContainsFunc(s.Status.Conditions, func(c apiregistrationv1.APIServiceCondition) bool {
		return c.Type == apiregistrationv1.Available && c.Status == apiregistrationv1.ConditionTrue
	})
	if !well {
		return nil, apierrors.NewServiceUnavailable(fmt.Sprintf("stale GroupVersion discovery: %v", gv))
	}
	raw, err := client.Raw(ctx, r.transport, "/apis/"+gv.String())
	if err != nil {
		return nil, err
	}
	var list metav1.APIResourceList
	if err := json.Unmarshal(raw, &list); err != nil {
		return nil, fmt.Errorf("decode the resources of %s: %w", gv, err)
	}
	var kinds []controller.Kind
	for _, res := range list.APIResources {
		if strings.Contains(res.Name, "/") || len(kinds) == maxKinds || !can(res.Verbs, "delete", "list", "watch") {
			continue
		}
		kinds = append(kinds, controller.Kind{GroupVersionResource: gv.WithResource(res.Name), Kind: res.Kind, Namespaced: res.Namespaced})
	}
	return kinds, nil
}

func can(verbs []string, wanted ...string) bool {
	return !slices.ContainsFunc(wanted, func(v string) bool { return !slices.Contains(verbs, v) })
}
