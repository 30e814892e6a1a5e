package client

import (
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/sampan-dev/sampan/internal/scheme"
	"github.com/sampan-dev/sampan/internal/target"
)

// Limits of a Recorder. The bucket is upstream's spam filter
// (client-go/tools/record).
const (
	// maxQueued events wait to be sent; more are dropped: events are best effort.
	maxQueued = 1000
	// maxSeries events are remembered so that a repetition becomes a count.
	maxSeries = 4096
	// bucketSize events about one object may come at once …
	bucketSize = 25
	// … and one more after each bucketFill.
	bucketFill = 5 * time.Minute
	// sendTimeout bounds the writing of one event.
	sendTimeout = 10 * time.Second
	// maxMessage is the longest message that the API takes.
	maxMessage = 1024
)

// Recorder writes Kubernetes events about objects. Repetitions raise the count
// of the event that is there. It never blocks and never fails: when too much
// happens, events are lost. It may be used from any goroutine, and on a nil
// Recorder, where it does nothing. It holds a goroutine only while it has
// something to send.
type Recorder struct {
	transport Transport
	source    corev1.EventSource

	mu      sync.Mutex
	queue   []*corev1.Event
	sending bool
	series  map[seriesKey]*corev1.Event // touched by the sender only
	order   []seriesKey
	buckets map[types.UID]*bucket
	stamp   int64 // in the name of the last event
}

type seriesKey struct {
	object                     corev1.ObjectReference
	eventtype, reason, message string
}

type bucket struct {
	tokens float64
	at     time.Time
}

// NewRecorder makes a Recorder that signs its events as component on host; host
// is empty for components that do not belong to a node.
func NewRecorder(t Transport, component, host string) *Recorder {
	return &Recorder{
		transport: t,
		source:    corev1.EventSource{Component: component, Host: host},
		series:    map[seriesKey]*corev1.Event{},
		buckets:   map[types.UID]*bucket{},
	}
}

// Event tells what happened to obj: eventtype is corev1.EventTypeNormal or
// EventTypeWarning, reason one CamelCase word, message a sentence for a person.
func (r *Recorder) Event(obj Object, eventtype, reason, message string) {
	if r == nil {
		return
	}
	r.EventRef(Reference(obj), eventtype, reason, message)
}

// Eventf is Event with a format.
func (r *Recorder) Eventf(obj Object, eventtype, reason, format string, args ...any) {
	r.Event(obj, eventtype, reason, fmt.Sprintf(format, args...))
}

// EventRef is Event about an object of which only the reference is at hand, or
// about a part of it (ref.FieldPath).
func (r *Recorder) EventRef(ref corev1.ObjectReference, eventtype, reason, message string) {
	if r == nil {
		return
	}
	if len(message) > maxMessage {
		message = strings.ToValidUTF8(message[:maxMessage-3], "") + "..."
	}
	namespace := ref.Namespace
	if namespace == "" {
		namespace = metav1.NamespaceDefault
	}
	now := time.Now()
	e := &corev1.Event{
		ObjectMeta: metav1.ObjectMeta{
			Namespace: namespace,
		},
		InvolvedObject:      ref,
		Type:                eventtype,
		Reason:              reason,
		Message:             message,
		Source:              r.source,
		ReportingController: r.source.Component,
		ReportingInstance:   r.source.Host,
		FirstTimestamp:      metav1.NewTime(now),
		LastTimestamp:       metav1.NewTime(now),
		Count:               1,
	}
	r.enqueue(e, now)
}

// Reference names obj in the way events do. The kind is found by the Go type,
// since stored objects do not carry it.
func Reference(obj Object) corev1.ObjectReference {
	ref := corev1.ObjectReference{
		Namespace:       obj.GetNamespace(),
		Name:            obj.GetName(),
		UID:             obj.GetUID(),
		ResourceVersion: obj.GetResourceVersion(),
	}
	gvk := obj.GetObjectKind().GroupVersionKind()
	if known, _, err := scheme.Scheme().ObjectKinds(obj); gvk.Kind == "" && err == nil {
		gvk = known[0]
	}
	ref.APIVersion, ref.Kind = gvk.ToAPIVersionAndKind()
	return ref
}

