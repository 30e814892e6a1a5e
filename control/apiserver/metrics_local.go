package apiserver

import (
	"context"
	"strconv"

	"github.com/prometheus/client_golang/prometheus"
	"k8s.io/apimachinery/pkg/runtime/schema"

	"github.com/sampan-dev/sampan/control/apiserver/resource"
)

// clientKey tells the requests of this process's components apart.
type clientKey struct {
	verb string
	code int
}

type clientSeries struct {
	count   prometheus.Counter
	seconds prometheus.Observer
}

// watchSeries are the handles of what is sent to watchers of one resource.
type watchSeries struct {
	count prometheus.Counter
	sizes prometheus.Observer
}

// counted notes a request of this process, which no wire has measured: for the
// server as a request, and for whoever made it as a client's.
func (s *Server) counted(ctx context.Context, e resource.AuditEvent) {
	if _, wire := originOf(ctx); wire {
		return
	}
	m := s.metrics
	a := resource.Asked{Verb: e.Request.Verb, Target: e.Request.Target, Resource: true}
	took := e.End.Sub(e.Start)
	one := m.count(keyOf(a, ""), e.Code)
	c := m.client(clientKey{e.Request.Verb, e.Code})
	c.count.Inc()
	if a.Verb != "watch" {
		one.seconds.Observe(took.Seconds())
		one.sli.Observe(took.Seconds())
		c.seconds.Observe(took.Seconds())
	}
}

// client gives the handles of a component's requests. The host is where they would
// have gone to, had they gone over the wire.
func (m *metrics) client(k clientKey) clientSeries {
	m.mu.RLock()
	s, ok := m.clients[k]
	m.mu.RUnlock()
	if ok {
		return s
	}
	method, host := "GET", ""
	switch k.verb {
	case "create":
		method = "POST"
	case "update":
		method = "PUT"
	case "patch":
		method = "PATCH"
	case "delete", "deletecollection":
		method = "DELETE"
	}
	if m.server != nil {
		host = m.server.cfg.Advertise.String()
	}
	s = clientSeries{m.clientRequests.WithLabelValues(strconv.Itoa(k.code), method, host), m.clientSeconds.WithLabelValues(method, host)}
	m.mu.Lock()
	defer m.mu.Unlock()
	m.clients[k] = s
	return s
}

// delivered counts events that were sent to a watcher.
func (m *metrics) delivered(of schema.GroupVersionResource, frames [][]byte) {
	m.mu.RLock()
	s, ok := m.watched[of]
	m.mu.RUnlock()
	if !ok {
		s = watchSeries{m.watchEvents.WithLabelValues(of.Group, of.Version, of.Resource), m.watchSizes.WithLabelValues(of.Group, of.Version, of.Resource)}
		m.mu.Lock()
		m.watched[of] = s
		m.mu.Unlock()
	}
	s.count.Add(float64(len(frames)))
	for _, f := range frames {
		s.sizes.Observe(float64(len(f)))
	}
}
