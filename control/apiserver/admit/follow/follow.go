// Package follow keeps a copy of one kind's objects by listing and watching it as
// the server itself: what admission is configured with must be at hand for every
// write, and true a moment after it was written.
package follow

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/watch"

	"github.com/sampan-dev/sampan/internal/target"
	"github.com/sampan-dev/sampan/kinds"
)

const (
	// again is how long a broken watch waits before it lists anew.
	again = time.Second
	// readyWait is how long a write waits for the first list, as upstream.
	readyWait = 10 * time.Second
)

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
	for {
		err := o.once(ctx)
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		o.log.Warn("follow admission's configuration", "resource", o.at.Resource.Resource, "error", err)
		timer := time.NewTimer(again)
		select {
		case <-timer.C:
		case <-ctx.Done():
			timer.Stop()
			return context.Cause(ctx)
		}
	}
}

func (o *Objects[T]) once(ctx context.Context) error {
	list, err := o.from.List(ctx, o.at, metav1.ListOptions{})
	if err != nil {
		return err
	}
	accessor, err := meta.ListAccessor(list)
	if err != nil {
		return err
	}
	o.items = map[string]T{}
	err = meta.EachListItem(list, func(obj runtime.Object) error {
		item, ok := obj.(T)
		if !ok {
			return fmt.Errorf("list of %s holds a %T", o.at, obj)
		}
		o.items[item.GetName()] = item
		return nil
	})
	if err != nil {
		return err
	}
	o.publish()
	w, err := o.from.Watch(ctx, o.at, metav1.ListOptions{ResourceVersion: accessor.GetResourceVersion(), AllowWatchBookmarks: true})
	if err != nil {
		return err
	}
	defer w.Stop()
	for {
		select {
		case e, ok := <-w.ResultChan():
			if !ok {
				return errors.New("watch ended")
			}
			if err := o.apply(e); err != nil {
				return err
			}
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}

func (o *Objects[T]) apply(e watch.Event) error {
	if e.Type == watch.Bookmark {
		return nil
	}
	item, ok := e.Object.(T)
	if !ok {
		return fmt.Errorf("watch event %s with a %T", e.Type, e.Object)
	}
	if e.Type == watch.Deleted {
		delete(o.items, item.GetName())
	} else {
		o.items[item.GetName()] = item
	}
	o.publish()
	return nil
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
