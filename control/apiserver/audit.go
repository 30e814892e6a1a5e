package apiserver

import (
	"context"
	"fmt"
	"log/slog"
	"net/http"
	"slices"
	"strings"
	"time"

	authenticationv1 "k8s.io/api/authentication/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	utilnet "k8s.io/apimachinery/pkg/util/net"

	"github.com/sampan-dev/sampan/control/apiserver/audit"
	"github.com/sampan-dev/sampan/control/apiserver/authn"
	"github.com/sampan-dev/sampan/control/apiserver/pause"
	"github.com/sampan-dev/sampan/control/apiserver/resource"
	"github.com/sampan-dev/sampan/internal/identity"
	"github.com/sampan-dev/sampan/internal/target"
)

// origin is what the listener knows of a request that audit writes down.
type origin struct {
	auditID      string
	address      string
	impersonator *identity.Identity
	constraint   string // of the impersonation
	paused       pause.Clock
	head         http.Header // of the answer
	notes        [][2]string // what audit is told of the authentication
}

type originKey struct{}

func originOf(ctx context.Context) (*origin, bool) {
	o, ok := ctx.Value(originKey{}).(*origin)
	return o, ok
}

// auditLog is the server's audit.
type auditLog struct{ *audit.Trail }

// openAudit opens the log at path; "" keeps none.
func openAudit(path string, log *slog.Logger) (*auditLog, error) {
	t := &audit.Trail{Default: worthwhile, Now: time.Now, Log: log}
	if path != "" {
		f, err := audit.OpenFile(path, log)
		if err != nil {
			return nil, err
		}
		t.Sinks = append(t.Sinks, f)
	}
	return &auditLog{t}, nil
}

// configure adds the policy and the webhook, where there are files of them.
func (a *auditLog) configure(policy, webhook string) (err error) {
	if policy != "" {
		if a.Policy, err = audit.LoadPolicy(policy); err != nil {
			return fmt.Errorf("api server: %w", err)
		}
	}
	if webhook != "" {
		w, err := audit.OpenWebhook(webhook, a.Log)
		if err != nil {
			return fmt.Errorf("api server: %w", err)
		}
		a.Sinks = append(a.Sinks, w)
	}
	return nil
}

func (a *auditLog) close() error { return a.Close() }

// audited writes down what is asked of next.
func (s *Server) audited(next http.Handler) http.Handler {
	return s.audit.Handler(s.noted(next), s.describe)
}

// strangers refuses those who could not say who they are. A policy may want that
// written down; without one, whoever can reach the server could fill the log.
func (s *Server) strangers() http.Handler {
	stop := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		closeTo(w, r)
		if record := audit.From(r.Context()); record != nil {
			record.Failed(metav1.Status{Code: http.StatusUnauthorized, Message: attempted(r)})
		}
		refuse(w, r, apierrors.NewUnauthorized("Unauthorized"))
	})
	if s.audit.Policy == nil {
		return stop
	}
	return s.audited(stop)
}

// closeTo lets a client without a name have this one answer of an HTTP/2 connection
// and no other: streams are too cheap for strangers (CVE-2023-44487).
func closeTo(w http.ResponseWriter, r *http.Request) {
	if r.ProtoMajor == 2 {
		w.Header().Set("Connection", "close")
	}
}

// attempted says, in upstream's words, how somebody tried to say who they are.
func attempted(r *http.Request) string {
	var ways []string
	if _, _, ok := r.BasicAuth(); ok {
		ways = append(ways, "basic")
	}
	if scheme, _, ok := strings.Cut(strings.TrimSpace(r.Header.Get("Authorization")), " "); ok && strings.EqualFold(scheme, "bearer") {
		ways = append(ways, "bearer")
	}
	if r.TLS != nil && len(r.TLS.PeerCertificates) > 0 {
		ways = append(ways, "x509")
	}
	if len(ways) == 0 {
		return "Authentication failed, no credentials provided"
	}
	return "Authentication failed, attempted: " + strings.Join(ways, ", ")
}

// noted passes on what was noted before there was a record.
func (s *Server) noted(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if o, ok := originOf(r.Context()); ok {
			for _, n := range o.notes {
				audit.Annotate(r.Context(), n[0], n[1])
			}
		}
		next.ServeHTTP(w, r)
	})
}

// maxNotes bounds what one authentication may note, and warn of.
const maxNotes = 8

// tokenNotes lets audit and the client know of tokens that are used.
var tokenNotes = authn.Notes{
	Annotate: func(ctx context.Context, key, value string) {
		if audit.Wanted(ctx) {
			audit.Annotate(ctx, key, value)
			return
		}
		if o, ok := originOf(ctx); ok && len(o.notes) < maxNotes {
			o.notes = append(o.notes, [2]string{key, value})
		}
	},
	Warn: func(ctx context.Context, text string) {
		o, ok := originOf(ctx)
		if !ok || len(o.head.Values("Warning")) >= maxNotes {
			return
		}
		if value, err := utilnet.NewWarningHeader(299, "-", text); err == nil {
			o.head.Add("Warning", value)
		}
	},
}

