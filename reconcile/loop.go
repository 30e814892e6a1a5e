package reconcile

import (
	"context"
	"fmt"
	"log/slog"
	"runtime/debug"
	"sync"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"

	"github.com/sampan-dev/sampan/internal/backoff"
	"github.com/sampan-dev/sampan/internal/clock"
)

// Defaults of Config.
const (
	// DefaultWorkers keeps a slow key from holding up the others.
	DefaultWorkers = 4
	// DefaultRetryMin is the first delay after an error.
	DefaultRetryMin = 10 * time.Millisecond
	// DefaultRetryMax bounds the delay: five minutes after the cause is gone,
	// everything has been looked at again.
	DefaultRetryMax = 5 * time.Minute
)

const (
	// conflictMin is the first delay after a conflict. Whoever decided from an older
	// state is woken by the newer one when the mirror shows it; to come sooner is to
	// decide from the same state again. The delay is for those whose key nothing wakes.
	conflictMin = 500 * time.Millisecond
	// patience is for how long a key may meet nothing but conflicts before the log
	// says so: they are the normal price of optimism.
	patience = time.Minute
)

// Config of a Loop. The zero Config is valid.
type Config struct {
	// Workers is how many keys are reconciled at the same time.
	Workers int
	// Retry is the delay after errors in a row, per key.
	Retry backoff.Policy
	// Synced are waited for before the first Reconcile: the informers' Synced
	// channels, so that nobody decides on half a picture.
	Synced []<-chan struct{}
	// Log defaults to slog.Default().
	Log *slog.Logger
}

// Loop runs one Reconciler. Its methods may be called from any goroutine, also
// before Run.
type Loop struct {
	r    Reconciler
	cfg  Config
	log  *slog.Logger
	work chan struct{} // a token: there may be a ready key
	wake chan struct{}

	mu    sync.Mutex
	keys  map[Key]*state // every key that is waiting or running, or has failed
	ready fifo
	later schedule
	stats stats
}

// state is what is known of one key. A key is forgotten when it is idle and its
// last Reconcile succeeded.
type state struct {
	queued   bool // in ready
	running  bool
	dirty    bool // enqueued while running
	failures int
	failing  time.Time // since when
	since    time.Time // queued, or dirty
	began    time.Time // running
}

// NewLoop makes a Loop for r; nothing happens until Run.
func NewLoop(r Reconciler, cfg Config) *Loop {
	if cfg.Workers <= 0 {
		cfg.Workers = DefaultWorkers
	}
	if cfg.Retry == (backoff.Policy{}) {
		cfg.Retry = backoff.Policy{Min: DefaultRetryMin, Max: DefaultRetryMax, Jitter: 0.2}
	}
	if cfg.Log == nil {
		cfg.Log = slog.Default()
	}
	return &Loop{
		r: r, cfg: cfg,
		log:  cfg.Log.With("reconciler", r.Name()),
		work: make(chan struct{}),
		wake: make(chan struct{}, 1),
		keys: map[Key]*state{},
	}
}

// Enqueue asks for a Reconcile of key. Asking again before it has started
// changes nothing; asking while it runs makes it run once more. It never blocks.
func (l *Loop) Enqueue(key Key) {
	l.mu.Lock()
	l.enqueue(key)
	l.mu.Unlock()
	l.poke()
}

// EnqueueAfter asks for a Reconcile of key in d. Of several pending requests for
// one key the earliest counts: Reconcile asks again if it came too early.
func (l *Loop) EnqueueAfter(key Key, d time.Duration) {
	if d <= 0 {
		l.Enqueue(key)
		return
	}
	l.mu.Lock()
	l.later.add(key, time.Now().Add(d))
	l.mu.Unlock()
	l.poke()
}

// Len is the number of keys that are ready and not yet taken by a worker.
func (l *Loop) Len() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.ready.len()
}

