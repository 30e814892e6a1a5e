// Package resource is the trunk of the API server: the one generic handler that
// serves every kind. A request arrives either over HTTP (Server.ServeHTTP) or
// from a component of the same process (Server.Local); both become a Request and
// run through the same code: find the collection, authorise, then get, list,
// watch, create, update, patch, apply or delete.
//
// What a kind is comes from package kinds, what is stored from control/store,
// what is read from control/apiserver/cache. Behaviour that clients can see
// (status codes, messages, order of checks) follows upstream v1.37.
package resource

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/util/managedfields"

	"github.com/sampan-dev/sampan/control/apiserver/cache"
	"github.com/sampan-dev/sampan/control/store"
	"github.com/sampan-dev/sampan/internal/scheme"
	"github.com/sampan-dev/sampan/internal/timeline"
	"github.com/sampan-dev/sampan/kinds"
)

// Limits of what one server accepts. Upstream's numbers unless said otherwise.
const (
	// MaxBody is the largest request body in bytes; etcd refuses more than 1.5
	// MiB, twice that leaves room to say so politely.
	MaxBody = 3 << 20
	// MaxPatchOperations bounds one JSON patch.
	MaxPatchOperations = 10000
	// MaxReads and MaxWrites bound the requests in flight over HTTP; watches
	// and connections (exec, log) do not count.
	MaxReads  = 400
	MaxWrites = 200
	// MaxWatches bounds the watches of one server. Upstream has no such bound;
	// 20,000 are four per node at 5,000 nodes.
	MaxWatches = 20000
	// RequestTimeout ends a request that is neither watch nor connection.
	RequestTimeout = 34 * time.Second
	// CompactEvery is how often revisions older than one such period are forgotten.
	CompactEvery = 5 * time.Minute
)

// Hook takes part in the writes of one kind: the allocation of a service's
// addresses, for example. Nil fields do nothing. The finish functions are called
// exactly once, with whether the write happened.
type Hook struct {
	BeginCreate func(ctx context.Context, obj kinds.Object, dryRun bool) (finish func(stored bool), err error)
	BeginUpdate func(ctx context.Context, obj, old kinds.Object, dryRun bool) (finish func(stored bool), err error)
	AfterDelete func(obj kinds.Object, dryRun bool)
}

// Subcreate answers a POST to a subresource of the object that the request's
// target names. The body is the request's own copy.
type Subcreate func(ctx context.Context, r *Request) (runtime.Object, error)

// Virtual answers a create of a kind that is never stored.
type Virtual func(ctx context.Context, r *Request) (runtime.Object, error)

// Config is all that a Server needs.
type Config struct {
	// Kinds is the table. Several kinds may share one Storage: then all but the
	// stored one have a View.
	Kinds []*kinds.Kind
	// Store holds the objects.
	Store store.Store
	// Prefix precedes all keys in the store; "" means "/registry", upstream's.
	Prefix string
	// Scheme knows the kinds' Go types; nil means internal/scheme's.
	Scheme *runtime.Scheme
	// TypeConverter builds the typed schema for server-side apply, once and on
	// first use; nil means package typed's, which knows all built-in kinds.
	TypeConverter func(*runtime.Scheme) managedfields.TypeConverter
	// CustomTypes gives the typed schema of a kind without a Go type; nil, or a
	// nil answer, means that lists are atomic there.
	CustomTypes func(schema.GroupVersionKind) managedfields.TypeConverter
	// Verdicts of who owns what may be shared by servers of the very same built-in
	// kinds; nil makes some of its own.
	Verdicts *Verdicts
	// Authorizer is asked for every request, in-process ones too. It must be set.
	Authorizer Authorizer
	// Ordered says that whoever calls ServeHTTP bounds the requests in flight
	// (priority and fairness): MaxReads and MaxWrites then do not count.
	Ordered bool
	// Admission sees every write; nil admits all.
	Admission Admission
	// Audit is told of every finished request; nil keeps no audit.
	Audit func(ctx context.Context, e AuditEvent)
	// Delivered is told which events, encoded, a watch over HTTP is sent; nil counts none.
	Delivered func(of schema.GroupVersionResource, frames [][]byte)
	// Timeline gets the first marks of each pod; it may be nil.
	Timeline *timeline.Recorder
	// Transformers seal and open stored bytes, by the kind's Storage ("secrets").
	Transformers map[string]Transformer
	// Transformer is asked before Transformers, for each stored kind, those that
	// are added later, too; nil, or a nil answer, leaves the word to Transformers.
	Transformer func(k *kinds.Kind) Transformer
	// Hooks take part in a kind's writes.
	Hooks map[schema.GroupResource]Hook
	// Connect serves subresources that are connections or foreign protocols,
	// by "pods/log". They are called authorised; the Request is in the context
	// (RequestFrom).
	Connect map[string]http.Handler
	// Subcreate answers POST to subresources, by "serviceaccounts/token".
	// "pods/binding" and "pods/eviction" are built in.
	Subcreate map[string]Subcreate
	// Virtual answers kinds without Storage, by resource. "bindings" is built in.
	Virtual map[schema.GroupVersionResource]Virtual
	// Computed gives the objects of kinds without Storage that can be got and
	// listed, by resource.
	Computed map[schema.GroupVersionResource]Computed
	// Fallback serves the resource paths that no kind claims (custom resources,
	// aggregation); nil answers 404.
	Fallback http.Handler
	// Elsewhere says that clients' requests for the custom kinds of a group version
	// go to Fallback, although they are in the table; nil: none do.
	Elsewhere func(gv schema.GroupVersion) bool
	// Changed is called when the table of what is served has changed; it must not
	// wait. Nil tells nobody.
	Changed func()
	// Now is the wall clock; nil means time.Now.
	Now func() time.Time
	// Log gets what no client is told; nil discards it.
	Log *slog.Logger
}