func (r *Recorder) enqueue(e *corev1.Event, now time.Time) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if len(r.queue) >= maxQueued || !r.allow(e.InvolvedObject.UID, now) {
		return
	}
	r.name(e, now)
	r.queue = append(r.queue, e)
	if !r.sending {
		r.sending = true
		go r.send()
	}
}

// name gives e upstream's kind of name, the object's and the time; no two of this
// recorder are the same. The caller holds the lock.
func (r *Recorder) name(e *corev1.Event, now time.Time) {
	r.stamp = max(r.stamp+1, now.UnixNano())
	e.Name = fmt.Sprintf("%s.%x", e.InvolvedObject.Name, r.stamp)
}

// allow takes a token from the object's bucket. The caller holds the lock.
func (r *Recorder) allow(uid types.UID, now time.Time) bool {
	b := r.buckets[uid]
	if b == nil {
		if len(r.buckets) >= maxSeries {
			clear(r.buckets) // everybody starts anew: cheaper than finding the oldest
		}
		b = &bucket{tokens: bucketSize, at: now}
		r.buckets[uid] = b
	}
	b.tokens = min(bucketSize, b.tokens+now.Sub(b.at).Seconds()/bucketFill.Seconds())
	b.at = now
	if b.tokens < 1 {
		return false
	}
	b.tokens--
	return true
}

// send empties the queue and ends.
func (r *Recorder) send() {
	for {
		r.mu.Lock()
		if len(r.queue) == 0 {
			r.queue, r.sending = nil, false
			r.mu.Unlock()
			return
		}
		e := r.queue[0]
		r.queue = r.queue[1:]
		r.mu.Unlock()
		if err := r.write(e); err != nil {
			slog.Debug("event lost", "component", r.source.Component, "object", e.InvolvedObject.Name, "reason", e.Reason, "err", err)
		}
	}
}

// write stores e, or raises the count of the same event.
func (r *Recorder) write(e *corev1.Event) error {
	ctx, cancel := context.WithTimeout(context.Background(), sendTimeout)
	defer cancel()
	key := seriesKey{e.InvolvedObject, e.Type, e.Reason, e.Message}
	key.object.ResourceVersion = "" // the same thing happening to a later version is the same series
	if known := r.series[key]; known != nil {
		err := r.repeat(ctx, known, e.LastTimestamp)
		if !apierrors.IsNotFound(err) {
			return err
		}
	}
	made, err := Events.Create(ctx, r.transport, e)
	if apierrors.IsAlreadyExists(err) { // another component's, of the same moment
		r.mu.Lock()
		r.name(e, time.Now())
		r.mu.Unlock()
		made, err = Events.Create(ctx, r.transport, e)
	}
	if err != nil {
		return fmt.Errorf("create event %q: %w", e.Name, err)
	}
	r.remember(key, made)
	return nil
}

func (r *Recorder) repeat(ctx context.Context, known *corev1.Event, last metav1.Time) error {
	data, err := json.Marshal(map[string]any{"count": known.Count + 1, "lastTimestamp": last})
	if err != nil {
		return fmt.Errorf("encode event patch: %w", err)
	}
	at := target.Of(Events.GroupVersionResource, known.Namespace).Object(known.Name)
	made, err := Events.Patch(ctx, r.transport, at, Patch{Type: types.StrategicMergePatchType, Data: data})
	if err != nil {
		return err
	}
	known.Count, known.LastTimestamp = made.Count, made.LastTimestamp
	return nil
}

func (r *Recorder) remember(key seriesKey, e *corev1.Event) {
	if _, ok := r.series[key]; !ok {
		if len(r.order) >= maxSeries {
			delete(r.series, r.order[0])
			r.order = r.order[1:]
		}
		r.order = append(r.order, key)
	}
	// Only what repeat needs: the rest would be kept for nothing.
	r.series[key] = &corev1.Event{
		ObjectMeta:    metav1.ObjectMeta{Namespace: e.Namespace, Name: e.Name},
		Count:         e.Count,
		LastTimestamp: e.LastTimestamp,
	}
}
