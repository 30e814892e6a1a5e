package resource

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"runtime/debug"
	"slices"
	"strings"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"

	"github.com/sampan-dev/sampan/control/apiserver/watchdog"
	"github.com/sampan-dev/sampan/internal/identity"
	"github.com/sampan-dev/sampan/internal/speak"
	"github.com/sampan-dev/sampan/kinds"
)

// exchange is one HTTP request and its answer.
type exchange struct {
	server *Server
	w      http.ResponseWriter
	r      *http.Request
	req    *Request
	call   *call
	form   form  // what the client accepts; JSON until negotiated
	query  error // what is wrong with the URL's query, told after authorisation
	wrote  bool
	dog    *watchdog.Dog // nil until something is written that may take long
}

// ServeHTTP serves /api/<version>/… and /apis/<group>/<version>/…. Who asks is
// taken from the context (identity.With); nobody is anonymous.
func (s *Server) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	x := &exchange{server: s, w: w, r: r}
	defer x.recover()
	at, ok := parsePath(r.URL.Path)
	if ok {
		x.begin(at)
		if c, served := s.table.Load().byResource[at.target.Resource]; served && !s.elsewhere(c.kind) {
			x.serve(at)
			return
		}
		// Whether something is served is told only to those who might use it.
		if err := s.mayTry(r.Context(), x.req); err != nil {
			s.audit(r.Context(), x.req, nil, err)
			x.fail(x.barred(err))
			return
		}
	}
	if s.cfg.Fallback != nil {
		s.cfg.Fallback.ServeHTTP(w, r)
		return
	}
	x.fail(unknownPath())
}

// elsewhere says that requests for a custom kind are another server's to answer.
func (s *Server) elsewhere(k *kinds.Kind) bool {
	return k.Custom != nil && s.cfg.Elsewhere != nil && s.cfg.Elsewhere(k.GVK.GroupVersion())
}

// begin makes the request of what the URL and the headers say.
func (x *exchange) begin(at route) {
	who, ok := identity.From(x.r.Context())
	if !ok {
		who = identity.Identity{Name: identity.Anonymous, Groups: []string{identity.Unauthenticated}}
	}
	x.req = &Request{
		Target: at.target, User: who, Path: at.rest,
		Agent: x.r.UserAgent(), Received: x.server.cfg.Now(), Warn: x.warn, wire: true,
	}
	x.req.Verb = at.verb(x.r.Method, wantsWatch(x.r.URL.Query()))
}

// mayTry authorises a request for something that is not in the table.
func (s *Server) mayTry(ctx context.Context, r *Request) error {
	c := &call{collection: &collection{server: s, kind: &kinds.Kind{}, gvr: r.Target.Resource}, req: r}
	return c.authorize(ctx, r.Verb)
}

// recover turns a panic into 500: one request must not end the server.
func (x *exchange) recover() {
	p := recover()
	if p == nil {
		return
	}
	if err, is := p.(error); is && errors.Is(err, http.ErrAbortHandler) {
		panic(p)
	}
	x.server.cfg.Log.Error("request panicked", "method", x.r.Method, "path", x.r.URL.Path,
		"panic", fmt.Sprint(p), "stack", string(debug.Stack()))
	if !x.wrote {
		x.fail(panicked())
	}
}

func panicked() error {
	return apierrors.NewInternalError(errors.New("this request caused a panic; it is in the server's log"))
}

func (x *exchange) serve(at route) {
	query := x.r.URL.Query()
	if connect := x.server.connect(x.req); connect != nil {
		x.req.Verb = at.verb(x.r.Method, false)
		x.connect(connect)
		return
	}
	if x.req.Verb == "" || at.rest != "" {
		x.fail(x.noRoute(at))
		return
	}
	x.query = x.options(query)
	wait, err := TimeoutOf(query)
	if err != nil && x.req.Verb != verbWatch {
		x.query = err
	}
	release, err := x.admitLoad()
	if err != nil {
		x.fail(err)
		return
	}
	defer release()
	ctx := x.r.Context()
	if x.req.Verb != verbWatch {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, wait)
		defer cancel()
	}
	x.run(ctx)
}

// TimeoutOf is how long a request may last: as long as its URL says, where that is
// less than RequestTimeout. "0s" is no wish.
func TimeoutOf(q url.Values) (time.Duration, error) {
	if q.Get("timeout") == "" {
		return RequestTimeout, nil
	}
	wish, err := time.ParseDuration(q.Get("timeout"))
	if err != nil {
		return RequestTimeout, apierrors.NewBadRequest("invalid timeout specified in the request URL - " + err.Error())
	}
	if wish <= 0 || wish > RequestTimeout {
		return RequestTimeout, nil
	}
	return wish, nil
}

// noRoute says that the URL or the method leads nowhere, to those who may try.
func (x *exchange) noRoute(at route) error {
	if x.req.Verb == "" && x.r.Method == http.MethodPost {
		x.req.Verb = verbCreate
	}
	if err := x.server.mayTry(x.r.Context(), x.req); err != nil {
		return x.barred(err)
	}
	if at.rest != "" {
		return unknownPath()
	}
	return notAllowed()
}

// run takes the request through the server and writes the answer.
func (x *exchange) run(ctx context.Context) {
	out, err := x.answer(ctx)
	x.server.audit(ctx, x.req, out, err)
	if err != nil {
		x.fail(err)
		return
	}
	x.respond(out)
}

