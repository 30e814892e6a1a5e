package resource

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/http"
	"sync"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/selection"
	"k8s.io/apimachinery/pkg/watch"

	"github.com/sampan-dev/sampan/control/apiserver/cache"
	"github.com/sampan-dev/sampan/control/store"
)

// defaultWatchTime is the least a watch lasts that asks for no time; the most is
// twice that, so that clients do not all come back at once.
const defaultWatchTime = 30 * time.Minute

// stream is one watch: batches of events until the time is up, the watcher falls
// too far behind, or somebody stops it.
type stream struct {
	call      *call
	watcher   *cache.Watcher // nil when failed is set
	after     int64          // the revision that the watcher begins after
	failed    error          // told as the only event
	bookmarks bool
	// initial says that the client wants to know when the initial state is over.
	initial bool
	lasts   time.Duration
	ctx     context.Context // ends when the time is up
	cancel  context.CancelFunc
	once    sync.Once
}

// watch follows a collection, or one object, from a revision on.
func (c *call) watch(ctx context.Context) (*answer, error) {
	opts := &c.req.List
	// The old form of a watch has it in its path, and its options are held to be a list's.
	if err := checkListOptions(opts, opts.Watch || !c.req.wire); err != nil {
		return nil, err
	}
	sel, err := c.selector()
	if err != nil {
		return nil, err
	}
	revision, err := parseRevision(opts.ResourceVersion)
	if err != nil {
		return nil, err
	}
	if c.server.watches.Add(1) > MaxWatches {
		c.server.watches.Add(-1)
		return nil, apierrors.NewTooManyRequests("too many watches, please try again later", 1)
	}
	s := &stream{
		call:      c,
		bookmarks: opts.AllowWatchBookmarks,
		initial:   opts.AllowWatchBookmarks && wantsEnd(opts),
	}
	s.lasts = watchTime(opts.TimeoutSeconds)
	if err := s.start(ctx, sel, revision); err != nil {
		c.server.watches.Add(-1)
		return nil, c.failed(err)
	}
	s.ctx, s.cancel = context.WithTimeout(ctx, s.lasts)
	return &answer{code: http.StatusOK, stream: s}, nil
}

// wantsEnd says that the client may want to know when it has seen what there is: it says
// so, or says nothing and begins anywhere, which since WatchList means the same.
func wantsEnd(o *metav1.ListOptions) bool {
	if o.SendInitialEvents != nil {
		return *o.SendInitialEvents
	}
	return o.Watch && o.ResourceVersionMatch == "" && (o.ResourceVersion == "" || o.ResourceVersion == "0")
}

func watchTime(seconds *int64) time.Duration {
	if seconds != nil && *seconds > 0 {
		return time.Duration(*seconds) * time.Second
	}
	return defaultWatchTime + rand.N(defaultWatchTime)
}

// start opens the cache's watcher. Errors that depend on history become the
// stream's only event, as upstream tells them.
func (s *stream) start(ctx context.Context, sel selector, revision int64) error {
	opts := &s.call.req.List
	mirror, err := s.call.storage.live(ctx)
	if err != nil {
		return err
	}
	send := opts.SendInitialEvents
	initial := revision == 0 && send == nil || send != nil && *send
	switch {
	case opts.ResourceVersion == "" || send != nil && !*send && revision == 0:
		snap, err := mirror.Fresh(ctx)
		if err != nil {
			return err
		}
		if revision == 0 && !initial {
			revision = snap.Revision()
		}
	case initial && revision > 0:
		if err := waitFor(ctx, mirror, revision); err != nil {
			s.failed = err
			return nil
		}
	}
	w, err := mirror.Watch(cache.WatchOptions{
		After:     revision,
		Initial:   initial,
		Namespace: s.call.req.Target.Namespace,
		Match:     s.match(sel),
		Exact:     s.exact(sel),
		Bookmarks: s.bookmarks,
		Lasts:     s.lasts,
		Paced:     s.call.req.wire,
	})
	s.watcher, s.after = w, revision
	return err
}

// exact is a field of which the selector wants one value, for watches of which there
// may be thousands: those of other processes.
func (s *stream) exact(sel selector) cache.Exact {
	if !s.call.req.wire {
		return cache.Exact{}
	}
	for _, want := range sel.fields.Requirements() {
		if want.Operator != selection.Equals && want.Operator != selection.DoubleEquals {
			continue
		}
		if want.Field == cache.NameField || s.call.kind.View == nil {
			return cache.Exact{Field: want.Field, Value: want.Value}
		}
	}
	return cache.Exact{}
}

