// Package flow keeps order among requests and bounds how many are served at once:
// upstream's API Priority and Fairness.
//
// A request is classified by the first FlowSchema that fits it. Its schema names a
// priority level, which has a share of the server's seats and queues of its own,
// and its flow (schema and user, or schema and namespace) is dealt a few of these
// queues. When the level is full the request waits, and queues are served fairly;
// when the flow's queues are full, or the wait is too long, it is refused with 429.
// Levels that are not busy lend seats to those that are. The exempt level waits
// for nobody.
//
// Three things are simpler than upstream, and seen only in metrics: fairness is
// start-time fair queuing, whose virtual time needs no clock; seats are lent when
// a level presses and then every ten seconds while any does, instead of always;
// and a removed level drains with the seats it has left.
//
// An idle server runs no timer here.
package flow

import (
	"context"
	"log/slog"
	"net/http"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	flowcontrolv1 "k8s.io/api/flowcontrol/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/watch"

	"github.com/sampan-dev/sampan/control/apiserver/resource"
	"github.com/sampan-dev/sampan/internal/target"
	kinds "github.com/sampan-dev/sampan/kinds/flowcontrol"
)

// Limits.
const (
	// DefaultSeats are the requests served at once: upstream's 400 reads and 200
	// writes.
	DefaultSeats = 600
	// MaxWait is how long a request may stand in a queue: a quarter of upstream's
	// request timeout.
	MaxWait = 15 * time.Second
)

// Transport reads and writes the objects that configure the order.
type Transport interface {
	List(ctx context.Context, t target.Target, opts metav1.ListOptions) (runtime.Object, error)
	Watch(ctx context.Context, t target.Target, opts metav1.ListOptions) (watch.Interface, error)
	Create(ctx context.Context, t target.Target, obj runtime.Object, opts metav1.CreateOptions) (runtime.Object, error)
	Update(ctx context.Context, t target.Target, obj runtime.Object, opts metav1.UpdateOptions) (runtime.Object, error)
	Delete(ctx context.Context, t target.Target, opts metav1.DeleteOptions) error
}

// Config is all that an Order needs.
type Config struct {
	// Seats are how many requests of one seat may be served at once; 0 means
	// DefaultSeats.
	Seats int
	// Asks reads a request's head.
	Asks func(*http.Request) resource.Asked
	// Stored tells how many objects a resource has and how large they are.
	Stored func(schema.GroupVersionResource) (objects, bytes int64, ok bool)
	// Now is the wall clock; nil means time.Now.
	Now func() time.Time
	// Log gets what no client is told; nil discards it.
	Log *slog.Logger
}

// Order is the order of one server. All its methods may be called concurrently.
type Order struct {
	cfg     Config
	plan    atomic.Pointer[plan]
	watches watchers
	metrics *metrics
	pressed chan struct{}

	mu sync.Mutex // guards the making of plans and the lending of seats
}

// plan is what the objects say, ready for use. It never changes; its levels do.
type plan struct {
	schemas []*schemaRule
	levels  map[string]*level
	sum     int // the levels' nominal seats
}

// New returns an Order that knows the mandatory objects; Run brings the others.
func New(cfg Config) *Order {
	if cfg.Seats == 0 {
		cfg.Seats = DefaultSeats
	}
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	o := &Order{cfg: cfg, metrics: newMetrics(), pressed: make(chan struct{}, 1)}
	o.watches.counts = map[watched]int{}
	o.metrics.order = o
	o.digest(nil, nil)
	return o
}

// digest makes the plan of the objects there are now. What is mandatory and
// missing is imagined.
func (o *Order) digest(levels []*flowcontrolv1.PriorityLevelConfiguration, schemas []*flowcontrolv1.FlowSchema) {
	o.mu.Lock()
	defer o.mu.Unlock()
	must := kinds.Mandatory()
	for _, l := range must.Levels {
		if !slices.ContainsFunc(levels, func(have *flowcontrolv1.PriorityLevelConfiguration) bool { return have.Name == l.Name }) {
			levels = append(slices.Clip(levels), l)
		}
	}
	for _, s := range must.Schemas {
		if !slices.ContainsFunc(schemas, func(have *flowcontrolv1.FlowSchema) bool { return have.Name == s.Name }) {
			schemas = append(slices.Clip(schemas), s)
		}
	}
	next := &plan{levels: map[string]*level{}}
	old := o.plan.Load()
	for _, l := range levels {
		if old != nil && old.levels[l.Name] != nil {
			next.levels[l.Name] = old.levels[l.Name]
			continue
		}
		next.levels[l.Name] = newLevel(l.Name, o.cfg.Now, o.press)
	}
	next.sum = share(o.cfg.Seats, levels, next.levels)
	for _, s := range schemas {
		if l, ok := next.levels[s.Spec.PriorityLevelConfiguration.Name]; ok {
			next.schemas = append(next.schemas, o.compile(s, l))
		}
	}
	slices.SortStableFunc(next.schemas, bySchemaPrecedence)
	o.plan.Store(next)
	if old != nil {
		o.metrics.forget(old, next)
	}
}

// press says that a level has more to do than seats for it.
func (o *Order) press() {
	select {
	case o.pressed <- struct{}{}:
	default:
	}
}
