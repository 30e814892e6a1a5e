// Package follow lists and watches kinds as the server itself, again and again, and
// keeps copies of their objects: what the server is configured with must be at hand
// for every request, and true a moment after it was written.
package follow

import (
	"context"
	"errors"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/watch"

	"github.com/sampan-dev/sampan/internal/target"
	"github.com/sampan-dev/sampan/kinds"
)

// readyWait is how long a write waits for the first list, as upstream.
const readyWait = 10 * time.Second

// ErrNotReady says that the first list has not come yet.
var ErrNotReady = errors.New("not yet ready to handle request")

// Watcher is the part of a transport that following needs.
type Watcher interface {
	List(ctx context.Context, t target.Target, opts metav1.ListOptions) (runtime.Object, error)
	Watch(ctx context.Context, t target.Target, opts metav1.ListOptions) (watch.Interface, error)
}

// Objects follows the objects of one kind, which are shared and read-only. Its
// methods may be called concurrently, Run once.
type Objects[T kinds.Object] struct {
	// Changed, if set before Run, is told of the objects whenever they are others
	// than before; it is Run's goroutine that calls it.
	Changed func(all []T)

	from   Watcher
	at     target.Target
	log    *slog.Logger
	synced chan struct{}

	items   map[string]T // owned by Run
	ordered atomic.Pointer[[]T]
	first   sync.Once
}

// New follows the kind at.
func New[T kinds.Object](from Watcher, at target.Target, log *slog.Logger) *Objects[T] {
	return &Objects[T]{from: from, at: at, log: log, synced: make(chan struct{})}
}

// Now returns the objects, ordered by name. The slice is the same as long as
// nothing changes. It waits for the first list, at most readyWait.
func (o *Objects[T]) Now(ctx context.Context) (*[]T, error) {
	if now := o.ordered.Load(); now != nil {
		return now, nil
	}
	ctx, cancel := context.WithTimeout(ctx, readyWait)
	defer cancel()
	select {
	case <-o.synced:
		return o.ordered.Load(), nil
	case <-ctx.Done():
		return nil, ErrNotReady
	}
}

// Run follows until ctx ends.
func (o *Objects[T]) Run(ctx context.Context) error {
	return Each(ctx, Source{o.from, o.at, o.log}, func(all []T) {
		o.items = make(map[string]T, len(all))
		for _, item := range all {
			o.items[item.GetName()] = item
		}
		o.publish()
	}, func(e watch.EventType, item T) {
		if e == watch.Deleted {
			delete(o.items, item.GetName())
		} else {
			o.items[item.GetName()] = item
		}
		o.publish()
	})
}

func (o *Objects[T]) publish() {
	all := make([]T, 0, len(o.items))
	for _, item := range o.items {
		all = append(all, item)
	}
	slices.SortFunc(all, func(a, b T) int { return strings.Compare(a.GetName(), b.GetName()) })
	o.ordered.Store(&all)
	o.first.Do(func() { close(o.synced) })
	if o.Changed != nil {
		o.Changed(all)
	}
}
