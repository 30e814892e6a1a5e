package apiserver

import (
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"path"
	"runtime/debug"
	"slices"
	"strings"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/sampan-dev/sampan/control/apiserver/atrest"
	"github.com/sampan-dev/sampan/control/apiserver/authn"
	"github.com/sampan-dev/sampan/control/apiserver/authz"
	"github.com/sampan-dev/sampan/control/apiserver/authz/impersonate"
	"github.com/sampan-dev/sampan/control/apiserver/discovery"
	"github.com/sampan-dev/sampan/control/apiserver/resource"
	"github.com/sampan-dev/sampan/control/apiserver/watchdog"
	"github.com/sampan-dev/sampan/internal/identity"
	"github.com/sampan-dev/sampan/internal/profiles"
	"github.com/sampan-dev/sampan/internal/speak"
	"github.com/sampan-dev/sampan/internal/zpages"
	"github.com/sampan-dev/sampan/kinds"
)

// zPaths are the roots of what is there for whoever looks after the server.
var zPaths = []string{"/flagz", "/healthz", "/livez", "/metrics", "/readyz", "/statusz", "/version"}

// routes builds the journey of an HTTP request: contained, named, authenticated,
// then either a resource (which authorises itself) or another path.
func (s *Server) routes() (http.Handler, error) {
	others := &listing{ServeMux: http.NewServeMux()}
	found := discovery.Encoded(s.remotes.Discovery(discovery.New(func() []*kinds.Kind { return s.crds.Shown(s.resources.Kinds()) }, s.cfg.Advertise.String())))
	others.Handle("/api", found)
	others.Handle("/apis", found)
	others.Handle("/api/", found)
	others.Handle("/apis/", found)
	others.Handle("/version", http.HandlerFunc(s.serveVersion))
	others.HandleFunc("/version/{$}", s.serveVersion)
	others.HandleFunc("/version/", nowhere)
	others.Handle("/metrics", s.metrics)
	s.healthRoutes(others)
	pages := zpages.Component{Name: "apiserver", Version: gitVersion, Began: s.cfg.Now(), Now: s.cfg.Now, Paths: zPaths, Flags: s.cfg.Flags}
	others.Handle("/statusz", pages.Statusz())
	others.Handle("/flagz", pages.Flagz())
	schemas := s.remotes.OpenAPI(s.schemas)
	others.Handle("/openapi/v2", schemas)
	others.Handle("/openapi/v3", schemas)
	others.Handle("/openapi/v3/", schemas)
	published, err := s.tokens.Discovery("https://" + s.cfg.Advertise.String())
	if err != nil {
		return nil, err
	}
	for path, h := range published {
		others.Handle(path, h)
		others.HandleFunc(path+"/{$}", h.ServeHTTP)
	}
	if s.rotation != nil {
		others.HandleFunc(atrest.RotationPath, s.serveRotation)
	}
	others.ServeMux.Handle(profiles.Path, profiles.Handler()) // what is for finding faults is not listed
	for path, h := range s.order.Debug() {
		others.ServeMux.Handle(path, h)
	}
	for path, h := range s.cfg.Extra {
		others.Handle(path, h)
	}
	others.HandleFunc("/", s.servePaths(others.paths))
	return deep(s.contain(s.measured(s.authenticate(s.audited(s.order.Handler(s.split(others))))))), nil
}

// split sends resource paths to the generic handler and authorises all others.
func (s *Server) split(others http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if !s.awaitCustom(w, r) {
			return
		}
		if isResource(r.URL.Path) && !discovery.Serves(r.URL.Path) {
			s.resources.ServeHTTP(w, r)
			return
		}
		who, _ := identity.From(r.Context())
		if err := s.mayVisit(r, who); err != nil {
			w.Header().Set("X-Content-Type-Options", "nosniff")
			refuse(w, r, err)
			return
		}
		if _, err := resource.TimeoutOf(r.URL.Query()); err != nil {
			refuse(w, r, err)
			return
		}
		if crooked(r.URL.Path) {
			http.NotFound(w, r)
			return
		}
		others.ServeHTTP(w, r)
	})
}

// crooked says that a path has an empty step, or one of dots. A mux sends who asks for
// it to the straight one; upstream's knows neither.
func crooked(p string) bool {
	straight := path.Clean(p)
	return p != straight && p != straight+"/"
}

func isResource(path string) bool {
	return strings.HasPrefix(path, "/api/") || strings.HasPrefix(path, "/apis/")
}

// mayVisit authorises a path that is no resource. Health is for everybody.
func (s *Server) mayVisit(r *http.Request, who identity.Identity) error {
	if authn.IsHealth(r.URL.Path) {
		return nil
	}
	began := time.Now()
	if err := s.policyKnown(r.Context(), who); err != nil {
		s.metrics.who.asked(resultError, began)
		return apierrors.NewServiceUnavailable("the policy is not known yet")
	}
	q := authz.Attributes{User: who, Verb: strings.ToLower(r.Method), Path: r.URL.Path}
	decision, reason := s.authz.Decide(r.Context(), q)
	s.metrics.who.asked(decided(decision), began)
	allowed := decision == authz.Allow
	noteDecision(r.Context(), allowed, reason)
	if !allowed {
		return authz.Forbidden(q, reason)
	}
	return nil
}

