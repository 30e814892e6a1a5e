package reconcile_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/runtime/schema"

	"github.com/sampan-dev/sampan/internal/backoff"
	"github.com/sampan-dev/sampan/internal/clock"
	"github.com/sampan-dev/sampan/reconcile"
)

var pods = schema.GroupVersionResource{Version: "v1", Resource: "pods"}

// script reconciles by a function and keeps what happened when.
type script struct {
	name   string
	writes []reconcile.Write
	do     func(key reconcile.Key, n int) (time.Duration, error)

	start time.Time
	mu    sync.Mutex
	seen  map[reconcile.Key]int
	log   []string
}

func (s *script) Name() string                         { return s.name }
func (s *script) Reads() []schema.GroupVersionResource { return nil }
func (s *script) Writes() []reconcile.Write            { return s.writes }
func (s *script) Reconcile(_ context.Context, key reconcile.Key) (time.Duration, error) {
	s.mu.Lock()
	s.seen[key]++
	n := s.seen[key]
	s.log = append(s.log, fmt.Sprintf("%v %s", time.Since(s.start), key.Name))
	s.mu.Unlock()
	return s.do(key, n)
}

// run starts a loop in the bubble and returns it with its script.
func run(t *testing.T, do func(reconcile.Key, int) (time.Duration, error)) (*reconcile.Loop, *script) {
	s := &script{name: "script", do: do, start: time.Now(), seen: map[reconcile.Key]int{}}
	l := reconcile.NewLoop(s, reconcile.Config{
		Workers: 2,
		Retry:   backoff.Policy{Min: time.Second, Max: 4 * time.Second},
		Log:     slog.New(slog.DiscardHandler),
	})
	go func() { _ = l.Run(t.Context()) }()
	return l, s
}

func expect(t *testing.T, s *script, want ...string) {
	t.Helper()
	synctest.Wait()
	s.mu.Lock()
	defer s.mu.Unlock()
	if !slices.Equal(s.log, want) {
		t.Errorf("reconciled\n%s\nwant\n%s", strings.Join(s.log, "\n"), strings.Join(want, "\n"))
	}
}

func key(name string) reconcile.Key { return reconcile.Key{Name: name} }

func TestErrorsBackOffAndAreForgotten(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l, s := run(t, func(_ reconcile.Key, n int) (time.Duration, error) {
			if n <= 4 {
				return 0, errors.New("not yet")
			}
			return 0, nil
		})
		l.Enqueue(key("a"))
		time.Sleep(time.Hour)
		expect(t, s, "0s a", "1s a", "3s a", "7s a", "11s a")
	})
}

// After a conflict the newer state is waited for, not asked for; the log hears of it
// when that takes long.
func TestConflictsAreWaitedOut(t *testing.T) {
	var log strings.Builder
	synctest.Test(t, func(t *testing.T) {
		conflict := apierrors.NewConflict(pods.GroupResource(), "a", errors.New("modified"))
		s := &script{name: "script", start: time.Now(), seen: map[reconcile.Key]int{}, do: func(key reconcile.Key, n int) (time.Duration, error) {
			if key.Name == "b" && n == 1 {
				return 0, fmt.Errorf("write %q: %w", key.Name, conflict)
			}
			if key.Name == "a" && n <= 8 {
				return 0, conflict
			}
			return 0, nil
		}}
		retry := backoff.Policy{Min: time.Millisecond, Max: time.Hour}
		l := reconcile.NewLoop(s, reconcile.Config{Retry: retry, Log: slog.New(slog.NewTextHandler(&log, nil))})
		go func() { _ = l.Run(t.Context()) }()
		l.Enqueue(key("b"))
		time.Sleep(100 * time.Millisecond)
		l.Enqueue(key("b")) // the newer state has come
		time.Sleep(time.Second)
		l.Enqueue(key("a"))
		time.Sleep(time.Hour)
		expect(t, s, "0s b", "100ms b", "500ms b", "1.1s a", "1.6s a", "2.6s a", "4.6s a", "8.6s a", "16.6s a", "32.6s a", "1m4.6s a", "2m8.6s a")
	})
	if got := log.String(); strings.Count(got, "\n") != 1 || !strings.Contains(got, "failures=8") {
		t.Errorf("log:\n%s", got)
	}
}

