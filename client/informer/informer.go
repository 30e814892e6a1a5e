// Package informer keeps a local mirror of one kind: it lists, watches, resumes
// where it left off, and tells subscribers what changed. A mirror lags behind
// the server by the time of one event; whoever decides from it writes with
// preconditions.
package informer

import (
	"context"
	"log/slog"
	"strconv"
	"sync/atomic"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/sampan-dev/sampan/client"
	"github.com/sampan-dev/sampan/internal/backoff"
)

// Retry delays after a list or watch that failed.
const (
	retryMin = 200 * time.Millisecond
	retryMax = 30 * time.Second
	// healthy is how long a watch must have lasted for its end to count as the
	// server's normal hanging up, which needs no delay.
	healthy = 5 * time.Second
)

// Options narrow what is mirrored. The zero value mirrors everything.
type Options struct {
	Namespace     string
	LabelSelector string
	FieldSelector string
	// Strip, when set, makes of each object what is kept of it: less, or another
	// type that the informer's type parameter allows. Name, namespace, uid and
	// resourceVersion must survive it.
	Strip func(client.Object) client.Object
	// Log defaults to slog.Default().
	Log *slog.Logger
}

// Event is one change. Old is nil when the object was added, New when it was
// deleted. After a gap in the watch several changes may arrive as one.
type Event[T client.Object] struct{ Old, New T }

// Object is the object that the event is about in its last known state.
func (e Event[T]) Object() T {
	if any(e.New) == any(*new(T)) {
		return e.Old
	}
	return e.New
}

// Informer mirrors one kind. AddIndex and Subscribe come before Run; the reading
// methods may be called from any goroutine at any time.
type Informer[T client.Object] struct {
	transport client.Transport
	resource  client.Resource[T]
	opts      Options
	log       *slog.Logger
	retry     backoff.Policy

	mirror      mirror[T]
	revision    atomic.Int64
	subscribers []func(Event[T])
	synced      chan struct{}
	// Only Run's goroutine looks at these.
	done  bool // synced is closed
	plain bool // the server does not stream its initial state: list it
}

// New makes an Informer of r's objects; nothing happens until Run.
func New[T client.Object](t client.Transport, r client.Resource[T], opts Options) *Informer[T] {
	if opts.Log == nil {
		opts.Log = slog.Default()
	}
	return &Informer[T]{
		transport: t,
		resource:  r,
		opts:      opts,
		log:       opts.Log.With("informer", r.GroupResource().String()),
		retry:     backoff.Policy{Min: retryMin, Max: retryMax, Jitter: 0.5},
		mirror:    newMirror[T](),
		synced:    make(chan struct{}),
	}
}

// AddIndex makes ByIndex answer for name: values gives the values under which an
// object is found. Before Run only.
func (i *Informer[T]) AddIndex(name string, values func(T) []string) {
	i.mirror.addIndex(name, values)
}

// Subscribe has fn called for every change, in order, from the informer's own
// goroutine, after the mirror shows the change. fn must not block. The objects
// of the first list arrive as added, before Synced closes. Before Run only.
func (i *Informer[T]) Subscribe(fn func(Event[T])) {
	i.subscribers = append(i.subscribers, fn)
}

// Synced closes when the first list is in the mirror and the subscribers have
// been told of it.
func (i *Informer[T]) Synced() <-chan struct{} { return i.synced }

// Resource is the kind that is mirrored.
func (i *Informer[T]) Resource() client.Resource[T] { return i.resource }

// Get returns the named object, shared and read-only.
func (i *Informer[T]) Get(namespace, name string) (T, bool) {
	return i.mirror.get(key{namespace, name})
}

// List returns all objects by namespace and name, shared and read-only.
func (i *Informer[T]) List() []T { return i.mirror.list() }

// Len is how many objects List has.
func (i *Informer[T]) Len() int { return i.mirror.size() }

// ByIndex returns the objects that the index has under value, by namespace and
// name, shared and read-only. It panics when there is no such index.
func (i *Informer[T]) ByIndex(name, value string) []T { return i.mirror.byIndex(name, value) }

// Revision is the resourceVersion up to which the mirror is complete, as a number;
// 0 before the first list. An object that was written at a revision no greater
// than this is in the mirror, or has been there and gone.
func (i *Informer[T]) Revision() int64 { return i.revision.Load() }

// reached notes that everything up to rev is in the mirror. A revision that is
// no number (no Kubernetes server sends one) leaves it as it was.
func (i *Informer[T]) reached(rev string) {
	if n, err := strconv.ParseInt(rev, 10, 64); err == nil {
		i.revision.Store(n)
	}
}

// Run mirrors until ctx ends. Errors of the server are retried for ever.
func (i *Informer[T]) Run(ctx context.Context) error {
	rev, failures := "", 0
	for ctx.Err() == nil {
		began := time.Now()
		var err error
		if rev == "" && i.plain {
			rev, err = i.relist(ctx)
		}
		if err == nil {
			rev, err = i.follow(ctx, rev)
		}
		if ctx.Err() != nil {
			break
		}
		if time.Since(began) >= healthy {
			failures = 0
		}
		if err == nil && failures == 0 && time.Since(began) >= healthy {
			continue
		}
		failures++
		delay := i.retry.After(failures)
		sleep(ctx, delay)
		if err != nil && ctx.Err() == nil { // told late, since at the end of everything watches fail first
			i.log.Warn("watch failed", "after", delay.Round(time.Millisecond), "failures", failures, "err", err)
		}
	}
	return context.Cause(ctx)
}

// relist replaces the mirror by what the server has now and reports the
// differences.
func (i *Informer[T]) relist(ctx context.Context) (string, error) {
	objects, rev, err := i.resource.List(ctx, i.transport, i.opts.Namespace, i.options())
	if err != nil {
		return "", err
	}
	for n := range objects {
		objects[n] = i.strip(objects[n])
	}
	i.replace(objects, rev)
	return rev, nil
}

// replace makes the mirror what objects are at rev.
func (i *Informer[T]) replace(objects []T, rev string) {
	events := i.mirror.replace(objects)
	i.reached(rev)
	for _, e := range events {
		i.tell(e)
	}
	if !i.done {
		i.done = true
		close(i.synced)
	}
}

func (i *Informer[T]) strip(obj T) T {
	if i.opts.Strip == nil {
		return obj
	}
	return i.opts.Strip(obj).(T)
}

func (i *Informer[T]) options() metav1.ListOptions {
	return metav1.ListOptions{LabelSelector: i.opts.LabelSelector, FieldSelector: i.opts.FieldSelector}
}

func (i *Informer[T]) tell(e Event[T]) {
	for _, fn := range i.subscribers {
		fn(e)
	}
}

func sleep(ctx context.Context, d time.Duration) {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
	case <-ctx.Done():
	}
}
