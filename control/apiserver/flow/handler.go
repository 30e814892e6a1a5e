package flow

import (
	"context"
	"net/http"
	"net/url"
	"strconv"
	"sync"

	corev1 "k8s.io/api/core/v1"
	flowcontrolv1 "k8s.io/api/flowcontrol/v1"

	"github.com/sampan-dev/sampan/control/apiserver/pause"
	"github.com/sampan-dev/sampan/control/apiserver/resource"
	"github.com/sampan-dev/sampan/internal/identity"
)

// refused is upstream's text for a request that finds no place.
const refused = "Too many requests, please try again later."

// The headers that name schema and level, as Go spells them.
var (
	schemaHeader = http.CanonicalHeaderKey(flowcontrolv1.ResponseHeaderMatchedFlowSchemaUID)
	levelHeader  = http.CanonicalHeaderKey(flowcontrolv1.ResponseHeaderMatchedPriorityLevelConfigurationUID)
)

// Handler lets requests through to next in order. Who asks is in their context.
// Connections (exec, log, proxy) are not counted; a watch is until its initial
// state has been written.
func (o *Order) Handler(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		asked := o.cfg.Asks(r)
		if asked.Connection {
			next.ServeHTTP(w, r)
			return
		}
		who, _ := identity.From(r.Context())
		req, query := describe(asked, who, r)
		s := o.plan.Load().classify(req)
		flow, about := s.flow(req)
		t := &ticket{schema: s, about: about, req: req}
		t.work = o.estimate(req, query, s.level)
		s.told.seats.Observe(float64(max(t.work.seats, t.work.finalSeats)))
		h := w.Header()
		h[schemaHeader], h[levelHeader] = s.uid, s.levelUID
		if err := s.level.start(r.Context(), t, flow); err != nil {
			o.refuse(w, t, err)
			return
		}
		s.told.dispatched.Inc()
		waited := t.began.Sub(t.came)
		s.told.waited.Observe(waited.Seconds())
		if waited > 0 {
			pause.Add(r.Context(), waited)
		}
		if asked.Verb == "watch" {
			o.watch(w, r, t, query, next)
			return
		}
		defer t.done(o)
		next.ServeHTTP(w, r)
	})
}

// describe reads what schemas look at.
func describe(asked resource.Asked, who identity.Identity, r *http.Request) (*request, url.Values) {
	t := asked.Target
	req := &request{user: who, asked: asked, path: r.URL.Path, namespace: t.Namespace, name: t.Name}
	if t.Resource.Resource == "namespaces" && t.Resource.Group == corev1.GroupName {
		req.namespace = t.Name
	}
	if asked.Verb != "list" && asked.Verb != "watch" {
		return req, nil
	}
	query := r.URL.Query()
	if req.name == "" {
		req.name = exactly(query, "metadata.name")
	}
	return req, query
}

func (o *Order) refuse(w http.ResponseWriter, t *ticket, reason error) {
	l := t.level
	l.mu.Lock()
	wait := l.retry.wait
	l.mu.Unlock()
	t.schema.told.refusedFor(reason).Inc()
	t.schema.told.waitedInVain.Observe(o.cfg.Now().Sub(t.came).Seconds())
	w.Header().Set("Retry-After", strconv.FormatInt(wait, 10))
	http.Error(w, refused, http.StatusTooManyRequests)
}

// done gives back the seats and notes how long they were held.
func (t *ticket) done(o *Order) {
	t.finish()
	t.schema.told.ran.Observe(o.cfg.Now().Sub(t.began).Seconds())
}

// watch serves a watch, whose seats are free once its beginning is written.
func (o *Order) watch(w http.ResponseWriter, r *http.Request, t *ticket, query url.Values, next http.Handler) {
	begun := sync.OnceFunc(func() { t.done(o) })
	defer begun()
	defer o.watches.add(t.req, query)()
	if _, _, known := o.cfg.Stored(t.req.asked.Target.Resource); known && beginsWithState(query) {
		next.ServeHTTP(w, r.WithContext(resource.OnStarted(r.Context(), begun)))
		return
	}
	next.ServeHTTP(&opening{ResponseWriter: w, begun: begun}, r)
}

// opening tells when the head of an answer is written.
type opening struct {
	http.ResponseWriter
	begun func()
}

func (o *opening) WriteHeader(code int) {
	o.begun()
	o.ResponseWriter.WriteHeader(code)
}

func (o *opening) Write(p []byte) (int, error) {
	o.begun()
	return o.ResponseWriter.Write(p)
}

// Flush is for handlers that stream.
func (o *opening) Flush() {
	if f, ok := o.ResponseWriter.(http.Flusher); ok {
		f.Flush()
	}
}

// Unwrap lets http.ResponseController reach deadlines and hijacking.
func (o *opening) Unwrap() http.ResponseWriter { return o.ResponseWriter }

// Run keeps the objects and the plan in step, and lends seats, until ctx ends.
func (o *Order) Run(ctx context.Context, objects Objects) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	lent := make(chan error, 1)
	go func() { lent <- o.lending(ctx) }()
	err := o.follow(ctx, objects)
	cancel()
	<-lent
	return err
}
