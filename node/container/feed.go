package container

import (
	"context"
	"sync"
	"time"
)

// Exit is the end of a container.
type Exit struct {
	ID        string
	ExitCode  int
	OOMKilled bool
	At        time.Time
}

// feed gives every exit to every subscriber, in order. A subscriber's backlog is
// bounded by the number of containers on the node: each ends once.
type feed struct {
	mu     sync.Mutex
	subs   map[*subscriber]struct{}
	closed bool
}

type subscriber struct {
	queue []Exit // guarded by feed.mu
	more  chan struct{}
	over  bool
}

func (f *feed) publish(e Exit) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for s := range f.subs {
		s.queue = append(s.queue, e)
		s.wake()
	}
}

func (s *subscriber) wake() {
	select {
	case s.more <- struct{}{}:
	default:
	}
}

func (f *feed) close() {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.closed = true
	for s := range f.subs {
		s.over = true
		s.wake()
	}
}

func (f *feed) subscribe(ctx context.Context) <-chan Exit {
	out := make(chan Exit)
	s := &subscriber{more: make(chan struct{}, 1)}
	f.mu.Lock()
	if f.subs == nil {
		f.subs = map[*subscriber]struct{}{}
	}
	f.subs[s] = struct{}{}
	s.over = f.closed
	f.mu.Unlock()
	go func() {
		defer close(out)
		defer f.drop(s)
		for {
			batch, over := f.take(s)
			for _, e := range batch {
				select {
				case out <- e:
				case <-ctx.Done():
					return
				}
			}
			if over {
				return
			}
			select {
			case <-s.more:
			case <-ctx.Done():
				return
			}
		}
	}()
	return out
}

func (f *feed) take(s *subscriber) ([]Exit, bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	batch := s.queue
	s.queue = nil
	return batch, s.over
}

func (f *feed) drop(s *subscriber) {
	f.mu.Lock()
	defer f.mu.Unlock()
	delete(f.subs, s)
}
