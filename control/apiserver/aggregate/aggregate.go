// Package aggregate lets other API servers answer for group versions of their
// own: it keeps an APIService for each group version that this server serves,
// finds out whether the servers behind the others' are well, hands requests on to
// them with the caller's name, and shows what they serve in discovery and OpenAPI.
//
// A server that is down costs those who ask for its groups an answer of 503, and
// nobody else anything: nothing here is waited for by requests for other groups,
// and what was last known of its resources stays in discovery, marked as stale.
//
// While no remote APIService exists, nothing runs but one watch.
//
// Facts: k8s.io/kube-aggregator (conditions with their reasons and messages,
// headers, priorities), and the reference of the aggregation layer.
package aggregate

import (
	"context"
	"crypto/tls"
	"log/slog"
	"net"
	"net/http"
	"slices"
	"strings"
	"sync"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/watch"
	apiregistrationv1 "k8s.io/kube-aggregator/pkg/apis/apiregistration/v1"

	"golang.org/x/sync/errgroup"

	"github.com/sampan-dev/sampan/control/apiserver/admit/follow"
	"github.com/sampan-dev/sampan/internal/target"
	"github.com/sampan-dev/sampan/kinds"
	"github.com/sampan-dev/sampan/kinds/apiregistration"
)

// services is where the APIServices are.
var services = target.Of(apiregistrationv1.SchemeGroupVersion.WithResource("apiservices"), "")

// Objects is the API server as its own client.
type Objects interface {
	Get(ctx context.Context, t target.Target, opts metav1.GetOptions) (runtime.Object, error)
	List(ctx context.Context, t target.Target, opts metav1.ListOptions) (runtime.Object, error)
	Watch(ctx context.Context, t target.Target, opts metav1.ListOptions) (watch.Interface, error)
	Create(ctx context.Context, t target.Target, obj runtime.Object, opts metav1.CreateOptions) (runtime.Object, error)
	Update(ctx context.Context, t target.Target, obj runtime.Object, opts metav1.UpdateOptions) (runtime.Object, error)
	Delete(ctx context.Context, t target.Target, opts metav1.DeleteOptions) error
}

// Dial connects to one of the ready endpoints of a service's port.
type Dial func(ctx context.Context, namespace, name string, port int32) (net.Conn, error)

// Config is what an Aggregator needs. All fields must be set.
type Config struct {
	Objects Objects
	Dial    Dial
	// Certificate is the front proxy's: by it other servers know that the names
	// in the headers are true.
	Certificate func(*tls.CertificateRequestInfo) (*tls.Certificate, error)
	// Kinds is what this server serves now; those of BuiltIn it serves always.
	Kinds   func() []*kinds.Kind
	BuiltIn []*kinds.Kind
	// Inside are group versions that a part of this process answers for as
	// another server would, until an APIService names one. They are called
	// authorised. May be nil.
	Inside map[schema.GroupVersion]http.Handler
	Now    func() time.Time
	Log    *slog.Logger
}

// Aggregator knows who serves what. All methods may be called concurrently; Run
// is called once.
type Aggregator struct {
	cfg     Config
	inside  map[string]*remote // by the name that an APIService would have; never changes
	synced  chan struct{}
	changed chan struct{} // there may be something to register
	// registered is closed once every built-in group version has had its APIService written.
	registered chan struct{}
	lapses     lapses

	mu       sync.Mutex // guards what follows
	all      map[string]*apiregistrationv1.APIService
	remotes  map[string]*remote // by the APIService's name
	followed context.CancelFunc // ends the watches that only remotes need; nil: none run
	version  int64              // counts changes that discovery shows
	merged   map[string]merged
}

// New returns an Aggregator that serves nothing until Run.
func New(cfg Config) *Aggregator {
	a := &Aggregator{cfg: cfg, synced: make(chan struct{}), changed: make(chan struct{}, 1), registered: make(chan struct{}), inside: map[string]*remote{},
		all: map[string]*apiregistrationv1.APIService{}, remotes: map[string]*remote{}, merged: map[string]merged{}}
	for gv, h := range cfg.Inside {
		a.inside[gv.Version+"."+gv.Group] = newInside(a, gv, h)
	}
	return a
}

// KindsChanged says that Config.Kinds gives something else than before.
func (a *Aggregator) KindsChanged() {
	select {
	case a.changed <- struct{}{}:
	default:
	}
}

// Registered is closed once what this server serves when it starts has its
// APIServices, whether made now or found.
func (a *Aggregator) Registered() <-chan struct{} { return a.registered }