// describe reads what audit has to know of a request.
func (s *Server) describe(r *http.Request) (*audit.Asked, audit.Event, bool) {
	asked := s.resources.Asks(r)
	who, _ := identity.From(r.Context())
	e := newEvent(r.Context(), who, s.cfg.Now())
	e.Verb, e.UserAgent, e.RequestURI = asked.Verb, r.UserAgent(), r.URL.RequestURI()
	if asked.Resource {
		e.Object = objectOf(asked.Target)
	}
	real := who // whom a policy names is who has authenticated, as upstream
	if o, ok := originOf(r.Context()); ok && o.impersonator != nil {
		real = *o.impersonator
	}
	return &audit.Asked{User: real, Verb: asked.Verb, Object: e.Object, Path: r.URL.Path}, e, asked.Connection || asked.Verb == "watch"
}

func objectOf(t target.Target) *audit.Object {
	return &audit.Object{Resource: t.Resource.Resource, APIGroup: t.Resource.Group, APIVersion: t.Resource.Version,
		Namespace: t.Namespace, Name: t.Name, Subresource: t.Subresource}
}

// finished is told of every resource request, also those of this process; the
// server's own are nobody's business.
func (s *Server) finished(ctx context.Context, e resource.AuditEvent) {
	if isOwn(ctx, e.Request.User) {
		return
	}
	s.counted(ctx, e)
	status := metav1.Status{Code: int32(e.Code)} //nolint:gosec // an HTTP status
	if e.Err != nil {
		status.Status, status.Message = metav1.StatusFailure, e.Err.Error()
	}
	if r := audit.From(ctx); r != nil {
		if e.Err != nil {
			r.Failed(status)
		}
		return // written when its answer is
	}
	if _, wire := originOf(ctx); !wire {
		s.auditLocal(ctx, e, status)
	}
}

// auditLocal writes down a request of a component of this process, if a
// policy wants it, and never with bodies: there are no encoded ones.
func (s *Server) auditLocal(ctx context.Context, e resource.AuditEvent, status metav1.Status) {
	if len(s.audit.Sinks) == 0 {
		return
	}
	r := e.Request
	line := newEvent(ctx, r.User, e.Start)
	line.Verb, line.UserAgent, line.Object, line.ResponseStatus = r.Verb, r.Agent, objectOf(r.Target), &status
	asked := &audit.Asked{User: r.User, Verb: r.Verb, Object: line.Object}
	decision := audit.Decision{Level: audit.Metadata}
	switch {
	case s.audit.Policy != nil:
		decision = s.audit.Policy.Decide(asked)
	case !worthwhile(ctx, asked, e.Code):
		return
	}
	if decision.Level == audit.None || slices.Contains(decision.OmitStages, audit.ResponseComplete) {
		return
	}
	line.Kind, line.APIVersion, line.Level, line.Stage = "Event", "audit.k8s.io/v1", audit.Metadata, audit.ResponseComplete
	line.Reached = metav1.NewMicroTime(e.End)
	s.audit.Write(&line)
}

// ownKey marks what the server reads for itself while it serves somebody.
type ownKey struct{}

// isOwn: a name proves nothing here, for it may be borrowed over the wire.
func isOwn(ctx context.Context, who identity.Identity) bool {
	if ctx.Value(ownKey{}) != nil {
		return true
	}
	_, wire := originOf(ctx)
	return !wire && who.Name == self.Name
}

// worthwhile says what is written down without a policy: not what would bury the
// rest, which is what components of the cluster read, heartbeats, events and
// questions of nobody in particular.
func worthwhile(ctx context.Context, a *audit.Asked, code int) bool {
	if o, ok := originOf(ctx); ok && o.impersonator != nil {
		return true // whoever borrows a name is watched
	}
	failed := code >= http.StatusBadRequest
	if a.Object == nil {
		return a.User.Name != identity.Anonymous
	}
	switch {
	case a.Object.Resource == "events", a.Object.Resource == "leases" && !failed:
		return false
	}
	read := a.Verb == "get" || a.Verb == "list" || a.Verb == "watch"
	return !read || failed || !strings.HasPrefix(a.User.Name, "system:") || strings.HasPrefix(a.User.Name, identity.ServiceAccountPrefix)
}

// newEvent is an event with what the listener knows.
func newEvent(ctx context.Context, who identity.Identity, received time.Time) audit.Event {
	e := audit.Event{User: userOf(who), Received: metav1.NewMicroTime(received)}
	if o, ok := originOf(ctx); ok {
		e.AuditID, e.SourceIPs = o.auditID, []string{o.address}
		if o.impersonator != nil {
			as := e.User
			e.User, e.Impersonated = userOf(*o.impersonator), &as
			if o.constraint != "" {
				e.Authentication = &audit.Authentication{ImpersonationConstraint: o.constraint}
			}
		}
	}
	return e
}

func userOf(id identity.Identity) authenticationv1.UserInfo {
	u := authenticationv1.UserInfo{Username: id.Name, UID: id.UID, Groups: id.Groups}
	for k, v := range id.Extra {
		if u.Extra == nil {
			u.Extra = map[string]authenticationv1.ExtraValue{}
		}
		u.Extra[k] = v
	}
	return u
}

// noteDecision annotates a request with what authorisation said, as upstream.
func noteDecision(ctx context.Context, allowed bool, reason string) {
	if !audit.Wanted(ctx) {
		return
	}
	decision := "forbid"
	if allowed {
		decision = "allow"
	}
	audit.Annotate(ctx, "authorization.k8s.io/decision", decision)
	audit.Annotate(ctx, "authorization.k8s.io/reason", reason)
}
