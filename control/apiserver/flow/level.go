package flow

import (
	"context"
	"errors"
	"sync"
	"time"
)

// guess is what a seat is assumed to be held for until it is known: upstream's
// number.
const guess = 0.003

// Reasons for which a request is refused, as the metrics name them.
var (
	errFull      = errors.New("queue-full")
	errLimit     = errors.New("concurrency-limit")
	errTimeout   = errors.New("time-out")
	errCancelled = errors.New("cancelled")
)

// level is one priority level as it is now.
type level struct {
	name  string
	now   func() time.Time
	press func() // tells that there is more to do than seats

	mu     sync.Mutex
	uid    string
	exempt bool
	// queues are how many there are, hand how many a flow is dealt, length what
	// each holds. queues 0: nobody waits.
	queues, hand, length int
	nominal, lower, upper,
	limit int // the seats: configured, when all is lent, when all is borrowed, now
	maxSeats int // of one request

	held, running, waiting, waitingSeats int
	busy                                 map[int]*queue // the queues with a past in this busy period
	virtual                              float64        // the start of what was dispatched last
	peak                                 int            // the most seats asked for since seats were lent last
	smooth                               float64
	counted                              struct{ dispatched, rejected, timedOut, cancelled int }
	retry                                retryAfter
}

// queue is the line of a few flows.
type queue struct {
	index   int
	next    float64 // when its next request begins, in virtual time
	line    []*ticket
	running int
	seats   int // held by running ones
}

// ticket is one request at a level.
type ticket struct {
	level  *level
	queue  *queue // nil where there are none
	work   work
	schema *schemaRule
	about  string // tells the flow from others of its schema
	req    *request

	came    time.Time
	began   time.Time
	ready   chan struct{} // closed when it may run; nil when it never waited
	running bool
}

func newLevel(name string, now func() time.Time, press func()) *level {
	return &level{name: name, now: now, press: press, busy: map[int]*queue{}, retry: retryAfter{wait: 1}}
}

// start gives t its seats, when it is its turn. On an error it must not run;
// otherwise finish must be called once.
func (l *level) start(ctx context.Context, t *ticket, flow uint64) error {
	l.mu.Lock()
	t.level, t.came = l, l.now()
	l.peak = max(l.peak, l.held+l.waitingSeats+t.work.seats)
	switch {
	case l.exempt:
		l.run(t)
		l.mu.Unlock()
		return nil
	case l.queues == 0:
		defer l.mu.Unlock()
		if !l.room(t.work.seats) {
			l.press()
			return l.refuse(errLimit)
		}
		l.run(t)
		return nil
	}
	q := l.choose(flow)
	if l.held >= l.limit && len(q.line) >= l.length {
		defer l.mu.Unlock()
		l.press()
		return l.refuse(errFull)
	}
	if len(q.line) == 0 {
		q.next = max(q.next, l.virtual)
	}
	t.queue = q
	q.line = append(q.line, t)
	l.line(t, 1)
	l.dispatch()
	if t.running {
		l.mu.Unlock()
		return nil
	}
	t.ready = make(chan struct{})
	l.press()
	l.mu.Unlock()
	return l.wait(ctx, t)
}

