package clienttest

import (
	"context"
	"strconv"
	"sync"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/watch"

	"github.com/sampan-dev/sampan/client"
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
	go m.stream(ctx, s, t.Resource.GroupResource(), after, match)
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

func (m *Memory) stream(ctx context.Context, s *stream, r schema.GroupResource, after int64, match func(client.Object) bool) {
	defer close(s.events)
	for {
		m.mu.Lock()
		changed := m.changed
		var due []watch.Event
		for _, c := range m.history {
			if c.rev <= after {
				continue
			}
			after = c.rev
			if c.resource != r {
				continue
			}
			if e, ok := c.seen(match); ok {
				due = append(due, e)
			}
		}
		m.mu.Unlock()
		for _, e := range due {
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
