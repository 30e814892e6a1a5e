package client

import (
	"container/list"
	"slices"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
)

// Limits of what a Recorder tells, those of upstream's correlator
// (client-go/tools/record) where it has them.
const (
	// maxSubjects objects are remembered; those not heard of for longest give way.
	maxSubjects = 4096
	// maxTalks reasons about one object are remembered, and maxSeries messages for one
	// reason; the oldest give way. More than a component has words for.
	maxTalks, maxSeries = 64, 32
	// bucketSize events about one object may come at once …
	bucketSize = 25
	// … and one more after each bucketFill.
	bucketFill = 5 * time.Minute
	// maxSimilar different messages for one reason about one object are told one by
	// one; those that follow are told as one event …
	maxSimilar = 10
	// … until that reason has not been heard for similarFor.
	similarFor = 10 * time.Minute
	// combined precedes the newest message of such an event.
	combined = "(combined from similar events): "
)

// series is one event that may happen again, as it is now.
type series struct {
	about             corev1.ObjectReference
	eventtype, reason string
	message           string
	annotations       map[string]string
	first, last       time.Time
	count             int32
	combined          bool // message is but the newest

	name    string // "" until it is told the first time
	stored  bool   // the server has it, so that what follows is a count
	tried   bool   // the server may have it
	waiting bool   // it is in the queue
	telling bool   // a sender has it
}

// happening is one occurrence.
type happening struct {
	about             corev1.ObjectReference
	annotations       map[string]string
	eventtype, reason string
	message           string
	at                time.Time
}

// talk is what has been said for one reason about a subject.
type talk struct {
	eventtype, reason string
	messages          []string // different ones, not more than maxSimilar
	last              time.Time
	series            []*series
}

// subject is whom events are about, whatever its version and the part of it.
type subject struct {
	apiVersion, kind, namespace, name string
	uid                               types.UID
}

// record is all that is remembered of a subject.
type record struct {
	about  subject
	talks  []*talk
	tokens float64 // how many more events may be told …
	at     time.Time
}

// correlator finds what belongs together. Its owner guards it.
type correlator struct {
	records map[subject]*list.Element
	recent  list.List // of *record, the one heard of last in front
}

// observe finds the series that h belongs to and counts it there; tell is false when
// too much is said about its object for it to be told now. The count goes on all the
// same, so that the next one told knows of it.
func (c *correlator) observe(h *happening) (s *series, tell bool) {
	r := c.of(subject{h.about.APIVersion, h.about.Kind, h.about.Namespace, h.about.Name, h.about.UID}, h.at)
	t := r.talk(h)
	message, alike := clipped(h.message), t.similar(h)
	if alike {
		message = clipped(combined + h.message)
	}
	if s = t.find(h.about.FieldPath, message, alike); s == nil {
		s = &series{about: h.about, eventtype: h.eventtype, reason: h.reason, annotations: h.annotations, first: h.at, combined: alike}
		t.series = appendOf(t.series, s, maxSeries)
	}
	s.count++
	s.last, s.message = h.at, message
	return s, r.allow(h.at)
}

// of is what is remembered of a subject; it is heard of now.
func (c *correlator) of(about subject, now time.Time) *record {
	if known, ok := c.records[about]; ok {
		c.recent.MoveToFront(known)
		return known.Value.(*record)
	}
	if c.records == nil {
		c.records = map[subject]*list.Element{}
	}
	if len(c.records) >= maxSubjects {
		oldest := c.recent.Remove(c.recent.Back()).(*record)
		delete(c.records, oldest.about)
	}
	r := &record{about: about, tokens: bucketSize, at: now}
	c.records[about] = c.recent.PushFront(r)
	return r
}

func (r *record) talk(h *happening) *talk {
	i := slices.IndexFunc(r.talks, func(t *talk) bool { return t.reason == h.reason && t.eventtype == h.eventtype })
	if i >= 0 {
		return r.talks[i]
	}
	t := &talk{eventtype: h.eventtype, reason: h.reason}
	r.talks = appendOf(r.talks, t, maxTalks)
	return t
}

// similar notes a message and says whether there have been too many for its reason.
func (t *talk) similar(h *happening) bool {
	if h.at.Sub(t.last) > similarFor {
		t.messages = nil
	}
	t.last = h.at
	if slices.Contains(t.messages, h.message) {
		return false
	}
	if len(t.messages) == maxSimilar-1 {
		return true
	}
	t.messages = append(t.messages, h.message)
	return false
}

// find is the series of a message, or of all that are combined: those may be about any
// part of the object.
func (t *talk) find(field, message string, alike bool) *series {
	i := slices.IndexFunc(t.series, func(s *series) bool {
		return s.combined == alike && (alike || s.message == message && s.about.FieldPath == field)
	})
	if i < 0 {
		return nil
	}
	return t.series[i]
}

// allow takes a token from the subject's bucket.
func (r *record) allow(now time.Time) bool {
	r.tokens = min(bucketSize, r.tokens+now.Sub(r.at).Seconds()/bucketFill.Seconds())
	r.at = now
	if r.tokens < 1 {
		return false
	}
	r.tokens--
	return true
}

// appendOf appends to a list that holds no more than limit.
func appendOf[T any](all []T, one T, limit int) []T {
	if len(all) >= limit {
		all = slices.Delete(all, 0, 1)
	}
	return append(all, one)
}

// event is a series as the API has it.
func (s *series) event(source corev1.EventSource) *corev1.Event {
	namespace := s.about.Namespace
	if namespace == "" {
		namespace = metav1.NamespaceDefault
	}
	return &corev1.Event{
		ObjectMeta:          metav1.ObjectMeta{Namespace: namespace, Name: s.name, Annotations: s.annotations},
		InvolvedObject:      s.about,
		Type:                s.eventtype,
		Reason:              s.reason,
		Message:             s.message,
		Source:              source,
		ReportingController: source.Component,
		ReportingInstance:   source.Host,
		FirstTimestamp:      metav1.NewTime(s.first),
		LastTimestamp:       metav1.NewTime(s.last),
		Count:               s.count,
	}
}

// changeOf is what a stored event has to be told of its series.
func changeOf(e *corev1.Event) map[string]any {
	return map[string]any{"count": e.Count, "lastTimestamp": e.LastTimestamp, "message": e.Message}
}

// clipped is a message that the API takes.
func clipped(message string) string {
	if len(message) <= maxMessage {
		return message
	}
	return strings.ToValidUTF8(message[:maxMessage-3], "") + "..."
}
