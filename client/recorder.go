package client

import (
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/sampan-dev/sampan/internal/scheme"
	"github.com/sampan-dev/sampan/internal/target"
)

// Limits of a Recorder, beside those of its correlator.
const (
	// maxQueued series wait to be sent; what comes when there are as many is lost:
	// events are best effort.
	maxQueued = 1000
	// sendTimeout bounds the writing of one event.
	sendTimeout = 10 * time.Second
	// maxMessage is the longest message that the API takes.
	maxMessage = 1024
)

// Recorder writes Kubernetes events about objects, and as few as tell the story, by
// upstream's rules: a repetition raises the count of the event that is there; when
// one reason comes with ever new messages, the newest stands for all; and about one
// object only so much is told at a time. It never blocks and never fails: when too
// much happens events are lost, and one line in the log says how many. It may be
// used from any goroutine, and on a nil Recorder, where it does nothing. It holds a
// goroutine only while it has something to send.
type Recorder struct {
	transport Transport
	source    corev1.EventSource

	mu      sync.Mutex
	queue   []*series
	sending bool
	lost    int
	stamp   int64 // in the name of the last event
	correlator
}

// NewRecorder makes a Recorder that signs its events as component on host; host
// is empty for components that do not belong to a node.
func NewRecorder(t Transport, component, host string) *Recorder {
	return &Recorder{transport: t, source: corev1.EventSource{Component: component, Host: host}}
}

// Event tells what happened to obj: eventtype is corev1.EventTypeNormal or
// EventTypeWarning, reason one CamelCase word, message a sentence for a person.
func (r *Recorder) Event(obj Object, eventtype, reason, message string) {
	if r == nil {
		return
	}
	r.EventRef(Reference(obj), eventtype, reason, message)
}

// Annotated is Event with annotations, which may be nil.
func (r *Recorder) Annotated(obj Object, annotations map[string]string, eventtype, reason, message string) {
	if r != nil {
		r.record(Reference(obj), annotations, eventtype, reason, message)
	}
}

// Eventf is Event with a format.
func (r *Recorder) Eventf(obj Object, eventtype, reason, format string, args ...any) {
	r.Event(obj, eventtype, reason, fmt.Sprintf(format, args...))
}

// EventRef is Event about an object of which only the reference is at hand, or
// about a part of it (ref.FieldPath).
func (r *Recorder) EventRef(ref corev1.ObjectReference, eventtype, reason, message string) {
	if r != nil {
		r.record(ref, nil, eventtype, reason, message)
	}
}

func (r *Recorder) record(ref corev1.ObjectReference, annotations map[string]string, eventtype, reason, message string) {
	namespace := ref.Namespace
	if namespace == "" {
		namespace = metav1.NamespaceDefault
	}
	now := time.Now()
	e := &corev1.Event{
		ObjectMeta:          metav1.ObjectMeta{Namespace: namespace, Annotations: annotations},
		InvolvedObject:      ref,
		Type:                eventtype,
		Reason:              reason,
		Message:             clipped(message),
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
	s, tell := r.observe(e, now)
	if !tell || s.waiting {
		return // counted: what is told next knows of it
	}
	if len(r.queue) >= maxQueued {
		r.lost++
		return
	}
	s.waiting = true
	r.queue = append(r.queue, s)
	if !r.sending {
		r.sending = true
		go r.send()
	}
}

// name gives e a name that no other event of this recorder has. The caller holds
// the lock.
func (r *Recorder) name(e *corev1.Event) {
	r.stamp = max(r.stamp+1, time.Now().UnixNano())
	e.Name = nameOf(e, r.stamp)
}

// send empties the queue and ends.
func (r *Recorder) send() {
	for {
		s, e, lost := r.next()
		if lost > 0 {
			slog.Warn("events lost: more happened than could be told", "component", r.source.Component, "host", r.source.Host, "lost", lost)
		}
		if s == nil {
			return
		}
		if err := r.write(s, e); err != nil {
			slog.Debug("event lost", "component", r.source.Component, "object", e.InvolvedObject.Name, "reason", e.Reason, "err", err)
		}
	}
}

// next takes a series from the queue, with its event as it is now. When there is
// none the sender ends, and learns how many were lost meanwhile.
func (r *Recorder) next() (s *series, e *corev1.Event, lost int) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if len(r.queue) == 0 {
		lost, r.lost = r.lost, 0
		r.queue, r.sending = nil, false
		return nil, nil, lost
	}
	s = r.queue[0]
	r.queue = r.queue[1:]
	s.waiting = false
	if s.event.Name == "" {
		r.name(s.event)
	}
	e = s.event.DeepCopy()
	return s, e, 0
}

// write stores e, or tells the one that is stored what is new of it.
func (r *Recorder) write(s *series, e *corev1.Event) error {
	ctx, cancel := context.WithTimeout(context.Background(), sendTimeout)
	defer cancel()
	if s.stored { // the sender's own: there is one at a time
		err := r.repeat(ctx, e)
		if !apierrors.IsNotFound(err) {
			return err
		}
	}
	_, err := Events.Create(ctx, r.transport, e)
	if apierrors.IsAlreadyExists(err) { // another component's, of the same moment
		r.rename(s, e)
		_, err = Events.Create(ctx, r.transport, e)
	}
	if err != nil {
		return fmt.Errorf("create event %q: %w", e.Name, err)
	}
	s.stored = true
	return nil
}

func (r *Recorder) rename(s *series, e *corev1.Event) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.name(s.event)
	e.Name = s.event.Name
}

// repeat tells the stored event how often it has happened by now, and when last.
func (r *Recorder) repeat(ctx context.Context, e *corev1.Event) error {
	data, err := json.Marshal(changeOf(e))
	if err != nil {
		return fmt.Errorf("encode event patch: %w", err)
	}
	at := target.Of(Events.GroupVersionResource, e.Namespace).Object(e.Name)
	_, err = Events.Patch(ctx, r.transport, at, Patch{Type: types.StrategicMergePatchType, Data: data})
	return err
}
