package informer

import (
	"context"
	"fmt"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/watch"
)

// follow applies the watch from rev until it ends and returns the revision to
// go on from, or "" when that is gone and a list is needed.
func (i *Informer[T]) follow(ctx context.Context, rev string) (string, error) {
	opts := i.options()
	opts.ResourceVersion = rev
	opts.AllowWatchBookmarks = true
	w, err := i.resource.Watch(ctx, i.transport, i.opts.Namespace, opts)
	if err != nil {
		return resumable(rev, err)
	}
	defer w.Stop()
	for {
		select {
		case e, open := <-w.ResultChan():
			if !open {
				return rev, nil
			}
			next, err := i.apply(e)
			if err != nil {
				return resumable(rev, err)
			}
			rev = next
		case <-ctx.Done():
			return rev, nil
		}
	}
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
