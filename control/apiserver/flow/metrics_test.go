package flow

import (
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"
)

// Who runs and who waits is told by schema and level, and nobody once all are done.
func TestGauges(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		o := order(13, 0)
		h := o.Handler(&slow{d: time.Second})
		registry := prometheus.NewRegistry()
		registry.MustRegister(o)
		seen := func(want ...string) {
			t.Helper()
			w := httptest.NewRecorder()
			promhttp.HandlerFor(registry, promhttp.HandlerOpts{}).ServeHTTP(w, httptest.NewRequest(http.MethodGet, "/metrics", nil))
			for _, line := range want {
				name, value, _ := strings.Cut(line, " ")
				if full := "apiserver_flowcontrol_current_" + name + `{flow_schema="global-default",priority_level="global-default"} ` + value + "\n"; !strings.Contains(w.Body.String(), full) {
					t.Errorf("no %q", full)
				}
			}
		}
		l := o.plan.Load().levels["global-default"]
		var wg sync.WaitGroup
		for range l.limit + 2 {
			wg.Go(func() { h.ServeHTTP(httptest.NewRecorder(), ask(who("a"), "/api/v1/namespaces/a/pods/x")) })
		}
		synctest.Wait()
		if l.limit != 2 {
			t.Fatalf("the level has %d seats; the test is about 2", l.limit)
		}
		seen("executing_requests 2", "executing_seats 2", "inqueue_requests 2", "inqueue_seats 2")
		wg.Wait()
		seen("executing_requests 0", "executing_seats 0", "inqueue_requests 0", "inqueue_seats 0")
	})
}