// Run follows the APIServices until ctx ends.
func (a *Aggregator) Run(ctx context.Context) error {
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error { return a.register(ctx) })
	g.Go(func() error {
		return follow.Each(ctx, a.source(services), func(items []*apiregistrationv1.APIService) {
			a.replace(ctx, items)
		}, func(e watch.EventType, s *apiregistrationv1.APIService) {
			a.observe(ctx, e, s)
		})
	})
	err := g.Wait()
	a.mu.Lock()
	for _, r := range a.remotes {
		r.close()
	}
	a.mu.Unlock()
	return err
}

// replace takes over a complete list.
func (a *Aggregator) replace(ctx context.Context, items []*apiregistrationv1.APIService) {
	gone := map[string]*apiregistrationv1.APIService{}
	a.mu.Lock()
	for name, s := range a.all {
		gone[name] = s
	}
	a.mu.Unlock()
	for _, s := range items {
		delete(gone, s.Name)
		a.observe(ctx, watch.Modified, s)
	}
	for _, s := range gone {
		a.observe(ctx, watch.Deleted, s)
	}
	select {
	case <-a.synced:
	default:
		close(a.synced)
	}
	a.KindsChanged()
}

// observe takes over one change.
func (a *Aggregator) observe(ctx context.Context, e watch.EventType, s *apiregistrationv1.APIService) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if e == watch.Deleted {
		delete(a.all, s.Name)
		a.forget(s.Name)
		a.KindsChanged()
	} else {
		if was := a.all[s.Name]; was == nil || s.Labels[managed] == managedSync && !kinds.Same(was.Spec, s.Spec) {
			a.KindsChanged() // what this server keeps may have to be put right
		}
		a.all[s.Name] = s
		if apiregistration.Local(s) {
			a.forget(s.Name)
		} else {
			a.meet(ctx, s)
		}
	}
	a.version++
	a.followRemotes(ctx)
}

// meet makes or updates the remote of an APIService. The caller holds mu.
func (a *Aggregator) meet(ctx context.Context, s *apiregistrationv1.APIService) {
	if have, ok := a.remotes[s.Name]; ok && have.same(s) {
		have.update(s)
		return
	}
	a.forget(s.Name)
	made := newRemote(a, s)
	a.remotes[s.Name] = made
	made.start(ctx)
}

// forget ends a remote. The caller holds mu.
func (a *Aggregator) forget(name string) {
	if have, ok := a.remotes[name]; ok {
		have.close()
		delete(a.remotes, name)
	}
}

// find is the remote that answers for a group version, nil when this server does.
func (a *Aggregator) find(gv schema.GroupVersion) *remote {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.answering(gv.Version + "." + gv.Group)
}

// Remote says that an administrator has given a group version to another server,
// whatever this one has for it.
func (a *Aggregator) Remote(gv schema.GroupVersion) bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.remotes[gv.Version+"."+gv.Group] != nil
}

// Handler answers requests for remote group versions; the caller has authorised
// them. All others go to next.
func (a *Aggregator) Handler(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if gv, ok := groupVersionOf(r.URL.Path); ok {
			if to := a.find(gv); to != nil {
				to.ServeHTTP(w, r)
				return
			}
		}
		next.ServeHTTP(w, r)
	})
}

// groupVersionOf reads /apis/<group>/<version> and all below.
func groupVersionOf(path string) (gv schema.GroupVersion, ok bool) {
	rest, ok := strings.CutPrefix(path, "/apis/")
	if !ok {
		return gv, false
	}
	parts := strings.SplitN(strings.TrimSuffix(rest, "/"), "/", 3)
	if len(parts) < 2 || parts[0] == "" || parts[1] == "" {
		return gv, false
	}
	return schema.GroupVersion{Group: parts[0], Version: parts[1]}, true
}

// snapshot is all APIServices, the remotes and the version that they are of. The
// objects are read-only.
func (a *Aggregator) snapshot() (all []*apiregistrationv1.APIService, remotes map[string]*remote, version int64) {
	a.mu.Lock()
	defer a.mu.Unlock()
	remotes = make(map[string]*remote, len(a.remotes))
	for name, r := range a.remotes {
		remotes[name] = r
	}
	for _, s := range a.all {
		all = append(all, s)
	}
	for name := range a.inside {
		if r := a.answering(name); r == a.inside[name] {
			remotes[name] = r
			all = append(all, r.service.Load())
		}
	}
	slices.SortFunc(all, func(x, y *apiregistrationv1.APIService) int { return strings.Compare(x.Name, y.Name) })
	return all, remotes, a.version
}

// touched says that a remote shows something else than before.
func (a *Aggregator) touched() {
	a.mu.Lock()
	a.version++
	a.mu.Unlock()
}

// source is what the aggregator follows.
func (a *Aggregator) source(at target.Target) follow.Source {
	return follow.Source{From: a.cfg.Objects, At: at, Log: a.cfg.Log}
}
