package apiserver

import (
	"context"
	"fmt"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"

	"github.com/sampan-dev/sampan/control/apiserver/pause"
	"github.com/sampan-dev/sampan/control/apiserver/resource"
)

// seriesKey is what tells requests apart; clients cannot make new ones, for only
// known verbs, resources and paths are in it.
type seriesKey struct{ verb, group, version, resource, sub, scope, dryRun string }

// labels are the key's, without dryRun.
func (k seriesKey) labels() []string {
	who := component
	if strings.HasSuffix(k.sub, "z") && strings.HasPrefix(k.sub, "/") {
		who = "" // health checks are nobody's, upstream
	}
	return []string{k.verb, k.group, k.version, k.resource, k.sub, k.scope, who}
}

// series are the handles of one key. sizes is nil where upstream tells none.
type series struct {
	seconds, sli, sizes prometheus.Observer
	mu                  sync.Mutex
	codes               atomic.Pointer[[]codeCounter]
}

type codeCounter struct {
	code  int
	count prometheus.Counter
}

func (m *metrics) of(k seriesKey) *series {
	m.mu.RLock()
	s, ok := m.series[k]
	m.mu.RUnlock()
	if ok {
		return s
	}
	labels := k.labels()
	made := &series{seconds: m.seconds.WithLabelValues(append([]string{k.dryRun}, labels...)...)}
	if k.dryRun == "" {
		made.sli = m.sli.WithLabelValues(labels...)
	}
	if k.verb == "GET" || k.verb == "LIST" {
		made.sizes = m.sizes.WithLabelValues(labels...)
	}
	made.codes.Store(&[]codeCounter{})
	m.mu.Lock()
	defer m.mu.Unlock()
	if s, ok := m.series[k]; ok {
		return s
	}
	m.series[k] = made
	m.noteDeprecated(k)
	return made
}

// ending is what types say whose API is going to go: since when, and with which
// release, if that is settled.
type ending interface {
	APILifecycleDeprecated() (major, minor int)
}

type gone interface {
	APILifecycleRemoved() (major, minor int)
}

// noteDeprecated tells of requests for what is going to go.
func (m *metrics) noteDeprecated(k seriesKey) {
	if m.server == nil || k.resource == "" {
		return
	}
	kind, ok := m.server.resources.Kind(schema.GroupVersionResource{Group: k.group, Version: k.version, Resource: k.resource})
	if !ok {
		return
	}
	deprecated, removed := kind.Warning != "", ""
	if kind.Custom == nil && kind.New != nil {
		obj := kind.New()
		_, says := obj.(ending)
		deprecated = deprecated || says
		if r, says := obj.(gone); says {
			major, minor := r.APILifecycleRemoved()
			removed = fmt.Sprintf("%d.%d", major, minor)
		}
	}
	if deprecated {
		m.deprecated.WithLabelValues(k.group, k.version, k.resource, k.sub, removed).Set(1)
	}
}

func (m *metrics) count(k seriesKey, code int) *series {
	s := m.of(k)
	for _, c := range *s.codes.Load() {
		if c.code == code {
			c.count.Inc()
			return s
		}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	c := codeCounter{code, m.requests.WithLabelValues(append([]string{strconv.Itoa(code), k.dryRun}, k.labels()...)...)}
	c.count.Inc()
	grown := append([]codeCounter{c}, *s.codes.Load()...)
	s.codes.Store(&grown)
	return s
}

// verbOf is upstream's word for ours.
func verbOf(verb string) string {
	switch verb {
	case "get", "head":
		return "GET"
	case "list", "watch", "patch", "deletecollection", "delete":
		return strings.ToUpper(verb)
	case "create", "post":
		return "POST"
	case "update", "put":
		return "PUT"
	}
	return "other"
}

func keyOf(a resource.Asked, dryRun string) seriesKey {
	k := seriesKey{verb: verbOf(a.Verb), dryRun: dryRun}
	if a.Connection {
		k.verb = "CONNECT"
	}
	if !a.Resource {
		return k
	}
	t := a.Target
	k.group, k.version, k.resource, k.sub, k.scope = t.Resource.Group, t.Resource.Version, t.Resource.Resource, t.Subresource, "cluster"
	switch {
	case t.Name != "" || k.verb == "POST":
		k.scope = "resource"
	case t.Namespace != "":
		k.scope = "namespace"
	}
	return k
}

// keyOfRequest is keyOf what a client asks for, without the names that it makes up.
func (s *Server) keyOfRequest(r *http.Request, a resource.Asked) seriesKey {
	if a.Resource && !s.known(a) {
		a = resource.Asked{Verb: a.Verb}
	}
	dryRun := ""
	if r.URL.RawQuery != "" && r.Method != http.MethodGet && r.URL.Query().Get("dryRun") != "" {
		dryRun = "All"
	}
	k := keyOf(a, dryRun)
	switch {
	case k.verb == "PATCH" && r.Header.Get("Content-Type") == string(types.ApplyPatchType):
		k.verb = "APPLY"
	case !a.Resource:
		k.sub = pathOf(r.URL.Path)
	}
	return k
}

// pathOf is a path that is no resource as metrics name it: only those that there
// are, and what is below them as one.
func pathOf(path string) string {
	switch path {
	case "/livez", "/readyz", "/healthz", "/metrics", "/version", "/openapi/v2", "/openapi/v3", "/api", "/apis":
		return path
	}
	if strings.HasPrefix(path, "/openapi/v3/") {
		return "/openapi/v3/"
	}
	return ""
}

// measured counts and times what is asked of next over the wire.
func (s *Server) measured(next http.Handler) http.Handler {
	m := s.metrics
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		begin := time.Now()
		a := s.resources.Asks(r)
		k := s.keyOfRequest(r, a)
		seen := &measuring{ResponseWriter: w, code: http.StatusOK}
		leave := m.enter(a, k)
		if a.Verb == "watch" && strings.Contains(r.URL.RawQuery, "sendInitialEvents=true") {
			r = r.WithContext(resource.OnStarted(r.Context(), func() { m.watchListed(k, time.Since(begin)) }))
		}
		finished := false
		defer func() {
			leave()
			if !finished {
				m.aborted(k, seen)
			}
			one := m.count(k, seen.code)
			if a.Verb == "watch" || a.Connection {
				return
			}
			m.terminated(k, seen)
			took := time.Since(begin)
			one.seconds.Observe(took.Seconds())
			if one.sli != nil {
				one.sli.Observe((took - pausedIn(r.Context())).Seconds())
			}
			if one.sizes != nil {
				one.sizes.Observe(float64(seen.bytes))
			}
		}()
		next.ServeHTTP(seen, r)
		finished = true
	})
}

