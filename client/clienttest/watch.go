package clienttest

import (
	"context"
	"maps"
	"slices"
	"strconv"
	"sync"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/watch"

	"github.com/sampan-dev/sampan/client"
	"github.com/sampan-dev/sampan/internal/scheme"
	"github.com/sampan-dev/sampan/internal/target"
)

// stream is one watch: a goroutine that walks the history.
type stream struct {
	events chan watch.Event
	stop   chan struct{}
	hangUp chan struct{}
	once   sync.Once
}

// ResultChan implements watch.Interface.
func (s *stream) ResultChan() <-chan watch.Event { return s.events }

// Stop implements watch.Interface.
func (s *stream) Stop() { s.once.Do(func() { close(s.stop) }) }

// Watch implements client.Transport. History is kept from the start, or from the
// last Compact.
func (m *Memory) Watch(ctx context.Context, t target.Target, opts metav1.ListOptions) (watch.Interface, error) {
	if err := m.begin("watch", t); err != nil {
		return nil, err
	}
	match, err := matcher(t.Namespace, opts)
	if err != nil {
		return nil, err
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	after := m.rev
	if opts.ResourceVersion != "" {
		if after, err = strconv.ParseInt(opts.ResourceVersion, 10, 64); err != nil {
			return nil, apierrors.NewBadRequest("invalid resource version")
		}
	}
	if len(m.history) > 0 && after < m.history[0].rev-1 {
		return nil, apierrors.NewResourceExpired("too old resource version")
	}
	s := &stream{events: make(chan watch.Event), stop: make(chan struct{}), hangUp: m.hangUp}
	var initial []watch.Event
	if opts.SendInitialEvents != nil && *opts.SendInitialEvents {
		if initial, err = m.initial(t.Resource, match); err != nil {
			return nil, err
		}
		after = m.rev
	}
	go m.stream(ctx, s, initial, func() (due []watch.Event, changed chan struct{}) {
		due, changed, after = m.due(t.Resource.GroupResource(), after, match)
		return due, changed
	})
	return s, nil
}

// Compact forgets all history but the last change: a watch from before it fails
// with 410, as after a compaction of the store.
func (m *Memory) Compact() {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.history = m.history[max(0, len(m.history)-1):]
}

// HangUp ends every watch that is open, as a server does that restarts.
func (m *Memory) HangUp() {
	m.mu.Lock()
	defer m.mu.Unlock()
	close(m.hangUp)
	m.hangUp = make(chan struct{})
}

// initial is the present state as events, and the bookmark that ends it. The
// caller holds the lock.
func (m *Memory) initial(r schema.GroupVersionResource, match func(client.Object) bool) ([]watch.Event, error) {
	var events []watch.Event
	for _, k := range slices.Sorted(maps.Keys(m.objects[r.GroupResource()])) {
		if obj := m.objects[r.GroupResource()][k]; match(obj) {
			events = append(events, watch.Event{Type: watch.Added, Object: obj})
		}
	}
	end, err := scheme.Scheme().New(m.kinds[r])
	if err != nil {
		return nil, apierrors.NewNotFound(r.GroupResource(), "")
	}
	end.(client.Object).SetResourceVersion(strconv.FormatInt(m.rev, 10))
	end.(client.Object).SetAnnotations(map[string]string{metav1.InitialEventsAnnotationKey: "true"})
	return append(events, watch.Event{Type: watch.Bookmark, Object: end}), nil
}

// due are the changes of a kind after a revision, and what closes at the next.
func (m *Memory) due(r schema.GroupResource, after int64, match func(client.Object) bool) ([]watch.Event, chan struct{}, int64) {
	m.mu.Lock()
	defer m.mu.Unlock()
	var events []watch.Event
	for _, c := range m.history {
		if c.rev <= after {
			continue
		}
		after = c.rev
		if c.resource != r {
			continue
		}
		if e, ok := c.seen(match); ok {
			events = append(events, e)
		}
	}
	return events, m.changed, after
}

// stream sends events and then what next finds, each time that something changes.
func (m *Memory) stream(ctx context.Context, s *stream, events []watch.Event, next func() ([]watch.Event, chan struct{})) {
	defer close(s.events)
	for {
		due, changed := next()
		for _, e := range append(events, due...) {
			select {
			case s.events <- e:
			case <-s.stop:
				return
			case <-s.hangUp:
				return
			case <-ctx.Done():
				return
			}
		}
		events = nil
		select {
		case <-changed:
		case <-s.hangUp:
			return
		case <-s.stop:
			return
		case <-ctx.Done():
			return
		}
	}
}

// seen is the change as a watcher with a selection sees it: an object that
// starts to match is added, one that ceases to is deleted.
func (c change) seen(match func(client.Object) bool) (watch.Event, bool) {
	was := c.old != nil && match(c.old)
	is := c.kind != watch.Deleted && match(c.obj)
	switch {
	case is && !was:
		return watch.Event{Type: watch.Added, Object: c.obj}, true
	case is:
		return watch.Event{Type: watch.Modified, Object: c.obj}, true
	case was:
		return watch.Event{Type: watch.Deleted, Object: c.obj}, true
	}
	return watch.Event{}, false
}
