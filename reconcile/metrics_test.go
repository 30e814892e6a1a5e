package reconcile

import (
	"context"
	"errors"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"
	"k8s.io/apimachinery/pkg/runtime/schema"
)

// slow takes a second for each key, and fails at "bad" once.
type slow struct{ failed bool }

func (*slow) Name() string                         { return "slow" }
func (*slow) Reads() []schema.GroupVersionResource { return nil }
func (*slow) Writes() []Write                      { return nil }

func (s *slow) Reconcile(_ context.Context, key Key) (time.Duration, error) {
	time.Sleep(time.Second)
	if key.Name == "bad" && !s.failed {
		s.failed = true
		return 0, errors.New("not yet")
	}
	return 0, nil
}

// gathered is what a scrape of m sees.
func gathered(m *Metrics) string {
	r := prometheus.NewRegistry()
	r.MustRegister(m)
	w := httptest.NewRecorder()
	promhttp.HandlerFor(r, promhttp.HandlerOpts{}).ServeHTTP(w, httptest.NewRequest(http.MethodGet, "/metrics", nil))
	return w.Body.String()
}

// What dashboards ask of a queue is there, and true.
func TestMetrics(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := NewMetrics()
		ctx, stop := context.WithCancel(m.With(t.Context()))
		l := NewLoop(&slow{}, Config{Workers: 1})
		for _, name := range []string{"a", "b", "bad", "a"} { // the last is there already
			l.Enqueue(Key{Name: name})
		}
		ended := make(chan struct{})
		go func() { defer close(ended); _ = l.Run(ctx) }()
		time.Sleep(1500 * time.Millisecond)
		seen(t, m, `depth{name="slow"} 1`, `unfinished_work_seconds{name="slow"} 0.5`, `longest_running_processor_seconds{name="slow"} 0.5`)
		l.Enqueue(Key{Name: "b"}) // while it runs
		time.Sleep(10 * time.Second)
		seen(t, m, `adds_total{name="slow"} 5`, `retries_total{name="slow"} 1`, `work_duration_seconds_count{name="slow"} 5`,
			`work_duration_seconds_sum{name="slow"} 5`, `work_duration_seconds_bucket{name="slow",le="0.1"} 0`,
			`work_duration_seconds_bucket{name="slow",le="1"} 5`, `queue_duration_seconds_count{name="slow"} 5`, `queue_duration_seconds_bucket{name="slow",le="1e-08"} 1`)
		stop()
		<-ended
		if got := gathered(m); got != "" {
			t.Errorf("a loop that has ended is told of: %s", got)
		}
	})
}

func seen(t *testing.T, m *Metrics, want ...string) {
	t.Helper()
	got := gathered(m)
	for _, line := range want {
		if !strings.Contains(got, "workqueue_"+line+"\n") {
			t.Errorf("no %q in\n%s", line, got)
		}
	}
}
