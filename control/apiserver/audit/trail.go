package audit

import (
	"bufio"
	"context"
	"errors"
	"log/slog"
	"net"
	"net/http"
	"slices"
	"sync"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// Trail is the audit of one server: a policy and where events go. Its methods may
// be called concurrently.
type Trail struct {
	// Policy decides; nil means Default.
	Policy *Policy
	// Default decides when a request is over, and without a policy: whether a line
	// at level Metadata is worth writing.
	Default func(ctx context.Context, a *Asked, code int) bool
	// Sinks get the events; none means that there is no audit.
	Sinks []Sink
	// Now is the wall clock.
	Now func() time.Time
	Log *slog.Logger

	counts counts
}

// Close ends the sinks.
func (t *Trail) Close() (err error) {
	for _, s := range t.Sinks {
		err = errors.Join(err, s.Close())
	}
	return err
}

// Record is the audit of one request under way. Its methods may be called
// concurrently.
type Record struct {
	trail    *Trail
	asked    *Asked
	decision Decision
	long     bool
	started  sync.Once
	notes    notes

	mu     sync.Mutex
	event  Event
	status *metav1.Status
	head   http.Header
	in     *kept
	out    *kept
}

type recordKey struct{}

// From is the record of the request that ctx belongs to; nil without one.
func From(ctx context.Context) *Record {
	r, _ := ctx.Value(recordKey{}).(*Record)
	return r
}

// Failed notes why a request is refused or fails.
func (r *Record) Failed(status metav1.Status) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.status = &status
}

// Handler writes down what is asked of next. describe reads a request: what the
// policy looks at, the event as far as it is known, and whether the request stays
// as long as the client likes (watch, exec).
func (t *Trail) Handler(next http.Handler, describe func(*http.Request) (a *Asked, e Event, long bool)) http.Handler {
	if len(t.Sinks) == 0 {
		return next
	}
	return http.HandlerFunc(func(w http.ResponseWriter, q *http.Request) {
		a, e, long := describe(q)
		r := &Record{trail: t, asked: a, event: e, long: long, decision: Decision{Level: Metadata, OmitStages: []Stage{RequestReceived}}}
		if t.Policy != nil {
			r.decision = t.Policy.Decide(a)
		}
		t.counts.level(r.decision.Level)
		if r.decision.Level == None {
			next.ServeHTTP(w, q)
			return
		}
		ctx := context.WithValue(q.Context(), recordKey{}, r)
		inner := q.WithContext(ctx)
		if r.decision.Level.AtLeast(Request) && !long && q.Body != nil && q.Body != http.NoBody {
			r.in = &kept{}
			inner.Body = &reading{q.Body, r.in}
		}
		if r.decision.Level.AtLeast(RequestResponse) && !long {
			r.out = &kept{}
		}
		seen := &answering{ResponseWriter: w, record: r, code: http.StatusOK}
		r.emit(ctx, RequestReceived, 0, nil)
		defer func() {
			p := recover()
			switch err, is := p.(error); {
			case p == nil || is && errors.Is(err, http.ErrAbortHandler):
				r.emit(ctx, ResponseComplete, seen.code, inner.Header)
			default:
				r.emit(ctx, Panicked, http.StatusInternalServerError, inner.Header)
			}
			if p != nil {
				panic(p)
			}
		}()
		next.ServeHTTP(seen, inner)
	})
}

// emit writes the event of one stage, if anybody wants it.
func (r *Record) emit(ctx context.Context, stage Stage, code int, head http.Header) {
	t := r.trail
	if slices.Contains(r.decision.OmitStages, stage) || t.Policy == nil && stage != RequestReceived && t.Default != nil && !t.Default(ctx, r.asked, code) {
		return
	}
	r.mu.Lock()
	e := r.event
	status := r.status
	r.mu.Unlock()
	e.Kind, e.APIVersion, e.Level, e.Stage = "Event", apiVersion, r.decision.Level, stage
	e.Reached = metav1.NewMicroTime(t.Now())
	last := stage == ResponseComplete || stage == Panicked
	if last {
		e.Annotations = r.notes.take()
	} else {
		e.Annotations = r.notes.snapshot()
	}
	if stage != RequestReceived {
		e.ResponseStatus = &metav1.Status{Code: int32(code)} //nolint:gosec // an HTTP status
		if status != nil {
			e.ResponseStatus.Status, e.ResponseStatus.Reason, e.ResponseStatus.Message = status.Status, status.Reason, status.Message
		}
		if stage == Panicked {
			e.ResponseStatus.Status, e.ResponseStatus.Reason = metav1.StatusFailure, metav1.StatusReasonInternalError
		}
	}
	if last {
		r.bodies(&e, head)
	}
	t.Write(&e)
}

// bodies adds what was sent and answered.
func (r *Record) bodies(e *Event, head http.Header) {
	note := func(what string) {
		if e.Annotations == nil {
			e.Annotations = map[string]string{}
		}
		e.Annotations["audit.sampan.dev/"+what] = "left out: larger than an event may be"
	}
	if r.in != nil {
		if e.RequestObject = r.in.object(head, r.decision.OmitManagedFields); r.in.over {
			note("request-object")
		}
	}
	if r.out != nil {
		if e.ResponseObject = r.out.object(r.answered(), r.decision.OmitManagedFields); r.out.over {
			note("response-object")
		}
	}
}

// answered is the head of the answer, noted by answering.
func (r *Record) answered() http.Header {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.head
}

// Write gives an event to all sinks.
func (t *Trail) Write(e *Event) {
	room := rooms.Get().(*[]byte)
	defer rooms.Put(room)
	raw, err := e.encode((*room)[:0])
	if cap(raw) <= maxRoom {
		*room = raw
	}
	if err != nil {
		t.Log.Error("encode audit event", "error", err)
		return
	}
	t.counts.events.Add(1)
	for _, s := range t.Sinks {
		s.Write(raw)
	}
}

// rooms are memory to encode events in again; maxRoom is what is worth keeping, in
// bytes.
var rooms = sync.Pool{New: func() any { b := make([]byte, 0, 1<<10); return &b }}

const maxRoom = 16 << 10

// answering sees an answer go by.
type answering struct {
	http.ResponseWriter
	record *Record
	code   int
	wrote  bool
}

func (w *answering) WriteHeader(code int) {
	if !w.wrote {
		w.wrote, w.code = true, code
		w.record.began(code, w.Header())
	}
	w.ResponseWriter.WriteHeader(code)
}

func (w *answering) Write(p []byte) (int, error) {
	if !w.wrote {
		w.wrote = true
		w.record.began(w.code, w.Header())
	}
	if w.record.out != nil {
		w.record.out.take(p)
	}
	return w.ResponseWriter.Write(p)
}

// began tells of an answer that goes on for long.
func (r *Record) began(code int, head http.Header) {
	r.mu.Lock()
	r.head = head
	r.mu.Unlock()
	if r.long {
		r.started.Do(func() { r.emit(context.Background(), ResponseStarted, code, nil) })
	}
}

// Flush is for handlers that stream.
func (w *answering) Flush() {
	if f, ok := w.ResponseWriter.(http.Flusher); ok {
		f.Flush()
	}
}

// Hijack is for connections that are upgraded: the library that does it asks for
// the interface, not by way of http.ResponseController.
func (w *answering) Hijack() (net.Conn, *bufio.ReadWriter, error) {
	return http.NewResponseController(w.ResponseWriter).Hijack()
}

// Unwrap lets http.ResponseController reach deadlines and more.
func (w *answering) Unwrap() http.ResponseWriter { return w.ResponseWriter }
