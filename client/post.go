package client

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"time"

	"github.com/google/uuid"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/validation"
	"k8s.io/apimachinery/pkg/types"

	"github.com/sampan-dev/sampan/internal/target"
)

// Limits of what a Recorder has to send.
const (
	// maxQueued series wait to be sent, of 300 bytes and their words each: what a
	// thousand pods a second say for half a minute. What comes when there are as many
	// is lost: events are best effort.
	maxQueued = 32768
	// maxSenders send at once, when there is a backlog: one more after each ramp, so
	// that a burst does not compete with the work that it tells of.
	maxSenders = 4
	ramp       = time.Second
	// sendTimeout bounds the writing of one event.
	sendTimeout = 10 * time.Second
	// retryAfter is how long nothing is sent when the server has trouble; after
	// maxTroubles times in a row what waits is given up. Upstream's numbers.
	retryAfter  = 10 * time.Second
	maxTroubles = 12
)

// post is what a Recorder has to send, and who does. The Recorder's lock guards it.
type post struct {
	queue    []*series
	since    time.Time // there has been a backlog
	senders  int
	troubles int  // in a row
	paused   bool // until a timer has fired
	lost     int
	stamp    int64 // in the name of the last event
}

// put queues a series, or loses it. One that is being told is queued by its sender.
func (p *post) put(s *series) bool {
	switch {
	case s.telling:
	case len(p.queue) >= maxQueued:
		p.lost++
		return false
	default:
		if len(p.queue) == 0 {
			p.since = time.Now()
		}
		p.queue = append(p.queue, s)
	}
	return true
}

// staff starts another sender if the backlog wants it. The caller holds the lock.
func (r *Recorder) staff() {
	p := &r.post
	want := min(len(p.queue), maxSenders, 1+int(time.Since(p.since)/ramp))
	if !p.paused && p.senders < want {
		p.senders++
		go r.send()
	}
}

// send empties the queue and ends; it ends sooner when the server has trouble.
func (r *Recorder) send() {
	for {
		s, e, stored := r.take()
		if s == nil {
			return
		}
		r.told(s, r.write(s, e, stored))
	}
}

// take takes a series from the queue, with its event as it is now. When there is
// nothing to do the sender is none any more; the last one says what has been lost.
func (r *Recorder) take() (s *series, e *corev1.Event, stored bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	p := &r.post
	if p.paused || len(p.queue) == 0 {
		if p.senders--; p.senders == 0 && len(p.queue) == 0 {
			p.queue = nil // the memory of a storm goes with it
			r.confess()
		}
		return nil, nil, false
	}
	s = p.queue[0]
	p.queue[0] = nil
	p.queue = p.queue[1:]
	s.waiting, s.telling = false, true
	if s.name == "" {
		s.name = p.name(s.about.Name)
	}
	r.staff()
	return s, s.event(r.source), s.stored
}

// told notes how the telling of s ended.
func (r *Recorder) told(s *series, err error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	s.telling = false
	switch {
	case err == nil:
		s.stored, r.post.troubles = true, 0
	case passing(err):
		slog.Debug("event waits", "component", r.source.Component, "object", s.about.Name, "reason", s.reason, "err", err)
		s.tried, s.waiting = true, true
		if !r.pause() {
			s.waiting = false
			r.post.lost++
		}
	default:
		slog.Debug("event refused", "component", r.source.Component, "object", s.about.Name, "reason", s.reason, "err", err)
	}
	if s.waiting { // again, or still
		s.waiting = r.post.put(s)
	}
}

// pause lets the server recover, and gives up what waits when it does not. The first
// pause is shorter, and not the same for everybody.
func (r *Recorder) pause() (again bool) {
	p := &r.post
	if p.paused {
		return true // somebody has been here before
	}
	if p.troubles++; p.troubles >= maxTroubles {
		p.troubles = 0
		p.lost += len(p.queue)
		for _, s := range p.queue {
			s.waiting = false
		}
		p.queue = nil
		return false
	}
	delay := retryAfter
	if p.troubles == 1 {
		delay = rand.N(retryAfter)
	}
	p.paused = true
	time.AfterFunc(delay, func() {
		r.mu.Lock()
		defer r.mu.Unlock()
		p.paused, p.since = false, time.Now() // one of them tries
		r.staff()
	})
	return true
}

// confess says what has been lost.
func (r *Recorder) confess() {
	if r.post.lost > 0 {
		slog.Warn("events lost: more happened than could be told", "component", r.source.Component, "host", r.source.Host, "lost", r.post.lost)
	}
	r.post.lost = 0
}

// passing says whether an error is trouble that may be over soon. What the server has
// an opinion about will not get better by asking again.
func passing(err error) bool {
	var status apierrors.APIStatus
	if !errors.As(err, &status) {
		return true
	}
	return apierrors.IsTooManyRequests(err) || apierrors.IsServiceUnavailable(err) || apierrors.IsTimeout(err) || apierrors.IsServerTimeout(err)
}

// name makes a name that no other event of this recorder has: upstream's, the object's
// and a time, unless the object's is none for an event.
func (p *post) name(object string) string {
	p.stamp = max(p.stamp+1, time.Now().UnixNano())
	name := fmt.Sprintf("%s.%x", object, p.stamp)
	if len(validation.NameIsDNSSubdomain(name, false)) > 0 {
		return uuid.NewString()
	}
	return name
}

// write stores e, or tells the one that is stored what is new of it.
func (r *Recorder) write(s *series, e *corev1.Event, stored bool) error {
	ctx, cancel := context.WithTimeout(context.Background(), sendTimeout)
	defer cancel()
	if stored {
		err := r.repeat(ctx, e)
		if !apierrors.IsNotFound(err) {
			return err
		}
	}
	_, err := Events.Create(ctx, r.transport, e)
	switch {
	case !apierrors.IsAlreadyExists(err):
	case r.rename(s, e): // it was another component's, of the same moment
		_, err = Events.Create(ctx, r.transport, e)
	default: // it was this one's, and only the answer was lost
		err = r.repeat(ctx, e)
	}
	if err != nil {
		return fmt.Errorf("create event %q: %w", e.Name, err)
	}
	return nil
}

// rename gives a series that was never sent before another name.
func (r *Recorder) rename(s *series, e *corev1.Event) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	if s.tried {
		return false
	}
	s.name = r.post.name(s.about.Name)
	e.Name = s.name
	return true
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