// Server serves a table of kinds. All its methods may be called concurrently.
type Server struct {
	cfg    Config
	codec  *codec
	fields *fieldManagers

	ctx    context.Context // ends when the server is closed; caches live in it
	cancel context.CancelFunc
	wg     sync.WaitGroup
	// feed starts, on first use, what brings all caches the store's events.
	feed func() *cache.Feed

	mu      sync.Mutex // guards changes of table
	table   atomic.Pointer[table]
	watches atomic.Int64
	// compacted is the revision before which history is forgotten.
	compacted atomic.Int64
	reads     chan struct{}
	writes    chan struct{}
	subs      map[string]Subcreate
	virtuals  map[schema.GroupVersionResource]Virtual
}

// table is the immutable picture of what is served.
type table struct {
	byResource map[schema.GroupVersionResource]*collection
	storages   map[string]*storage
}

// New checks cfg and returns a server for it. Caches fill when a collection is
// first listed or watched. Close frees what the server holds; the store stays open.
func New(cfg Config) (*Server, error) {
	if cfg.Store == nil || cfg.Authorizer == nil {
		return nil, errors.New("api server config: Store and Authorizer must be set")
	}
	cfg = withDefaults(cfg)
	ctx, cancel := context.WithCancel(context.Background())
	s := &Server{
		cfg:    cfg,
		codec:  newCodec(cfg.Scheme),
		ctx:    ctx,
		cancel: cancel,
		reads:  make(chan struct{}, MaxReads),
		writes: make(chan struct{}, MaxWrites),
	}
	s.feed = sync.OnceValue(s.startFeed)
	s.fields = newFieldManagers(s)
	s.subs = s.builtInSubcreates()
	s.virtuals = s.builtInVirtuals()
	s.table.Store(&table{
		byResource: map[schema.GroupVersionResource]*collection{},
		storages:   map[string]*storage{},
	})
	for _, k := range storedFirst(cfg.Kinds) {
		if err := s.Add(k); err != nil {
			cancel()
			return nil, err
		}
	}
	return s, nil
}

func withDefaults(cfg Config) Config {
	if cfg.Prefix == "" {
		cfg.Prefix = "/registry"
	}
	if cfg.Scheme == nil {
		cfg.Scheme = scheme.Scheme()
	}
	if cfg.TypeConverter == nil {
		cfg.TypeConverter = builtInTypes
	}
	if cfg.Verdicts == nil {
		cfg.Verdicts = &Verdicts{}
	}
	if cfg.Admission == nil {
		cfg.Admission = admitAll{}
	}
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	return cfg
}

// storedFirst orders kinds so that views come after what they view.
func storedFirst(all []*kinds.Kind) []*kinds.Kind {
	out := slices.Clone(all)
	slices.SortStableFunc(out, func(a, b *kinds.Kind) int {
		switch {
		case a.View == nil && b.View != nil:
			return -1
		case a.View != nil && b.View == nil:
			return 1
		}
		return 0
	})
	return out
}

// Add serves one more kind from now on. A kind that views another must come
// after it. Adding a resource that is served replaces it: its watches end, and
// clients that resume are served by the new rules.
func (s *Server) Add(k *kinds.Kind) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	next := s.table.Load().clone()
	c := &collection{server: s, kind: k, gvr: k.GVR()}
	if objects := s.cfg.Computed[c.gvr]; objects != nil {
		c.storage = newComputed(s, k, objects)
	}
	if k.Storage != "" {
		st, err := s.storageOf(next, k)
		if err != nil {
			return err
		}
		c.storage = st
	}
	old := next.byResource[c.gvr]
	next.byResource[c.gvr] = c
	s.publish(next)
	if old != nil {
		s.fields.forget(old.kind)
	}
	if old != nil && old.storage != c.storage && old.kind.View == nil {
		old.storage.stop()
	}
	return nil
}

