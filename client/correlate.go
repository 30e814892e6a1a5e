package client

import (
	"fmt"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
)

// Limits of what a Recorder tells, those of upstream's correlator
// (client-go/tools/record).
const (
	// maxSeries series, talks and subjects are remembered each; the oldest give way.
	maxSeries = 4096
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

// series is one event that may happen again: what all its occurrences share.
type series struct {
	event *corev1.Event
	// stored says that the server has it, so that what follows is a count.
	stored bool
	// waiting says that it is in the queue.
	waiting bool
}

// subject is whom events are about, whatever its version and the part of it.
type subject struct {
	apiVersion, kind, namespace, name, uid string
}

func subjectOf(ref *corev1.ObjectReference) subject {
	return subject{ref.APIVersion, ref.Kind, ref.Namespace, ref.Name, string(ref.UID)}
}

// talkKey is a reason about a subject, seriesKey one message of it. The message of
// combined events is no part of their key.
type talkKey struct {
	about             subject
	eventtype, reason string
}

type seriesKey struct {
	talk           talkKey
	field, message string
	combined       bool
}

// talk is what has been said for one reason.
type talk struct {
	messages map[string]bool
	last     time.Time
}

// bucket is how many more events about a subject may be told.
type bucket struct {
	tokens float64
	at     time.Time
}

// recent keeps the newest maxSeries entries of a map.
type recent[K comparable, V any] struct {
	all   map[K]V
	order []K
}

func (r *recent[K, V]) put(k K, v V) {
	if r.all == nil {
		r.all = map[K]V{}
	}
	if _, ok := r.all[k]; !ok {
		if len(r.order) >= maxSeries {
			delete(r.all, r.order[0])
			r.order = r.order[1:]
		}
		r.order = append(r.order, k)
	}
	r.all[k] = v
}

// correlator finds what belongs together. Its owner guards it.
type correlator struct {
	talks   recent[talkKey, *talk]
	known   recent[seriesKey, *series]
	buckets recent[subject, *bucket]
}

// observe finds the series that e belongs to and counts it there; tell is false when
// too much is said about e's object for it to be told now. The count goes on all the
// same, so that the next one told knows of it.
func (c *correlator) observe(e *corev1.Event, now time.Time) (s *series, tell bool) {
	about := talkKey{subjectOf(&e.InvolvedObject), e.Type, e.Reason}
	key := seriesKey{talk: about, field: e.InvolvedObject.FieldPath, message: e.Message}
	if c.similar(about, e.Message, now) {
		e.Message = clipped(combined + e.Message)
		key = seriesKey{talk: about, combined: true}
	}
	if s = c.known.all[key]; s == nil {
		s = &series{event: e}
		c.known.put(key, s)
	} else {
		s.event.Count++
		s.event.LastTimestamp = e.LastTimestamp
		s.event.Message = e.Message
	}
	return s, c.allow(about.about, now)
}

// similar notes a message and says whether there have been too many for its reason.
func (c *correlator) similar(about talkKey, message string, now time.Time) bool {
	t := c.talks.all[about]
	if t == nil || now.Sub(t.last) > similarFor {
		t = &talk{messages: map[string]bool{}}
		c.talks.put(about, t)
	}
	t.last = now
	t.messages[message] = true
	if len(t.messages) < maxSimilar {
		return false
	}
	delete(t.messages, message) // any would do: it only has to stay this full
	return true
}

// allow takes a token from the subject's bucket.
func (c *correlator) allow(about subject, now time.Time) bool {
	b := c.buckets.all[about]
	if b == nil {
		b = &bucket{tokens: bucketSize, at: now}
		c.buckets.put(about, b)
	}
	b.tokens = min(bucketSize, b.tokens+now.Sub(b.at).Seconds()/bucketFill.Seconds())
	b.at = now
	if b.tokens < 1 {
		return false
	}
	b.tokens--
	return true
}

// changeOf is what a stored event has to be told of its series.
func changeOf(e *corev1.Event) map[string]any {
	return map[string]any{"count": e.Count, "lastTimestamp": e.LastTimestamp, "message": e.Message}
}

// nameOf gives an event upstream's kind of name: the object's and a time.
func nameOf(e *corev1.Event, stamp int64) string {
	return fmt.Sprintf("%s.%x", e.InvolvedObject.Name, stamp)
}

// clipped is a message that the API takes.
func clipped(message string) string {
	if len(message) <= maxMessage {
		return message
	}
	return strings.ToValidUTF8(message[:maxMessage-3], "") + "..."
}