func TestAgainAndAfter(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l, s := run(t, func(key reconcile.Key, n int) (time.Duration, error) {
			if key.Name == "a" && n == 1 {
				return 5 * time.Second, nil
			}
			return 0, nil
		})
		l.EnqueueAfter(key("b"), 7*time.Second)
		l.EnqueueAfter(key("b"), 3*time.Second)
		l.EnqueueAfter(key("b"), 9*time.Second)
		l.Enqueue(key("a"))
		time.Sleep(time.Hour)
		expect(t, s, "0s a", "3s b", "5s a")
	})
}

// A wait may be until a time of day: when the clock jumps, all are looked at again.
func TestClockJumps(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		jumps := &clock.Jumps{}
		s := &script{name: "script", start: time.Now(), seen: map[reconcile.Key]int{}, do: func(reconcile.Key, int) (time.Duration, error) { return 0, nil }}
		l := reconcile.NewLoop(s, reconcile.Config{Log: slog.New(slog.DiscardHandler)})
		go func() { _ = l.Run(clock.With(t.Context(), jumps)) }()
		l.EnqueueAfter(key("a"), 20*time.Hour)
		for range 2 {
			time.Sleep(time.Minute)
			jumps.Tell()
			synctest.Wait()
		}
		l.EnqueueAfter(key("b"), time.Hour)
		time.Sleep(30 * time.Minute)
		jumps.Tell()
		synctest.Wait()
		expect(t, s, "1m0s a", "32m0s b")
	})
}

func TestOneAtATimePerKeyAndNoneLost(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l, s := run(t, func(key reconcile.Key, n int) (time.Duration, error) {
			time.Sleep(10 * time.Second)
			return 0, nil
		})
		l.Enqueue(key("a"))
		l.Enqueue(key("a")) // not started: the same request
		time.Sleep(time.Second)
		l.Enqueue(key("a")) // running: once more when it is done
		l.Enqueue(key("a"))
		l.Enqueue(key("b"))
		time.Sleep(time.Hour)
		expect(t, s, "0s a", "1s b", "10s a")
	})
}

func TestPanicStaysWithItsKey(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l, s := run(t, func(key reconcile.Key, n int) (time.Duration, error) {
			if key.Name == "bad" && n == 1 {
				panic("boom")
			}
			return 0, nil
		})
		l.Enqueue(key("bad"))
		synctest.Wait()
		l.Enqueue(key("good"))
		time.Sleep(time.Minute)
		expect(t, s, "0s bad", "0s good", "1s bad")
	})
}

func TestManyKeysAllRun(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l, s := run(t, func(key reconcile.Key, n int) (time.Duration, error) { return 0, nil })
		for i := range 1000 {
			l.Enqueue(key(fmt.Sprint(i)))
		}
		synctest.Wait()
		if len(s.seen) != 1000 || l.Len() != 0 {
			t.Errorf("saw %d keys, %d left; want 1000, 0", len(s.seen), l.Len())
		}
	})
}

func TestOwnership(t *testing.T) {
	r := func(name string, parts ...string) *script {
		s := &script{name: name}
		for _, p := range parts {
			s.writes = append(s.writes, reconcile.Write{Resource: pods, Part: p})
		}
		return s
	}
	cases := []struct {
		name string
		all  []reconcile.Owner
		want string
	}{
		{"parts of their own", []reconcile.Owner{r("a", "spec", "create"), r("b", "status", "create", "delete")}, ""},
		{"one part twice", []reconcile.Owner{r("a", "status"), r("b", "status")}, `part "status" of pods: written by both "a" and "b"`},
		{"whole and part", []reconcile.Owner{r("a", ""), r("b", "status")}, `part "status" of pods: written by both "a" and "b"`},
		{"part and whole", []reconcile.Owner{r("a", "status"), r("b", "")}, `part "" of pods: written by both "a" and "b"`},
		{"one name twice", []reconcile.Owner{r("a", "spec"), r("a", "status")}, `reconciler "a": name used twice`},
	}
	for _, c := range cases {
		got := ""
		if err := reconcile.CheckOwnership(c.all...); err != nil {
			got = err.Error()
		}
		if got != c.want {
			t.Errorf("%s: got %q, want %q", c.name, got, c.want)
		}
	}
}