func (s *stream) match(sel selector) func(*cache.Entry) bool {
	if sel.all() {
		return nil
	}
	return func(e *cache.Entry) bool {
		ok, err := s.call.chosen(sel, e)
		return ok && err == nil
	}
}

// close frees the stream. It may be called more than once.
func (s *stream) close() {
	s.once.Do(func() {
		s.call.server.watches.Add(-1)
		s.cancel()
		if s.watcher != nil {
			s.watcher.Stop()
		}
	})
}

// each calls f with every batch until the stream ends or f fails; fault, when the
// stream ends for a reason that the client must know.
func (s *stream) each(f func([]cache.Event) error, fault func(metav1.Status) error) error {
	defer s.close()
	if s.failed != nil {
		return fault(statusOf(s.failed))
	}
	for {
		select {
		case batch, ok := <-s.watcher.C():
			if !ok {
				return s.ended(fault)
			}
			if err := f(batch); err != nil {
				var hidden *unshown
				if errors.As(err, &hidden) {
					return fault(statusOf(interpret(hidden.cause, s.call.gr(), "")))
				}
				return err
			}
			told(s.ctx, batch)
		case <-s.ctx.Done():
			return nil
		case <-s.call.server.ctx.Done():
			return nil
		}
	}
}

// ended tells a client to list again when nobody remembers what happened since
// the revision that it asked for, and what could not be decoded for it. Other ends
// are silent: the client goes on from the last thing it saw.
func (s *stream) ended(fault func(metav1.Status) error) error {
	var told apierrors.APIStatus
	if errors.As(s.watcher.Err(), &told) {
		return fault(statusOf(s.watcher.Err()))
	}
	if !errors.Is(s.watcher.Err(), store.ErrCompacted) {
		return nil
	}
	return fault(statusOf(apierrors.NewResourceExpired(fmt.Sprintf(
		"too old resource version: %d (%d)", s.after, s.current()))))
}

// current is the revision that the collection is at.
func (s *stream) current() int64 {
	if mirror := s.call.storage.running(); mirror != nil {
		return mirror.Revision()
	}
	return 0
}

// wanted says whether the client is to see the event.
func (s *stream) wanted(e cache.Event) bool {
	switch e.Type {
	case cache.InitialDone:
		return s.initial
	case cache.Bookmark:
		return s.bookmarks
	}
	return true
}

// bookmark makes the object of a bookmark: nothing but kind and revision, and for
// the end of the initial state upstream's annotation.
func (c *call) bookmark(e cache.Event) runtime.Object {
	obj := c.kind.New()
	obj.GetObjectKind().SetGroupVersionKind(c.kind.GVK)
	setRevision(obj, e.Revision)
	if e.Type == cache.InitialDone {
		obj.SetAnnotations(map[string]string{metav1.InitialEventsAnnotationKey: "true"})
	}
	return obj
}

// local is a stream as watch.Interface, for clients in the same process.
type local struct {
	stream *stream
	events chan watch.Event
	stop   chan struct{}
	once   sync.Once
}

// localAhead is how many events a reader in the same process may be behind before it is
// waited for. Without it the two goroutines would take turns for each event of a batch.
const localAhead = 64

func newLocalWatch(s *stream) *local {
	l := &local{stream: s, events: make(chan watch.Event, localAhead), stop: make(chan struct{})}
	s.call.server.wg.Go(l.run)
	return l
}

func (l *local) ResultChan() <-chan watch.Event { return l.events }

func (l *local) Stop() { l.once.Do(func() { close(l.stop); l.stream.cancel() }) }

var errStopped = errors.New("watch stopped")

func (l *local) run() {
	defer close(l.events)
	_ = l.stream.each(l.forward, func(status metav1.Status) error {
		return l.send(watch.Event{Type: watch.Error, Object: &status})
	}) // the only error is that the reader has stopped
}

func (l *local) forward(batch []cache.Event) error {
	for _, e := range batch {
		if !l.stream.wanted(e) {
			continue
		}
		out := watch.Event{Type: watch.EventType(e.Type.String())}
		if e.Entry == nil {
			out.Object = l.stream.call.bookmark(e)
		} else if obj := (item{e.Entry}).object(l.stream.call.collection); obj != nil {
			out.Object = obj
		} else {
			_, err := e.Entry.Decode()
			return &unshown{err}
		}
		if err := l.send(out); err != nil {
			return err
		}
	}
	return nil
}

func (l *local) send(e watch.Event) error {
	select {
	case l.events <- e: // there is room, mostly
		return nil
	default:
	}
	select {
	case l.events <- e:
		return nil
	case <-l.stop:
		return errStopped
	case <-l.stream.ctx.Done():
		return errStopped
	case <-l.stream.call.server.ctx.Done():
		return errStopped
	}
}