// storageOf finds the storage that k shares, or makes it. The caller holds mu.
func (s *Server) storageOf(t *table, k *kinds.Kind) (*storage, error) {
	name := storageName(k)
	if st, ok := t.storages[name]; ok && (k.View != nil || st.kind == k) {
		return st, nil
	}
	if k.View != nil {
		return nil, fmt.Errorf("kind %q: the kind that it views, %q, is not served", k.GVK, k.View.Stored)
	}
	if old, ok := t.storages[name]; ok && old.kind.GVK.GroupKind() != k.GVK.GroupKind() {
		return nil, fmt.Errorf("kind %q: storage %q belongs to %q", k.GVK, k.Storage, old.kind.GVK)
	}
	st := newStorage(s, k)
	t.storages[name] = st
	return st, nil
}

// storageName names the storage that kinds share: a place in the store, and for
// custom kinds one of the versions in which it is read.
func storageName(k *kinds.Kind) string {
	if k.Custom != nil {
		return k.Storage + "@" + k.GVK.Version
	}
	return k.Storage
}

// publish serves by next from now on. The caller holds mu.
func (s *Server) publish(next *table) {
	s.table.Store(next)
	if s.cfg.Changed != nil {
		s.cfg.Changed()
	}
}

// Remove stops serving a resource. Objects stay in the store.
func (s *Server) Remove(gvr schema.GroupVersionResource) {
	s.mu.Lock()
	defer s.mu.Unlock()
	next := s.table.Load().clone()
	c, ok := next.byResource[gvr]
	if !ok {
		return
	}
	delete(next.byResource, gvr)
	own := c.storage != nil && c.kind.View == nil
	if own {
		delete(next.storages, storageName(c.kind))
	}
	s.publish(next)
	s.fields.forget(c.kind)
	if own {
		c.storage.stop()
	}
}

func (t *table) clone() *table {
	next := &table{
		byResource: make(map[schema.GroupVersionResource]*collection, len(t.byResource)+1),
		storages:   make(map[string]*storage, len(t.storages)+1),
	}
	for k, v := range t.byResource {
		next.byResource[k] = v
	}
	for k, v := range t.storages {
		next.storages[k] = v
	}
	return next
}

// serves says whether k, and no newer row in its place, is in the table.
func (s *Server) serves(k *kinds.Kind) bool {
	c, ok := s.table.Load().byResource[k.GVR()]
	return ok && c.kind == k
}

// Kinds returns what is served now, for discovery; the order is by group,
// version and resource.
func (s *Server) Kinds() []*kinds.Kind {
	t := s.table.Load()
	out := make([]*kinds.Kind, 0, len(t.byResource))
	for _, c := range t.byResource {
		if !c.kind.Hidden {
			out = append(out, c.kind)
		}
	}
	slices.SortFunc(out, func(a, b *kinds.Kind) int {
		return compareGVR(a.GVR(), b.GVR())
	})
	return out
}

// Run does the server's own upkeep until ctx ends, then closes the server: it
// forgets old revisions.
func (s *Server) Run(ctx context.Context) error {
	defer s.Close()
	return s.compact(ctx)
}

// compact forgets revisions that are at least one period old, as upstream.
func (s *Server) compact(ctx context.Context) error {
	tick := time.NewTicker(CompactEvery)
	defer tick.Stop()
	last, err := s.cfg.Store.Revision(ctx)
	if err != nil && ctx.Err() == nil {
		s.cfg.Log.Warn("read the store's revision", "err", err)
	}
	for {
		select {
		case <-tick.C:
		case <-s.ctx.Done():
			return nil
		case <-ctx.Done():
			return context.Cause(ctx)
		}
		if last > 0 {
			err := s.cfg.Store.Compact(ctx, last)
			if err != nil && !errors.Is(err, store.ErrCompacted) && ctx.Err() == nil {
				s.cfg.Log.Warn("compact the store", "revision", last, "err", err)
			}
			s.compacted.Store(last)
		}
		if now, err := s.cfg.Store.Revision(ctx); err == nil {
			last = now
		}
	}
}

// startFeed starts the watch that all caches share.
func (s *Server) startFeed() *cache.Feed {
	f := cache.NewFeed(s.cfg.Store, s.cfg.Prefix+"/", s.cfg.Log)
	s.wg.Go(func() {
		if err := f.Run(s.ctx); err != nil && s.ctx.Err() == nil {
			s.cfg.Log.Error("the watch of the store ended", "err", err)
		}
	})
	return f
}

// Close ends all watches and caches and waits for them.
func (s *Server) Close() {
	s.cancel()
	s.wg.Wait()
}
