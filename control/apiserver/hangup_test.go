package apiserver

import (
	"context"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/sampan-dev/sampan/control/apiserver/watchdog"
	"github.com/sampan-dev/sampan/internal/identity"
)

// Behind all that a request passes, its connection can still be closed.
func TestHangUp(t *testing.T) {
	w := startWith(t, func(c *Config) {
		c.Extra["/sampan/hangup"] = http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
			watchdog.HangUp(r.Context())()
		})
	})
	r, err := http.NewRequestWithContext(t.Context(), http.MethodGet, w.url+"/sampan/hangup", nil)
	must(t, err)
	if answer, err := w.as("admin", identity.Masters).Do(r); err == nil {
		_ = answer.Body.Close()
		t.Errorf("the answer to who was hung up on is %s", answer.Status)
	}
}

// A check that does not come back fails in time, is not begun once more by each who asks,
// and is well again when what it asks is.
func TestHealthOfWhatStandsStill(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var begun atomic.Int64
		thaw := make(chan struct{})
		page := healthHandler("readyz", []check{{"etcd", bounded(func(context.Context) error {
			begun.Add(1)
			<-thaw // as who waits for a disk, without an eye for deadlines
			return nil
		})}}, nil)
		ask := func() (*httptest.ResponseRecorder, time.Duration) {
			began, answer := time.Now(), httptest.NewRecorder()
			page.ServeHTTP(answer, httptest.NewRequest(http.MethodGet, "/readyz", nil))
			return answer, time.Since(began)
		}
		for range 3 {
			answer, took := ask()
			if answer.Code != http.StatusInternalServerError || !strings.Contains(answer.Body.String(), "[-]etcd failed") || took != healthWait {
				t.Errorf("%d after %v: %s", answer.Code, took, answer.Body)
			}
		}
		if n := begun.Load(); n != 1 {
			t.Errorf("%d goroutines wait for it", n)
		}
		close(thaw)
		synctest.Wait()
		if answer, took := ask(); answer.Code != http.StatusOK || took != 0 {
			t.Errorf("afterwards: %d after %v", answer.Code, took)
		}
	})
}
