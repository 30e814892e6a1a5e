package informer

import (
	"context"
	"fmt"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/watch"
)

// follow applies the watch from rev until it ends and returns the revision to
// go on from, or "" when that is gone and everything has to be seen anew. From
// "" the server is asked to stream its state first: in the same process that
// shares the very objects that the API server holds.
func (i *Informer[T]) follow(ctx context.Context, rev string) (string, error) {
	opts := i.options()
	opts.ResourceVersion = rev
	opts.AllowWatchBookmarks = true
	if rev == "" {
		yes := true
		opts.SendInitialEvents = &yes
		opts.ResourceVersionMatch = metav1.ResourceVersionMatchNotOlderThan
	}
	w, err := i.resource.Watch(ctx, i.transport, i.opts.Namespace, opts)
	if err != nil {
		if rev == "" && apierrors.IsInvalid(err) {
			i.plain = true // a server from before WatchList
			return "", nil
		}
		return resumable(rev, err)
	}
	defer w.Stop()
	var state []T // what the server had at the start, until it says that this was all
	for {
		select {
		case e, open := <-w.ResultChan():
			if !open {
				return rev, nil
			}
			var next string
			if rev == "" {
				state, next, err = i.collect(state, e)
			} else {
				next, err = i.apply(e)
			}
			if err != nil {
				return resumable(rev, err)
			}
			rev = next
		case <-ctx.Done():
			return rev, nil
		}
	}
}

// collect takes in one event of the initial state. With the bookmark that ends
// it the mirror is replaced, and its revision returned.
func (i *Informer[T]) collect(state []T, e watch.Event) ([]T, string, error) {
	if e.Type == watch.Error {
		return nil, "", apierrors.FromObject(e.Object)
	}
	obj, ok := e.Object.(T)
	if !ok {
		return nil, "", fmt.Errorf("watch %s: got %T", i.resource.GroupResource(), e.Object)
	}
	switch {
	case e.Type == watch.Added:
		return append(state, i.strip(obj)), "", nil
	case e.Type == watch.Bookmark && obj.GetAnnotations()[metav1.InitialEventsAnnotationKey] == "true":
		i.replace(state, obj.GetResourceVersion())
		return nil, obj.GetResourceVersion(), nil
	case e.Type == watch.Bookmark:
		return state, "", nil
	}
	return nil, "", fmt.Errorf("watch %s: %s before the end of the initial state", i.resource.GroupResource(), e.Type)
}

// resumable decides whether a watch may go on from rev after err. A revision
// that is too old, or unknown because the server was restored from a backup,
// needs a list.
func resumable(rev string, err error) (string, error) {
	switch {
	case apierrors.IsResourceExpired(err), apierrors.IsGone(err):
		return "", nil
	case apierrors.IsBadRequest(err), apierrors.IsInvalid(err):
		return "", err
	case apierrors.HasStatusCause(err, "ResourceVersionTooLarge"):
		return "", err
	}
	return rev, err
}

// apply takes in one event and returns its revision.
func (i *Informer[T]) apply(e watch.Event) (string, error) {
	if e.Type == watch.Error {
		return "", apierrors.FromObject(e.Object)
	}
	obj, ok := e.Object.(T)
	if !ok {
		return "", fmt.Errorf("watch %s: got %T", i.resource.GroupResource(), e.Object)
	}
	rev := obj.GetResourceVersion()
	obj = i.strip(obj)
	switch e.Type {
	case watch.Added, watch.Modified:
		change := i.mirror.put(obj)
		i.reached(rev)
		i.tell(change)
	case watch.Deleted:
		gone, known := i.mirror.remove(obj)
		i.reached(rev)
		if known {
			i.tell(gone)
		}
	case watch.Bookmark:
		i.reached(rev)
	default:
		return "", fmt.Errorf("watch %s: unknown event type %q", i.resource.GroupResource(), e.Type)
	}
	return rev, nil
}
