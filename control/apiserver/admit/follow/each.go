package follow

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/watch"

	"github.com/sampan-dev/sampan/internal/target"
)

// again is how long a broken watch waits before it lists anew.
const again = time.Second

// Source is what is followed, and who hears of what goes wrong with it.
type Source struct {
	From Watcher
	At   target.Target
	Log  *slog.Logger
}

// Each tells of a complete list and then of each change, anew whenever the watch
// breaks, until ctx ends; both functions are called from this goroutine. The objects
// are shared and read-only.
func Each[T runtime.Object](ctx context.Context, s Source, replace func([]T), apply func(watch.EventType, T)) error {
	for {
		err := once(ctx, s, replace, apply)
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		s.Log.Warn("follow", "resource", s.At.Resource.Resource, "error", err)
		timer := time.NewTimer(again)
		select {
		case <-timer.C:
		case <-ctx.Done():
			timer.Stop()
			return context.Cause(ctx)
		}
	}
}

func once[T runtime.Object](ctx context.Context, s Source, replace func([]T), apply func(watch.EventType, T)) error {
	list, err := s.From.List(ctx, s.At, metav1.ListOptions{})
	if err != nil {
		return err
	}
	accessor, err := meta.ListAccessor(list)
	if err != nil {
		return err
	}
	var items []T
	err = meta.EachListItem(list, func(obj runtime.Object) error {
		item, ok := obj.(T)
		if !ok {
			return fmt.Errorf("list of %s holds a %T", s.At, obj)
		}
		items = append(items, item)
		return nil
	})
	if err != nil {
		return err
	}
	replace(items)
	w, err := s.From.Watch(ctx, s.At, metav1.ListOptions{ResourceVersion: accessor.GetResourceVersion(), AllowWatchBookmarks: true})
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
			if e.Type == watch.Bookmark {
				continue
			}
			item, ok := e.Object.(T)
			if !ok {
				return fmt.Errorf("watch event %s of %s with a %T", e.Type, s.At, e.Object)
			}
			apply(e.Type, item)
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}