func (x *exchange) answer(ctx context.Context) (*answer, error) {
	c, err := x.server.begin(ctx, x.req)
	if err != nil {
		return nil, x.barred(err)
	}
	x.call = c
	if err := c.unrouted(x.r); err != nil {
		return nil, err
	}
	if x.form, err = c.negotiate(x.r, x.req.Verb == verbWatch); err != nil {
		return nil, err
	}
	if x.query != nil {
		return nil, x.query
	}
	if err := x.readBody(); err != nil {
		return nil, err
	}
	out, err := c.run(ctx)
	if err == nil && x.form.unfit != nil && out.stream == nil {
		return nil, x.form.unfit
	}
	return out, err
}

func wantsWatch(q url.Values) bool {
	v, ok := q["watch"]
	return ok && len(v) > 0 && !strings.EqualFold(v[0], "false") && v[0] != "0"
}

// wanted reads a parameter that is said or not.
func wanted(values []string) (yes bool) {
	_ = runtime.Convert_Slice_string_To_bool(&values, &yes, nil) // never fails
	return yes
}

// options reads the query into the options of the request's verb.
func (x *exchange) options(q url.Values) error {
	var err error
	switch x.req.Verb {
	case verbGet:
		if values := q["export"]; wanted(values) {
			return apierrors.NewBadRequest("the export parameter, deprecated since v1.14, is no longer supported")
		}
		err = metav1.Convert_url_Values_To_v1_GetOptions(&q, &x.req.Get, nil)
	case verbList, verbWatch:
		err = metav1.Convert_url_Values_To_v1_ListOptions(&q, &x.req.List, nil)
	case verbCreate:
		err = metav1.Convert_url_Values_To_v1_CreateOptions(&q, &x.req.Create, nil)
	case verbUpdate:
		err = metav1.Convert_url_Values_To_v1_UpdateOptions(&q, &x.req.Update, nil)
	case verbPatch:
		err = metav1.Convert_url_Values_To_v1_PatchOptions(&q, &x.req.Patch, nil)
	case verbDelete:
		err = metav1.Convert_url_Values_To_v1_DeleteOptions(&q, &x.req.Delete, nil)
	case verbDeleteCollection:
		if err = metav1.Convert_url_Values_To_v1_DeleteOptions(&q, &x.req.Delete, nil); err == nil {
			err = metav1.Convert_url_Values_To_v1_ListOptions(&q, &x.req.List, nil)
		}
	}
	if err != nil {
		return apierrors.NewBadRequest(err.Error())
	}
	return nil
}

// admitLoad takes a place among the requests in flight; watches need none, and
// administrators are never turned away.
func (x *exchange) admitLoad() (release func(), err error) {
	places := x.server.writes
	switch x.req.Verb {
	case verbWatch:
		return func() {}, nil
	case verbGet, verbList:
		places = x.server.reads
	}
	if x.server.cfg.Ordered || x.req.User.In(identity.Masters) {
		return func() {}, nil
	}
	select {
	case places <- struct{}{}:
		return func() { <-places }, nil
	default:
		x.w.Header().Set("Retry-After", "1")
		return nil, apierrors.NewTooManyRequests("too many requests, please try again later", 1)
	}
}

// connect finds the handler of a subresource that is a connection.
func (s *Server) connect(r *Request) http.Handler {
	if r.Target.Subresource == "" {
		return nil
	}
	return s.cfg.Connect[r.Target.Resource.Resource+"/"+r.Target.Subresource]
}

// connect authorises and hands over a connection.
func (x *exchange) connect(h http.Handler) {
	name := x.req.Target.Resource.Resource + "/" + x.req.Target.Subresource
	if x.req.Verb == "" {
		x.req.Verb = verbCreate
	}
	if slices.Contains(upgrades, name) {
		x.req.Verb = verbCreate
	}
	ctx := x.r.Context()
	col := x.server.table.Load().byResource[x.req.Target.Resource]
	c := &call{collection: col, req: x.req}
	err := x.barred(c.authorize(ctx, x.req.Verb))
	if err == nil {
		err = col.fits(x.req)
	}
	if accept := x.r.Header.Get("Accept"); err == nil && name == "pods/log" && accept != "" && !speak.Named(accept, logMedia) {
		err = speak.NotProduced(logMedia)
	}
	options, gvk := connectOptions(name, x.r.URL.Query(), x.req.Path)
	if err == nil && options == nil && x.r.Method != http.MethodGet {
		err = notAllowed() // what is read takes nothing
	}
	if err == nil && options != nil {
		a := c.attributes(OpConnect, nil, nil)
		a.Object, a.GVK = options, gvk
		if err = c.admit(ctx, a); err == nil {
			err = c.validate(ctx, a)
		}
	}
	x.server.audit(ctx, x.req, &answer{code: http.StatusOK}, err)
	if err != nil {
		x.fail(err)
		return
	}
	h.ServeHTTP(x.w, x.r.WithContext(context.WithValue(ctx, requestKey{}, x.req)))
}

// maxWarnings bounds the Warning headers of one answer, in bytes; upstream's is 4 KiB.
const maxWarnings = 4 << 10

// warn adds a Warning header, once for each text.
func (x *exchange) warn(text string) {
	if x.wrote {
		return
	}
	value := fmt.Sprintf(`299 - %q`, text)
	have := x.w.Header().Values("Warning")
	total := len(value)
	for _, h := range have {
		if h == value {
			return
		}
		total += len(h)
	}
	if total <= maxWarnings {
		x.w.Header().Add("Warning", value)
	}
}

// writeWait is how long a client may take to accept one piece of an answer.
const writeWait = time.Minute

// hurry ends the answer to a client that does not accept what is written before done is
// called, and the connection of one that accepts nothing at all. Not every writer has
// deadlines.
func (x *exchange) hurry() (done func()) {
	if x.dog == nil {
		x.dog = watchdog.New(http.NewResponseController(x.w).SetWriteDeadline, watchdog.HangUp(x.r.Context()))
	}
	x.dog.Arm(writeWait)
	return x.dog.Disarm
}