// watchListed notes how long it took until a watch had begun with what there is.
func (m *metrics) watchListed(k seriesKey, took time.Duration) {
	m.watchLists.WithLabelValues(k.group, k.version, k.resource, k.scope).Observe(took.Seconds())
}

// pausedIn is for how long a request stood still.
func pausedIn(ctx context.Context) time.Duration {
	if o, ok := originOf(ctx); ok {
		return o.paused.Total()
	}
	return 0
}

// aborted counts a request whose handler has panicked: because the client has gone
// or the server failed, which is a 500 if nothing else was written.
func (m *metrics) aborted(k seriesKey, seen *measuring) {
	m.aborts.WithLabelValues(k.labels()[:6]...).Inc()
	if !seen.wrote {
		seen.code = http.StatusInternalServerError
	}
}

// terminated counts what the server did not do to save itself: it refused it for
// want of room, which is the only 429 in plain text, or gave up.
func (m *metrics) terminated(k seriesKey, seen *measuring) {
	switch seen.code {
	case http.StatusTooManyRequests:
		if !strings.HasPrefix(seen.Header().Get("Content-Type"), "text/plain") {
			return
		}
	case http.StatusGatewayTimeout:
	default:
		return
	}
	m.terminations.WithLabelValues(append([]string{strconv.Itoa(seen.code)}, k.labels()...)...).Inc()
}

// known says whether a resource and its subresource are served here.
func (s *Server) known(a resource.Asked) bool {
	k, ok := s.resources.Kind(a.Target.Resource)
	if !ok || a.Target.Subresource == "" {
		return ok
	}
	for _, sub := range k.Subresources {
		if sub.Name == a.Target.Subresource {
			return true
		}
	}
	return a.Connection
}

// enter counts a request under way until the function that it returns is called.
func (m *metrics) enter(a resource.Asked, k seriesKey) (leave func()) {
	switch {
	case a.Verb == "watch" || a.Connection:
		m.mu.Lock()
		m.long[k]++
		m.mu.Unlock()
		return func() {
			m.mu.Lock()
			defer m.mu.Unlock()
			if m.long[k]--; m.long[k] <= 0 {
				delete(m.long, k)
			}
		}
	case a.Verb == "get" || a.Verb == "list":
		m.reading.enter()
		return m.leaveReading
	}
	m.writing.enter()
	return m.leaveWriting
}

// pausing gives a request the clock of its pauses.
func pausing(ctx context.Context, about *origin) context.Context {
	return context.WithValue(pause.With(ctx, &about.paused), originKey{}, about)
}

// measuring sees an answer's code and size go by.
type measuring struct {
	http.ResponseWriter
	code  int
	wrote bool
	bytes int64
}

func (w *measuring) WriteHeader(code int) {
	w.code, w.wrote = code, true
	w.ResponseWriter.WriteHeader(code)
}

func (w *measuring) Write(p []byte) (int, error) {
	w.wrote = true
	n, err := w.ResponseWriter.Write(p)
	w.bytes += int64(n)
	return n, err
}

// Flush is for handlers that stream.
func (w *measuring) Flush() {
	if f, ok := w.ResponseWriter.(http.Flusher); ok {
		f.Flush()
	}
}

// Unwrap lets http.ResponseController reach deadlines and hijacking.
func (w *measuring) Unwrap() http.ResponseWriter { return w.ResponseWriter }
