package apiserver

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strings"
	"time"

	authenticationv1 "k8s.io/api/authentication/v1"
	authorizationv1 "k8s.io/api/authorization/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"

	"github.com/sampan-dev/sampan/control/apiserver/admit"
	"github.com/sampan-dev/sampan/control/apiserver/authn"
	"github.com/sampan-dev/sampan/control/apiserver/authz"
	"github.com/sampan-dev/sampan/control/apiserver/connect"
	"github.com/sampan-dev/sampan/control/apiserver/metricsapi"
	"github.com/sampan-dev/sampan/control/apiserver/resource"
	"github.com/sampan-dev/sampan/internal/identity"
	"github.com/sampan-dev/sampan/internal/target"
	"github.com/sampan-dev/sampan/kinds"
)

// resourceConfig joins the generic handler to the gates.
func (s *Server) resourceConfig(reader *ownReader) resource.Config {
	return resource.Config{
		Kinds: s.cfg.Kinds, Store: s.cfg.Store, Now: s.cfg.Now, Log: s.cfg.Log,
		Authorizer:   gate{server: s},
		Admission:    s.unlessEnding(s.admission(reader)),
		Audit:        s.finished,
		Delivered:    s.metrics.delivered,
		Ordered:      true, // by flow.Order, before ServeHTTP
		Timeline:     s.cfg.Timeline,
		Transformers: s.cfg.Transformers,
		Transformer:  s.transformer,
		CustomTypes:  s.types,
		Verdicts:     s.cfg.Verdicts,
		Hooks: map[schema.GroupResource]resource.Hook{
			{Resource: "services"}: {
				BeginCreate: func(ctx context.Context, obj kinds.Object, dryRun bool) (func(bool), error) {
					return s.addresses.BeginCreate(ctx, obj.(*corev1.Service), dryRun)
				},
				BeginUpdate: func(ctx context.Context, obj, old kinds.Object, dryRun bool) (func(bool), error) {
					return s.addresses.BeginUpdate(ctx, obj.(*corev1.Service), old.(*corev1.Service), dryRun)
				},
				AfterDelete: func(obj kinds.Object, dryRun bool) { s.addresses.AfterDelete(obj.(*corev1.Service), dryRun) },
			},
		},
		Connect:   s.connections(reader),
		Subcreate: map[string]resource.Subcreate{"serviceaccounts/token": s.requestToken},
		Virtual:   s.reviews(),
		Computed: map[schema.GroupVersionResource]resource.Computed{
			corev1.SchemeGroupVersion.WithResource("componentstatuses"): s.components,
		},
		Fallback:  http.HandlerFunc(s.serveRemote),
		Changed:   s.kindsChanged,
		Elsewhere: func(gv schema.GroupVersion) bool { return s.remotes.Remote(gv) },
	}
}

// admission is the chain of rules, timed.
func (s *Server) admission(reader *ownReader) *admit.Measured {
	m := admit.Measure(admit.Default(admit.Config{
		PodSecurity: s.cfg.PodSecurity, QuotaLimits: s.cfg.QuotaLimits,
		Objects: reader, Writer: reader, Authz: s.authz, ResourceOf: s.resourceOf, Now: s.cfg.Now,
		Dynamic: s.dynamic.rules(), Switches: s.cfg.Admission}))
	s.metrics.registry.MustRegister(m)
	return m
}

// ownReader reads as the server itself; it exists before what it reads from.
type ownReader struct{ server *Server }

func (r *ownReader) Get(ctx context.Context, t target.Target, opts metav1.GetOptions) (runtime.Object, error) {
	return r.server.own.Get(context.WithValue(ctx, ownKey{}, true), t, opts)
}

// Peek is Get from the cache, if there is one.
func (r *ownReader) Peek(t target.Target) (runtime.Object, bool) { return r.server.resources.Peek(t) }

