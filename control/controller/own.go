package controller

import (
	"strconv"
	"sync"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/types"

	"github.com/sampan-dev/sampan/client"
	"github.com/sampan-dev/sampan/client/informer"
	"github.com/sampan-dev/sampan/reconcile"
)

// Own remembers, for each key, what was created and deleted on its behalf, so
// that nobody counts dependents in a mirror that does not show them yet and
// makes or removes too many. Creations are known by their revision, deletions by
// the object that has to go. It may be used from any goroutine.
type Own[T client.Object] struct {
	mirror *informer.Informer[T]

	mu   sync.Mutex
	keys map[reconcile.Key]*writes
}

type writes struct {
	created int64                       // greatest revision of a creation
	deleted map[reconcile.Key]types.UID // not yet seen to go
}

// NewOwn remembers writes to the objects of mirror.
func NewOwn[T client.Object](mirror *informer.Informer[T]) *Own[T] {
	return &Own[T]{mirror: mirror, keys: map[reconcile.Key]*writes{}}
}

// Created notes an object as the server returned it.
func (o *Own[T]) Created(key reconcile.Key, obj T) {
	rev, err := strconv.ParseInt(obj.GetResourceVersion(), 10, 64)
	if err != nil {
		return // no server that we know: without revisions nothing can be awaited
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	w := o.of(key)
	w.created = max(w.created, rev)
}

// Wrote notes a change to an object, as the server returned it.
func (o *Own[T]) Wrote(key reconcile.Key, obj T) { o.Created(key, obj) }

// Deleted notes that obj's deletion was accepted.
func (o *Own[T]) Deleted(key reconcile.Key, obj T) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.of(key).deleted[reconcile.Key{Namespace: obj.GetNamespace(), Name: obj.GetName()}] = obj.GetUID()
}

// Seen says whether the mirror shows everything that was written for key.
func (o *Own[T]) Seen(key reconcile.Key) bool {
	o.mu.Lock()
	defer o.mu.Unlock()
	w := o.keys[key]
	if w == nil {
		return true
	}
	for name, uid := range w.deleted {
		obj, ok := o.mirror.Get(name.Namespace, name.Name)
		if !ok || obj.GetUID() != uid || obj.GetDeletionTimestamp() != nil {
			delete(w.deleted, name)
		}
	}
	if len(w.deleted) > 0 || o.mirror.Revision() < w.created {
		return false
	}
	delete(o.keys, key)
	return true
}

// Forget drops what is known of a key that is gone.
func (o *Own[T]) Forget(key reconcile.Key) {
	o.mu.Lock()
	defer o.mu.Unlock()
	delete(o.keys, key)
}

func (o *Own[T]) of(key reconcile.Key) *writes {
	if o.keys[key] == nil {
		o.keys[key] = &writes{deleted: map[reconcile.Key]types.UID{}}
	}
	return o.keys[key]
}

// KeyOf names obj.
func KeyOf(obj client.Object) reconcile.Key {
	return reconcile.Key{Namespace: obj.GetNamespace(), Name: obj.GetName()}
}

// EnqueueOwner returns a subscriber that looks at the controllers of the given
// kind whenever something they control changes, and at the old one too when the
// controller has changed.
func EnqueueOwner[T client.Object](kind, group string, enqueue func(reconcile.Key)) func(informer.Event[T]) {
	return func(e informer.Event[T]) {
		var last reconcile.Key
		for _, obj := range []T{e.Old, e.New} {
			if any(obj) == any(*new(T)) {
				continue
			}
			ref := metav1.GetControllerOfNoCopy(obj)
			if ref == nil || ref.Kind != kind || groupOf(ref) != group {
				continue
			}
			key := reconcile.Key{Namespace: obj.GetNamespace(), Name: ref.Name}
			if key != last {
				enqueue(key)
			}
			last = key
		}
	}
}

// EnqueueAdopters returns a subscriber that looks at the owners that might adopt
// a pod which nobody controls. selector is asked of each owner in the pod's
// namespace; an error or an empty selector means that it adopts nothing.
func EnqueueAdopters[T client.Object](owners *informer.Informer[T], selector func(T) *metav1.LabelSelector, enqueue func(reconcile.Key)) func(informer.Event[*corev1.Pod]) {
	return func(e informer.Event[*corev1.Pod]) {
		pod := e.New
		if pod == nil || pod.DeletionTimestamp != nil || metav1.GetControllerOfNoCopy(pod) != nil || len(pod.Labels) == 0 {
			return
		}
		for _, owner := range owners.List() {
			if owner.GetNamespace() != pod.Namespace {
				continue
			}
			s, err := metav1.LabelSelectorAsSelector(selector(owner))
			if err == nil && !s.Empty() && s.Matches(labels.Set(pod.Labels)) {
				enqueue(KeyOf(owner))
			}
		}
	}
}

// Ready says whether a pod's Ready condition is true, and since when.
func Ready(pod *corev1.Pod) (bool, metav1.Time) {
	for i := range pod.Status.Conditions {
		if c := &pod.Status.Conditions[i]; c.Type == corev1.PodReady {
			return c.Status == corev1.ConditionTrue, c.LastTransitionTime
		}
	}
	return false, metav1.Time{}
}

// Active says whether a pod counts: it has not ended and is not being deleted.
func Active(pod *corev1.Pod) bool {
	return !Ended(pod) && pod.DeletionTimestamp == nil
}

// Ended says whether a pod has run to its end.
func Ended(pod *corev1.Pod) bool {
	return pod.Status.Phase == corev1.PodSucceeded || pod.Status.Phase == corev1.PodFailed
}