// contain keeps a panic to its request and gives the request a name.
func (s *Server) contain(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		id := auditID()
		w.Header().Set("Audit-Id", id)
		w.Header().Set("Cache-Control", "no-cache, private")
		about := &origin{auditID: id, address: peer(r), head: w.Header()}
		r = r.WithContext(pausing(r.Context(), about))
		defer boundBody(w, r)()
		defer func() {
			p := recover()
			if p == nil {
				return
			}
			if err, is := p.(error); is && errors.Is(err, http.ErrAbortHandler) {
				panic(p)
			}
			s.cfg.Log.Error("request panicked", "method", r.Method, "path", r.URL.Path, "panic", fmt.Sprint(p), "stack", string(debug.Stack()))
			refuse(w, r, apierrors.NewInternalError(errors.New("this request caused a panic; it is in the server's log")))
		}()
		next.ServeHTTP(w, r)
	})
}

// bodyWait is how long a client may take to send a body: longer than any request
// may last, and not for ever.
const bodyWait = time.Minute

// boundBody ends requests whose body does not come, until done is called.
// Connections and proxies may take as long as they like.
func boundBody(w http.ResponseWriter, r *http.Request) (done func()) {
	if r.Body == http.NoBody || r.Header.Get("Upgrade") != "" || strings.Contains(r.URL.Path, "/proxy") {
		return func() {}
	}
	dog := watchdog.New(http.NewResponseController(w).SetReadDeadline, nil)
	dog.Arm(bodyWait)
	return dog.Disarm
}

func peer(r *http.Request) string {
	host, _, err := net.SplitHostPort(r.RemoteAddr)
	if err != nil {
		return r.RemoteAddr
	}
	return host
}

// authenticate finds out who asks, and as whom they want to act.
func (s *Server) authenticate(next http.Handler) http.Handler {
	stranger := s.strangers()
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		began := time.Now()
		who, err := s.authn.Authenticate(r)
		s.metrics.who.came(r, who, err, began)
		if err != nil {
			s.cfg.Log.Debug("request refused", "path", r.URL.Path, "error", err)
			stranger.ServeHTTP(w, r)
			return
		}
		if who.Name == identity.Anonymous {
			closeTo(w, r)
		}
		r.Header.Del("Authorization") // no handler behind this, and no one behind a proxy, needs it
		wanted, err := impersonate.Wanted(r.Header)
		if err != nil {
			refuse(w, r, err)
			return
		}
		if wanted != nil {
			if who, err = s.become(r, who, wanted); err != nil {
				w.Header().Set("X-Content-Type-Options", "nosniff")
				refuse(w, r, err)
				return
			}
		}
		next.ServeHTTP(w, r.WithContext(identity.With(r.Context(), who)))
	})
}

// become makes the request another's, if its caller may act as wanted.
func (s *Server) become(r *http.Request, caller identity.Identity, wanted *identity.Identity) (identity.Identity, error) {
	if err := s.policyKnown(r.Context(), caller); err != nil {
		return caller, apierrors.NewServiceUnavailable("the policy is not known yet")
	}
	verdict, err := s.borrow.Become(r.Context(), wanted, s.asks(r, caller))
	if err != nil {
		return caller, err
	}
	if about, ok := originOf(r.Context()); ok {
		about.impersonator, about.constraint = &caller, verdict.Constraint
	}
	return verdict.User, nil
}

// listing is a mux that knows which paths it was given to list.
type listing struct {
	*http.ServeMux
	paths []string
}

// Handle lists a path and serves it. HandleFunc, which is the mux's own, does not list.
func (l *listing) Handle(path string, h http.Handler) {
	l.paths = append(l.paths, path)
	l.ServeMux.Handle(path, h)
}

// servePaths lists what there is, for people who open the root; all else is 404.
func (s *Server) servePaths(fixed []string) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path != "/" && r.URL.Path != "/index.html" {
			http.NotFound(w, r)
			return
		}
		paths := slices.Clone(fixed)
		for _, k := range s.crds.Shown(s.resources.Kinds()) {
			if k.GVK.Group == "" {
				paths = append(paths, "/api/"+k.GVK.Version)
				continue
			}
			paths = append(paths, "/apis/"+k.GVK.Group, "/apis/"+k.GVK.Group+"/"+k.GVK.Version)
		}
		slices.Sort(paths)
		paths = slices.DeleteFunc(slices.Compact(paths), func(p string) bool { return p == "/api/" })
		writeJSON(w, http.StatusOK, map[string][]string{"paths": paths})
	}
}

// refuse answers with an API status, in the media type that r asks for.
func refuse(w http.ResponseWriter, r *http.Request, err error) {
	speak.Refuse(w, r, &apierrors.StatusError{ErrStatus: statusOf(err)})
}

func statusOf(err error) metav1.Status {
	var known apierrors.APIStatus
	if errors.As(err, &known) {
		return known.Status()
	}
	return apierrors.NewInternalError(err).Status()
}

func writeJSON(w http.ResponseWriter, code int, obj any) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(code)
	enc := json.NewEncoder(w)
	enc.SetIndent("", "  ")
	_ = enc.Encode(obj) // the client has gone: nobody to tell
}
