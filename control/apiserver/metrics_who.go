package apiserver

import (
	"net/http"
	"strings"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/sampan-dev/sampan/internal/identity"
)

// result is how an authentication ended, or an authorisation.
type result int

// The results, in upstream's order of labels.
const (
	resultGood result = iota
	resultBad
	resultNone
	resultError
	results
)

// whoMetrics count who came and what they may, with the handles of every series.
type whoMetrics struct {
	attempts, decisions [results]prometheus.Counter
	known, decided      [results]prometheus.Observer
	users               map[string]prometheus.Counter // never written
	certificates        prometheus.Observer
}

// expiryBuckets are upstream's for what is left of a client's certificate, in
// seconds: from half an hour to a year.
var expiryBuckets = []float64{0, 1800, 3600, 7200, 21600, 43200, 86400, 172800, 345600, 604800, 2592000, 7776000, 15552000, 31104000}

func newWhoMetrics(m *metrics) *whoMetrics {
	short := prometheus.ExponentialBuckets(0.001, 2, 15)
	users := m.counter("authenticated_user_requests", "Counter of authenticated requests broken out by username.", "username")
	attempts := m.counter("authentication_attempts", "Counter of authenticated attempts.", "result")
	known := m.histogram("authentication_duration_seconds", "Authentication duration in seconds broken out by result.", short, "result")
	decisions := m.counter("authorization_attempts_total", "Counter of authorization attempts broken down by result. It can be either 'allowed', 'denied', 'no-opinion' or 'error'.", "result")
	decided := m.histogram("authorization_duration_seconds", "Authorization duration in seconds broken out by result.", short, "result")
	left := prometheus.NewHistogram(prometheus.HistogramOpts{Name: "apiserver_client_certificate_expiration_seconds",
		Help: "Distribution of the remaining lifetime on the certificate used to authenticate a request.", Buckets: expiryBuckets})
	m.vectors = append(m.vectors, left)
	w := &whoMetrics{users: map[string]prometheus.Counter{}, certificates: left}
	for _, name := range append(namedUsers, "email_id", "other") {
		w.users[name] = users.WithLabelValues(name)
	}
	for r, word := range []string{"success", "failure", "", "error"} {
		if word != "" {
			w.attempts[r], w.known[r] = attempts.WithLabelValues(word), known.WithLabelValues(word)
		}
	}
	for r, word := range []string{"allowed", "denied", "no-opinion", "error"} {
		w.decisions[r], w.decided[r] = decisions.WithLabelValues(word), decided.WithLabelValues(word)
	}
	return w
}

// namedUsers are the users that upstream counts by name; there are no others, so
// that metrics neither tell names nor grow with them.
var namedUsers = []string{"admin", "client", "kube_proxy", "kubelet", "system:serviceaccount:kube-system:default"}

// came counts an authentication. Without any credentials it has failed; credentials
// that are no good are an error.
func (w *whoMetrics) came(r *http.Request, who identity.Identity, err error, began time.Time) {
	if r.TLS != nil && len(r.TLS.PeerCertificates) > 0 {
		w.certificates.Observe(r.TLS.PeerCertificates[0].NotAfter.Sub(began).Seconds())
	}
	how := resultGood
	switch {
	case err == nil:
		w.user(who.Name).Inc()
	case r.Header.Get("Authorization") == "" && (r.TLS == nil || len(r.TLS.PeerCertificates) == 0):
		how = resultBad
	default:
		how = resultError
	}
	w.attempts[how].Inc()
	w.known[how].Observe(time.Since(began).Seconds())
}

func (w *whoMetrics) user(name string) prometheus.Counter {
	if c, ok := w.users[name]; ok && name != "email_id" {
		return c
	}
	if strings.Contains(name, "@") {
		return w.users["email_id"]
	}
	return w.users["other"]
}

// asked counts an authorisation.
func (w *whoMetrics) asked(how result, began time.Time) {
	w.decisions[how].Inc()
	w.decided[how].Observe(time.Since(began).Seconds())
}
