package proxy

import (
	"fmt"
	"net/http"
	"sync/atomic"
	"time"

	corev1 "k8s.io/api/core/v1"
)

// The ports at which upstream's kube-proxy answers: HealthPort to load balancers
// that ask whether the node takes traffic, DebugPort to the node's own programs.
const (
	HealthPort = 10256
	DebugPort  = 10249
)

// Mode is how services are served, as upstream names it.
const Mode = "nftables"

// overdue is how long the tables may be behind before the proxy is not healthy:
// upstream's two periods of synchronisation.
const overdue = time.Minute

// toBeDeleted is the taint of a node that the cluster autoscaler is about to
// remove (KEP-3836).
const toBeDeleted = "ToBeDeletedByClusterAutoscaler"

// health is how the proxy does. Its methods may be called from any goroutine.
type health struct {
	updated atomic.Int64 // when the tables were last right, in nanoseconds; 0 before
	behind  atomic.Int64 // since when they could not be written; 0 when they can
	leaving atomic.Bool  // the node is on its way out
}

// synced notes an attempt to bring the tables up to date.
func (h *health) synced(err error, now time.Time) {
	if err != nil {
		h.behind.CompareAndSwap(0, now.UnixNano())
		return
	}
	h.behind.Store(0)
	h.updated.Store(now.UnixNano())
}

// nodeIs notes the node's own state.
func (h *health) nodeIs(node *corev1.Node) {
	leaving := node == nil || node.DeletionTimestamp != nil
	if node != nil {
		for _, t := range node.Spec.Taints {
			leaving = leaving || t.Key == toBeDeleted
		}
	}
	h.leaving.Store(leaving)
}

// ok says that services are served as they should be; updated is when that was
// last made sure.
func (h *health) ok(now time.Time) (ok bool, updated time.Time) {
	last := h.updated.Load()
	switch since := h.behind.Load(); {
	case last == 0:
		return false, time.Time{}
	case since == 0:
		return true, now // nothing waits
	default:
		return now.Sub(time.Unix(0, since)) < overdue, time.Unix(0, last)
	}
}

// Handler answers as upstream's kube-proxy: /healthz says whether traffic should
// come to this node, /livez whether the proxy works, /proxyMode how.
func (p *Proxy) Handler() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("/livez", func(w http.ResponseWriter, _ *http.Request) { p.health.tell(w, false) })
	mux.HandleFunc("/healthz", func(w http.ResponseWriter, _ *http.Request) { p.health.tell(w, true) })
	mux.HandleFunc("/proxyMode", func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "text/plain; charset=utf-8")
		w.Header().Set("X-Content-Type-Options", "nosniff")
		fmt.Fprint(w, Mode)
	})
	return mux
}

// tell answers one question; with eligible a node that is leaving is not well.
func (h *health) tell(w http.ResponseWriter, eligible bool) {
	now := time.Now()
	ok, updated := h.ok(now)
	stays := !h.leaving.Load()
	answer(w, ok && (stays || !eligible))
	fmt.Fprintf(w, `{"lastUpdated": %q,"currentTime": %q, "nodeEligible": %v}`, updated, now, stays)
}

// answer begins a JSON answer.
func answer(w http.ResponseWriter, ok bool) {
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("X-Content-Type-Options", "nosniff")
	if !ok {
		w.WriteHeader(http.StatusServiceUnavailable)
	}
}