// PeekAll is List from the cache, if there is one.
func (r *ownReader) PeekAll(t target.Target) ([]runtime.Object, bool) {
	return r.server.resources.PeekAll(t)
}

// PeekEach is PeekAll one by one.
func (r *ownReader) PeekEach(t target.Target, see func(runtime.Object) (more bool)) bool {
	return r.server.resources.PeekEach(t, see)
}

func (r *ownReader) List(ctx context.Context, t target.Target, opts metav1.ListOptions) (runtime.Object, error) {
	return r.server.own.List(context.WithValue(ctx, ownKey{}, true), t, opts)
}

func (r *ownReader) Create(ctx context.Context, t target.Target, obj runtime.Object, opts metav1.CreateOptions) (runtime.Object, error) {
	return r.server.own.Create(context.WithValue(ctx, ownKey{}, true), t, obj, opts)
}

func (r *ownReader) Delete(ctx context.Context, t target.Target, opts metav1.DeleteOptions) error {
	return r.server.own.Delete(context.WithValue(ctx, ownKey{}, true), t, opts)
}

func (r *ownReader) Patch(ctx context.Context, t target.Target, kind types.PatchType, data []byte, opts metav1.PatchOptions) (runtime.Object, error) {
	return r.server.own.Patch(context.WithValue(ctx, ownKey{}, true), t, kind, data, opts)
}

func (r *ownReader) Update(ctx context.Context, t target.Target, obj runtime.Object, opts metav1.UpdateOptions) (runtime.Object, error) {
	return r.server.own.Update(context.WithValue(ctx, ownKey{}, true), t, obj, opts)
}

// gate asks the authorizer for the generic handler. Until the policy is known it
// makes everybody wait whom only the policy can let in: a restart must not look
// like a loss of rights.
type gate struct{ server *Server }

func (g gate) Authorize(ctx context.Context, a resource.Access) (bool, string, error) {
	began := time.Now()
	if err := g.server.policyKnown(ctx, a.User); err != nil {
		g.server.metrics.who.asked(resultError, began)
		return false, "", err
	}
	decision, reason := g.server.authz.Decide(ctx, question(a))
	g.server.metrics.who.asked(decided(decision), began)
	allowed := decision == authz.Allow
	noteDecision(ctx, allowed, reason)
	return allowed, reason, nil
}

// decided is how metrics count a decision.
func decided(d authz.Decision) result {
	switch d {
	case authz.Allow:
		return resultGood
	case authz.Deny:
		return resultBad
	}
	return resultNone
}

// question is what the authorizer is asked about an access.
func question(a resource.Access) authz.Attributes {
	t := a.Target
	q := authz.Attributes{User: a.User, Verb: a.Verb, Group: t.Resource.Group, Version: t.Resource.Version,
		Resource: t.Resource.Resource, Subresource: t.Subresource, Namespace: t.Namespace, Name: t.Name, FieldSelector: a.FieldSelector, LabelSelector: a.LabelSelector}
	if q.Name == "" {
		q.Name = nameIn(a.FieldSelector)
	}
	if q.Resource == "namespaces" && q.Group == "" && q.Name != "" {
		q.Namespace = q.Name // a role in the namespace may be about the namespace itself
	}
	return q
}

// asks is what a request, which nobody has looked into yet, will ask the authorizer.
func (s *Server) asks(r *http.Request, who identity.Identity) authz.Attributes {
	asked := s.resources.Asks(r)
	if !asked.Resource {
		return authz.Attributes{User: who, Verb: strings.ToLower(r.Method), Path: r.URL.Path}
	}
	a := resource.Access{User: who, Verb: asked.Verb, Target: asked.Target}
	switch a.Verb {
	case "list", "watch", "deletecollection":
		given := r.URL.Query()
		a.FieldSelector, a.LabelSelector = given.Get("fieldSelector"), given.Get("labelSelector")
	}
	return question(a)
}