// Run waits for Config.Synced and then reconciles until ctx ends. It returns
// when the last worker has.
func (l *Loop) Run(ctx context.Context) error {
	defer l.shown(ctx)()
	for _, synced := range l.cfg.Synced {
		select {
		case <-synced:
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
	var workers sync.WaitGroup
	for range l.cfg.Workers {
		workers.Go(func() { l.worker(ctx) })
	}
	l.dispatch(ctx)
	workers.Wait()
	return context.Cause(ctx)
}

// dispatch wakes workers for ready keys and moves due ones to ready.
func (l *Loop) dispatch(ctx context.Context) {
	timer := time.NewTimer(time.Hour)
	defer timer.Stop()
	jumps := clock.From(ctx)
	jumped := jumps.Next()
	for {
		ready, wait := l.next()
		work := l.work
		if !ready {
			work = nil
		}
		timer.Reset(wait)
		select {
		case work <- struct{}{}:
		case <-l.wake:
		case <-timer.C:
		case <-jumped: // some of the waits were until a time of day: those who asked for them look again
			jumped = jumps.Next()
			l.hasten()
		case <-ctx.Done():
			return
		}
	}
}

// hasten makes all keys ready that are to be looked at later.
func (l *Loop) hasten() {
	l.mu.Lock()
	defer l.mu.Unlock()
	for {
		key, _, any := l.later.peek()
		if !any {
			return
		}
		l.later.pop()
		l.enqueue(key)
	}
}

// next says whether a key is ready, and how long until a delayed one is due.
func (l *Loop) next() (ready bool, wait time.Duration) {
	const idle = time.Hour // nothing is due: any long time will do
	l.mu.Lock()
	defer l.mu.Unlock()
	now := time.Now()
	wait = idle
	for {
		key, at, any := l.later.peek()
		if !any {
			break
		}
		if wait = at.Sub(now); wait > 0 {
			break
		}
		l.later.pop()
		l.enqueue(key)
	}
	return l.ready.len() > 0, wait
}

// take gives a worker the next key; a token may outlive the key it was for.
func (l *Loop) take() (Key, bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	key, ok := l.ready.pop()
	if ok {
		s := l.keys[key]
		s.queued, s.running, s.began = false, true, time.Now()
		l.stats.waited.observe(s.began.Sub(s.since))
	}
	return key, ok
}

func (l *Loop) enqueue(key Key) {
	s := l.keys[key]
	if s == nil {
		s = &state{}
		l.keys[key] = s
	}
	switch {
	case s.running && !s.dirty:
		s.dirty, s.since = true, time.Now()
		l.stats.adds++
	case !s.running && !s.queued:
		s.queued, s.since = true, time.Now()
		l.stats.adds++
		l.ready.push(key)
	}
}

func (l *Loop) worker(ctx context.Context) {
	for {
		select {
		case <-l.work:
			key, ok := l.take()
			if !ok {
				continue
			}
			again, err := l.reconcile(ctx, key)
			l.done(ctx, key, again, err)
		case <-ctx.Done():
			return
		}
	}
}

// done decides when key is looked at next.
func (l *Loop) done(ctx context.Context, key Key, again time.Duration, err error) {
	l.mu.Lock()
	s := l.keys[key]
	s.running = false
	l.stats.worked.observe(time.Since(s.began))
	if err != nil {
		if s.failures++; s.failures == 1 {
			s.failing = time.Now()
		}
		l.stats.retries++
		again = l.delay(s.failures, err)
	} else {
		s.failures = 0
	}
	failures, failing := s.failures, s.failing
	if again > 0 {
		l.later.add(key, time.Now().Add(again))
	}
	if s.dirty {
		s.dirty, s.queued = false, true
		l.ready.push(key)
	}
	if !s.queued && s.failures == 0 {
		delete(l.keys, key)
	}
	l.mu.Unlock()
	l.poke()
	if err != nil && ctx.Err() == nil {
		l.report(ctx, key, failures, time.Since(failing), err)
	}
}

// delay is how long to wait after so many failures in a row, of which err is the last.
func (l *Loop) delay(failures int, err error) time.Duration {
	retry := l.cfg.Retry
	if apierrors.IsConflict(err) {
		retry.Min = min(max(retry.Min, conflictMin), retry.Max)
	}
	return retry.After(failures)
}

// report tells of failures.
func (l *Loop) report(ctx context.Context, key Key, failures int, lasting time.Duration, err error) {
	level := slog.LevelWarn
	if apierrors.IsConflict(err) && lasting < patience {
		level = slog.LevelDebug
	}
	l.log.Log(ctx, level, "reconcile failed", "key", key.String(), "failures", failures, "err", err)
}

// reconcile contains a panic to the key that caused it.
func (l *Loop) reconcile(ctx context.Context, key Key) (again time.Duration, err error) {
	defer func() {
		if p := recover(); p != nil {
			l.log.Error("reconcile panicked", "key", key.String(), "panic", p, "stack", string(debug.Stack()))
			again, err = 0, fmt.Errorf("reconcile %q: panic: %v", key, p)
		}
	}()
	return l.r.Reconcile(ctx, key)
}

func (l *Loop) poke() {
	select {
	case l.wake <- struct{}{}:
	default:
	}
}
