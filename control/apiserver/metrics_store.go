package apiserver

import (
	"context"
	"strings"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"k8s.io/apimachinery/pkg/runtime/schema"

	"github.com/sampan-dev/sampan/control/store"
	"github.com/sampan-dev/sampan/kinds"
)

// timedStore measures the calls to a store under upstream's names.
type timedStore struct {
	store.Store
	seconds *prometheus.HistogramVec
	asked   *prometheus.CounterVec
	failed  *prometheus.CounterVec
	stored  map[string]schema.GroupResource // by Kind.Storage; never written
	series  sync.Map                        // of *storeSeries, by storeKey
}

type storeKey struct {
	operation string
	of        schema.GroupResource
}

type storeSeries struct {
	seconds prometheus.Observer
	asked   prometheus.Counter
	failed  prometheus.Counter
}

// timed wraps a store in which kinds are stored.
func timed(st store.Store, table []*kinds.Kind) *timedStore {
	labels := []string{"operation", "group", "resource"}
	t := &timedStore{Store: st, stored: make(map[string]schema.GroupResource, len(table)),
		seconds: prometheus.NewHistogramVec(prometheus.HistogramOpts{Name: "etcd_request_duration_seconds",
			Help:    "Etcd request latency in seconds for each operation and object type.",
			Buckets: requestBuckets}, labels),
		asked: prometheus.NewCounterVec(prometheus.CounterOpts{Name: "etcd_requests_total",
			Help: "Etcd request counts for each operation and object type."}, labels),
		failed: prometheus.NewCounterVec(prometheus.CounterOpts{Name: "etcd_request_errors_total",
			Help: "Etcd failed request counts for each operation and object type."}, labels)}
	for _, k := range table {
		if k.View == nil && k.Storage != "" {
			t.stored[k.Storage] = k.GVR().GroupResource()
		}
	}
	return t
}

// of finds what is stored under a key. Custom kinds are stored under their group
// and resource.
func (t *timedStore) of(key string) schema.GroupResource {
	path := strings.TrimPrefix(key, "/registry/")
	first, rest, _ := strings.Cut(path, "/")
	if gr, ok := t.stored[first]; ok {
		return gr
	}
	second, _, _ := strings.Cut(rest, "/")
	if gr, ok := t.stored[first+"/"+second]; ok {
		return gr
	}
	if strings.Contains(first, ".") {
		return schema.GroupResource{Group: first, Resource: second}
	}
	return schema.GroupResource{Resource: first}
}

func (t *timedStore) done(operation, key string, began time.Time, err error) {
	at := storeKey{operation, t.of(key)}
	found, ok := t.series.Load(at)
	if !ok {
		words := []string{operation, at.of.Group, at.of.Resource}
		found, _ = t.series.LoadOrStore(at, &storeSeries{t.seconds.WithLabelValues(words...), t.asked.WithLabelValues(words...), t.failed.WithLabelValues(words...)})
	}
	s := found.(*storeSeries)
	s.asked.Inc()
	s.seconds.Observe(time.Since(began).Seconds())
	if err != nil {
		s.failed.Inc()
	}
}

// Get implements store.Store.
func (t *timedStore) Get(ctx context.Context, key string) (store.Entry, int64, error) {
	began := time.Now()
	entry, revision, err := t.Store.Get(ctx, key)
	t.done("get", key, began, err)
	return entry, revision, err
}

// List implements store.Store.
func (t *timedStore) List(ctx context.Context, prefix string, opts store.ListOptions) (store.Listing, error) {
	began := time.Now()
	found, err := t.Store.List(ctx, prefix, opts)
	t.done("list", prefix, began, err)
	return found, err
}

// Create implements store.Store.
func (t *timedStore) Create(ctx context.Context, key string, value []byte, ttl time.Duration) (int64, error) {
	began := time.Now()
	revision, err := t.Store.Create(ctx, key, value, ttl)
	t.done("create", key, began, err)
	return revision, err
}

// Update implements store.Store.
func (t *timedStore) Update(ctx context.Context, key string, value []byte, expected int64, ttl time.Duration) (int64, error) {
	began := time.Now()
	revision, err := t.Store.Update(ctx, key, value, expected, ttl)
	t.done("update", key, began, err)
	return revision, err
}

// Delete implements store.Store.
func (t *timedStore) Delete(ctx context.Context, key string, expected int64) (int64, error) {
	began := time.Now()
	revision, err := t.Store.Delete(ctx, key, expected)
	t.done("delete", key, began, err)
	return revision, err
}