// policyKnown waits for the roles, unless who needs none.
func (s *Server) policyKnown(ctx context.Context, who identity.Identity) error {
	if who.In(identity.Masters) {
		return nil
	}
	select {
	case <-s.policy.synced:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// nameIn is the one object that a list's field selector leaves.
func nameIn(selector string) string {
	if selector == "" {
		return ""
	}
	parsed, err := fields.ParseSelector(selector)
	if err != nil {
		return ""
	}
	name, _ := parsed.RequiresExactMatch("metadata.name")
	return name
}

func (s *Server) requestToken(ctx context.Context, r *resource.Request) (runtime.Object, error) {
	body, ok := r.Body.(*authenticationv1.TokenRequest)
	if !ok {
		return nil, apierrors.NewBadRequest(fmt.Sprintf("not a TokenRequest: %T", r.Body))
	}
	warn := r.Warn
	if warn == nil {
		warn = func(string) {}
	}
	return s.tokens.Request(ctx, r.Target, body, warn)
}

// reviews are the kinds that are answered and not stored.
func (s *Server) reviews() map[schema.GroupVersionResource]resource.Virtual {
	out := map[schema.GroupVersionResource]resource.Virtual{}
	access := func(ctx context.Context, r *resource.Request) (runtime.Object, error) {
		if err := s.policyKnown(ctx, r.User); err != nil {
			return nil, err
		}
		return s.authz.Review(ctx, r.User, r.Target.Namespace, r.Body)
	}
	for _, name := range []string{"subjectaccessreviews", "localsubjectaccessreviews", "selfsubjectaccessreviews", "selfsubjectrulesreviews"} {
		out[authorizationv1.SchemeGroupVersion.WithResource(name)] = access
	}
	out[authenticationv1.SchemeGroupVersion.WithResource("selfsubjectreviews")] = func(_ context.Context, r *resource.Request) (runtime.Object, error) {
		return authn.Self(r.User, metav1.NewTime(s.cfg.Now())), nil
	}
	out[authenticationv1.SchemeGroupVersion.WithResource("tokenreviews")] = func(ctx context.Context, r *resource.Request) (runtime.Object, error) {
		body, ok := r.Body.(*authenticationv1.TokenReview)
		if !ok {
			return nil, apierrors.NewBadRequest(fmt.Sprintf("not a TokenReview: %T", r.Body))
		}
		return s.authn.Review(ctx, body)
	}
	return out
}

// resourceOf finds the resource of a kind that an owner reference names.
func (s *Server) resourceOf(gvk schema.GroupVersionKind) (schema.GroupVersionResource, bool, bool) {
	for _, k := range s.resources.Kinds() {
		if k.GVK == gvk {
			return k.GVR(), k.Namespaced, true
		}
	}
	return schema.GroupVersionResource{}, false, false
}

// services gives the address allocator all services there are.
func (s *Server) services(ctx context.Context) ([]*corev1.Service, error) {
	list, err := s.own.List(ctx, target.Of(corev1.SchemeGroupVersion.WithResource("services"), ""), metav1.ListOptions{})
	if err != nil {
		return nil, err
	}
	var out []*corev1.Service
	err = meta.EachListItem(list, func(obj runtime.Object) error {
		if svc, ok := obj.(*corev1.Service); ok {
			out = append(out, svc)
		}
		return nil
	})
	return slices.Clip(out), err
}

// connections are served by connect with the server's own certificate.
func (s *Server) connections(reader *ownReader) map[string]http.Handler {
	c := connect.New(connect.Config{Objects: reader, Client: s.kubelet, Roots: s.cfg.Authority.Pool(), Fail: refuse})
	ask := s.cfg.NodeMetrics
	if ask == nil {
		ask = func(ctx context.Context, node string) (io.ReadCloser, error) {
			return c.Ask(ctx, node, "/metrics/resource")
		}
	}
	s.usage = metricsapi.New(metricsapi.Config{Objects: reader, Ask: ask, Fail: refuse, Log: s.cfg.Log})
	return c.Handlers()
}