// wait stands in the line until the turn, the limit of patience or ctx's end.
func (l *level) wait(ctx context.Context, t *ticket) error {
	timer := time.NewTimer(MaxWait)
	defer timer.Stop()
	var reason error
	select {
	case <-t.ready:
		return nil
	case <-timer.C:
		reason = errTimeout
	case <-ctx.Done():
		reason = errCancelled
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if t.running {
		return nil // the turn came meanwhile
	}
	q := t.queue
	for i, other := range q.line {
		if other == t {
			q.line = append(q.line[:i], q.line[i+1:]...)
			break
		}
	}
	l.line(t, -1)
	l.dispatch() // what stood behind may be narrower
	l.rest(q)
	return l.refuse(reason)
}

// refuse counts and returns reason. The caller holds mu.
func (l *level) refuse(reason error) error {
	switch {
	case errors.Is(reason, errTimeout):
		l.counted.timedOut++
	case errors.Is(reason, errCancelled):
		l.counted.cancelled++
	default:
		l.counted.rejected++
	}
	if !errors.Is(reason, errCancelled) {
		l.retry.drop(l.now().Unix())
	}
	return reason
}

// choose is the queue of the flow's hand with the least before it.
func (l *level) choose(flow uint64) *queue {
	var cards [16]int
	best, least := (*queue)(nil), 0
	for _, i := range deal(cards[:0], flow, l.queues, l.hand) {
		q := l.busy[i]
		if q == nil {
			q = &queue{index: i}
			if best == nil || least > 0 {
				best = q
			}
			break
		}
		load := q.seats
		for _, t := range q.line {
			load += t.work.seats
		}
		if best == nil || load < least {
			best, least = q, load
		}
	}
	l.busy[best.index] = best
	return best
}

// room says whether seats are free. A request that is wider than the level may
// run when it runs alone.
func (l *level) room(seats int) bool {
	return l.held+seats <= l.limit || l.held == 0 && seats > l.limit && l.limit > 0
}

// dispatch lets run whose turn it is. The caller holds mu.
func (l *level) dispatch() {
	for l.waiting > 0 {
		var first *queue
		for _, q := range l.busy {
			if len(q.line) > 0 && (first == nil || q.next < first.next || q.next == first.next && q.index < first.index) {
				first = q
			}
		}
		t := first.line[0]
		if !l.room(t.work.seats) {
			return
		}
		first.line[0] = nil
		first.line = first.line[1:]
		l.line(t, -1)
		l.virtual = max(l.virtual, first.next)
		first.next += guess * float64(t.work.seats)
		first.running++
		first.seats += t.work.seats
		l.run(t)
	}
}

// line counts one more that waits, or one less. The caller holds mu.
func (l *level) line(t *ticket, more int) {
	l.waiting += more
	l.waitingSeats += more * t.work.seats
	t.schema.told.queued.Add(float64(more))
	t.schema.told.queuedSeats.Add(float64(more * t.work.seats))
}

// run marks t as running. The caller holds mu.
func (l *level) run(t *ticket) {
	t.running, t.began = true, l.now()
	l.running++
	l.held += t.work.seats
	t.schema.told.running.Inc()
	t.schema.told.held.Add(float64(t.work.seats))
	l.counted.dispatched++
	if t.ready != nil {
		close(t.ready)
	}
}

// finish gives back the seats. What a write leaves to do for watchers keeps some
// of them for a moment, if anybody might want them.
func (t *ticket) finish() {
	l := t.level
	l.mu.Lock()
	defer l.mu.Unlock()
	l.running--
	t.schema.told.running.Dec()
	took := l.now().Sub(t.began).Seconds()
	if q := t.queue; q != nil {
		q.running--
		q.next += (took - guess) * float64(t.work.seats)
	}
	keep := 0
	if t.work.after > 0 && !l.exempt && l.held > l.limit/2 {
		keep = min(t.work.finalSeats, t.work.seats)
		if q := t.queue; q != nil {
			q.next += float64(keep) * t.work.after.Seconds()
		}
		time.AfterFunc(t.work.after, func() {
			l.mu.Lock()
			defer l.mu.Unlock()
			l.release(t, keep)
		})
	}
	l.release(t, t.work.seats-keep)
}

// release frees seats of t and lets others run. The caller holds mu.
func (l *level) release(t *ticket, seats int) {
	l.held -= seats
	t.schema.told.held.Sub(float64(seats))
	if t.queue != nil {
		t.queue.seats -= seats
	}
	l.dispatch()
	l.rest(t.queue)
}

// rest forgets a queue whose past no longer counts, and all of them when the
// level is idle. The caller holds mu.
func (l *level) rest(q *queue) {
	if l.held == 0 && l.waiting == 0 {
		clear(l.busy)
		l.virtual = 0
		return
	}
	if q != nil && len(q.line) == 0 && q.seats == 0 && q.next <= l.virtual {
		delete(l.busy, q.index)
	}
}

// resize changes the seats there are now.
func (l *level) resize(limit int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.limit = limit
	l.dispatch()
}
