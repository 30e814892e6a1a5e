package client

import (
	"fmt"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"

	"github.com/sampan-dev/sampan/internal/scheme"
)

// maxMessage is the longest message that the API takes.
const maxMessage = 1024

// Recorder writes Kubernetes events about objects, and as few as tell the story, by
// upstream's rules: a repetition raises the count of the event that is there; when
// one reason comes with ever new messages, the newest stands for all; and about one
// object only so much is told at a time. It never blocks and never fails: while the
// server has trouble it waits, and when too much happens events are lost, and a line
// in the log says how many. It may be used from any goroutine, and on a nil Recorder,
// where it does nothing. It holds goroutines only while it has something to send, and
// at most four.
type Recorder struct {
	transport Transport
	source    corev1.EventSource

	mu   sync.Mutex
	post post
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
		r.record(&happening{about: Reference(obj), annotations: annotations, eventtype: eventtype, reason: reason, message: message})
	}
}

// Eventf is Event with a format.
func (r *Recorder) Eventf(obj Object, eventtype, reason, format string, args ...any) {
	if r == nil {
		return
	}
	r.Event(obj, eventtype, reason, fmt.Sprintf(format, args...))
}

// EventRef is Event about an object of which only the reference is at hand, or
// about a part of it (ref.FieldPath).
func (r *Recorder) EventRef(ref corev1.ObjectReference, eventtype, reason, message string) {
	if r != nil {
		r.record(&happening{about: ref, eventtype: eventtype, reason: reason, message: message})
	}
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

// record counts h, and sends what is to be told of it.
func (r *Recorder) record(h *happening) {
	r.mu.Lock()
	defer r.mu.Unlock()
	h.at = time.Now()
	s, tell := r.observe(h)
	if !tell || s.waiting {
		return // counted: what is told next knows of it
	}
	s.waiting = r.post.put(s)
	r.staff()
}
