package aggregate

import (
	"context"
	"fmt"
	"time"

	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/watch"

	"github.com/sampan-dev/sampan/internal/target"
)

// followAgain is how long a broken watch waits before it lists anew.
const followAgain = time.Second

// follow tells of a complete list and then of each change, again and again, until
// ctx ends; both functions are called from this goroutine.
func follow[T runtime.Object](ctx context.Context, cfg Config, at target.Target, replace func([]T), apply func(watch.EventType, T)) error {
	for {
		err := followOnce(ctx, cfg, at, replace, apply)
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		cfg.Log.Debug("follow for aggregation", "resource", at.String(), "error", err)
		timer := time.NewTimer(followAgain)
		select {
		case <-timer.C:
		case <-ctx.Done():
			timer.Stop()
			return context.Cause(ctx)
		}
	}
}

func followOnce[T runtime.Object](ctx context.Context, cfg Config, at target.Target, replace func([]T), apply func(watch.EventType, T)) error {
	list, err := cfg.Objects.List(ctx, at, metav1.ListOptions{})
	if err != nil {
		return fmt.Errorf("list %s: %w", at, err)
	}
	accessor, err := meta.ListAccessor(list)
	if err != nil {
		return fmt.Errorf("list %s: %w", at, err)
	}
	var items []T
	err = meta.EachListItem(list, func(obj runtime.Object) error {
		item, ok := obj.(T)
		if !ok {
			return fmt.Errorf("list of %s holds a %T", at, obj)
		}
		items = append(items, item)
		return nil
	})
	if err != nil {
		return err
	}
	replace(items)
	w, err := cfg.Objects.Watch(ctx, at, metav1.ListOptions{ResourceVersion: accessor.GetResourceVersion(), AllowWatchBookmarks: true})
	if err != nil {
		return fmt.Errorf("watch %s: %w", at, err)
	}
	defer w.Stop()
	for {
		select {
		case e, ok := <-w.ResultChan():
			if !ok {
				return errEnded
			}
			if e.Type == watch.Bookmark {
				continue
			}
			item, ok := e.Object.(T)
			if !ok {
				return fmt.Errorf("watch event %s of %s with a %T", e.Type, at, e.Object)
			}
			apply(e.Type, item)
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}
