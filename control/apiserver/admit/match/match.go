// Package match says which writes a webhook or an admission policy is about: it
// compares operation, resource and scope, the labels of the object and of its
// namespace, and shows the object in the version that was asked for.
//
// Facts: the rules of admissionregistration.k8s.io/v1, as upstream applies them.
package match

import (
	"context"
	"fmt"
	"slices"
	"strings"

	admissionregistrationv1 "k8s.io/api/admissionregistration/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/util/managedfields"

	"github.com/sampan-dev/sampan/control/apiserver/resource"
	"github.com/sampan-dev/sampan/internal/target"
	"github.com/sampan-dev/sampan/kinds"
	"github.com/sampan-dev/sampan/kinds/admissionregistration"
)

// Table knows what is served.
type Table interface {
	Kind(gvr schema.GroupVersionResource) (*kinds.Kind, bool)
	// Equivalents are the other kinds that show the same stored objects.
	Equivalents(gvr schema.GroupVersionResource) []*kinds.Kind
	KindOf(gvk schema.GroupVersionKind) (*kinds.Kind, bool)
	// Types is the schema by which objects of a kind are merged.
	Types(k *kinds.Kind) managedfields.TypeConverter
}

// Reader reads objects as the server itself.
type Reader interface {
	Get(ctx context.Context, t target.Target, opts metav1.GetOptions) (runtime.Object, error)
}

// Request is one write as webhooks and policies see it. It is for one goroutine,
// except that reading it may be shared while nobody changes the object.
type Request struct {
	*resource.Attributes
	// Namespace is that of the object; a Namespace is in itself.
	Namespace string
	// Kind is the row of the requested resource; nil when none is served.
	Kind *kinds.Kind

	table   Table
	objects Reader
	// space is the namespace, once it has been asked for.
	space    *corev1.Namespace
	spaceErr error
}

// NewRequest describes a write.
func NewRequest(a *resource.Attributes, table Table, objects Reader) *Request {
	r := &Request{Attributes: a, Namespace: a.Target.Namespace, table: table, objects: objects}
	r.Kind, _ = table.Kind(a.Target.Resource)
	if a.GVK == corev1.SchemeGroupVersion.WithKind("Namespace") {
		r.Namespace = r.name()
	}
	return r
}

// name is the object's, as the request or the object says it.
func (r *Request) name() string {
	if r.Target.Name != "" {
		return r.Target.Name
	}
	if obj, ok := r.Object.(metav1.Object); ok {
		return obj.GetName()
	}
	return ""
}

// ExemptFromWebhooks says that no webhook is shown the request: what is asked to
// find out who somebody is or what they may, and what configures admission itself,
// which must stay repairable.
func ExemptFromWebhooks(a *resource.Attributes) bool {
	return a.Target.Resource.Group == admissionregistrationv1.GroupName || excluded(a)
}

// ExemptFromPolicies says that no policy judges the request. Unlike webhooks,
// policies cannot be down: they may judge webhooks' configurations, only not
// policies.
func ExemptFromPolicies(a *resource.Attributes) bool {
	if a.Target.Resource.Group == admissionregistrationv1.GroupName {
		switch a.Target.Resource.Resource {
		case "validatingadmissionpolicies", "validatingadmissionpolicybindings", "mutatingadmissionpolicies", "mutatingadmissionpolicybindings":
			return true
		}
	}
	return excluded(a)
}

func excluded(a *resource.Attributes) bool {
	for _, gr := range never {
		if gr == a.Target.Resource.GroupResource() {
			return true
		}
	}
	return false
}

var never = admissionregistration.Excluded()

// Found is how a request was found to match: the resource and kind that the rule
// asks for, which differ from the request's when an equivalent one matched.
type Found struct {
	Resource schema.GroupVersionResource
	GVK      schema.GroupVersionKind
	kind     *kinds.Kind
}

// As is the request's own resource and kind.
func (r *Request) As() Found {
	return Found{Resource: r.Target.Resource, GVK: r.GVK, kind: r.Kind}
}

// Rules finds the first rule that matches the request itself, else, unless policy
// is Exact, the first that matches an equivalent of it.
func (r *Request) Rules(rules []admissionregistrationv1.RuleWithOperations, policy *admissionregistrationv1.MatchPolicyType) (Found, bool, error) {
	for i := range rules {
		if r.rule(&rules[i], r.Target.Resource) {
			return r.As(), true, nil
		}
	}
	return r.equivalent(policy, len(rules), func(i int, gvr schema.GroupVersionResource) bool { return r.rule(&rules[i], gvr) })
}

// NamedRules is Rules for rules that may also name objects. Without rules nothing
// matches.
func (r *Request) NamedRules(rules []admissionregistrationv1.NamedRuleWithOperations, policy *admissionregistrationv1.MatchPolicyType) (Found, bool, error) {
	fits := func(i int, gvr schema.GroupVersionResource) bool {
		named := &rules[i]
		return r.rule(&named.RuleWithOperations, gvr) &&
			(len(named.ResourceNames) == 0 || slices.Contains(named.ResourceNames, r.Target.Name))
	}
	for i := range rules {
		if fits(i, r.Target.Resource) {
			return r.As(), true, nil
		}
	}
	return r.equivalent(policy, len(rules), fits)
}

func (r *Request) equivalent(policy *admissionregistrationv1.MatchPolicyType, n int, fits func(int, schema.GroupVersionResource) bool) (Found, bool, error) {
	if n == 0 || policy == nil || *policy != admissionregistrationv1.Equivalent {
		return Found{}, false, nil
	}
	others := r.table.Equivalents(r.Target.Resource)
	for i := range n {
		for _, k := range others {
			if !fits(i, k.GVR()) {
				continue
			}
			gvk, ok := kindFor(k, r.Target.Subresource)
			if !ok {
				return Found{}, false, fmt.Errorf("unable to convert to %v: unknown kind", k.GVR())
			}
			return Found{Resource: k.GVR(), GVK: gvk, kind: k}, true, nil
		}
	}
	return Found{}, false, nil
}

// kindFor is the kind that a resource or its subresource speaks of.
func kindFor(k *kinds.Kind, sub string) (schema.GroupVersionKind, bool) {
	if sub == "" {
		return k.GVK, true
	}
	for _, s := range k.Subresources {
		switch {
		case s.Name != sub:
		case s.GVK.Empty():
			return k.GVK, true
		default:
			return s.GVK, true
		}
	}
	return schema.GroupVersionKind{}, false
}

func (r *Request) rule(rule *admissionregistrationv1.RuleWithOperations, gvr schema.GroupVersionResource) bool {
	return r.scope(rule.Scope, gvr) && r.operation(rule.Operations) &&
		oneOf(rule.APIGroups, gvr.Group) && oneOf(rule.APIVersions, gvr.Version) && r.resource(rule.Resources, gvr.Resource)
}

const all = "*"

func oneOf(list []string, wanted string) bool {
	return slices.Contains(list, all) || slices.Contains(list, wanted)
}

func (r *Request) operation(list []admissionregistrationv1.OperationType) bool {
	return slices.Contains(list, admissionregistrationv1.OperationAll) ||
		slices.Contains(list, admissionregistrationv1.OperationType(r.Operation))
}

// scope: a Namespace is of the cluster, although it counts as in itself.
func (r *Request) scope(scope *admissionregistrationv1.ScopeType, gvr schema.GroupVersionResource) bool {
	if scope == nil || *scope == admissionregistrationv1.AllScopes {
		return true
	}
	ofCluster := r.Namespace == "" || gvr == corev1.SchemeGroupVersion.WithResource("namespaces")
	switch *scope {
	case admissionregistrationv1.ClusterScope:
		return ofCluster
	case admissionregistrationv1.NamespacedScope:
		return !ofCluster
	}
	return false
}

func (r *Request) resource(list []string, wanted string) bool {
	for _, entry := range list {
		res, sub, _ := strings.Cut(entry, "/")
		if (res == all || res == wanted) && (sub == all || sub == r.Target.Subresource) {
			return true
		}
	}
	return false
}

// ObjectSelected says whether the object, or what it was before, has the labels.
func (r *Request) ObjectSelected(s labels.Selector) bool {
	return s.Empty() || hasLabels(r.Object, s) || hasLabels(r.Old, s)
}

func hasLabels(obj runtime.Object, s labels.Selector) bool {
	m, ok := obj.(metav1.Object)
	return ok && s.Matches(labels.Set(m.GetLabels()))
}

// NamespaceSelected says whether the object's namespace has the labels. What is in
// none always matches.
func (r *Request) NamespaceSelected(ctx context.Context, s labels.Selector) (bool, error) {
	if r.Namespace == "" && r.Target.Resource.Resource != "namespaces" || s.Empty() {
		return true, nil
	}
	if r.Target.Resource.Resource == "namespaces" && r.Target.Subresource == "" &&
		(r.Operation == resource.OpCreate || r.Operation == resource.OpUpdate) {
		return hasLabels(r.Object, s), nil // the labels that it will have
	}
	ns, err := r.Space(ctx)
	switch {
	case apierrors.IsNotFound(err):
		return false, err
	case err != nil:
		return false, apierrors.NewInternalError(err)
	}
	return s.Matches(labels.Set(ns.Labels)), nil
}

// Space is the namespace that the object is in, read once for a request. One made
// a moment ago is seen.
func (r *Request) Space(ctx context.Context) (*corev1.Namespace, error) {
	if r.space != nil || r.spaceErr != nil {
		return r.space, r.spaceErr
	}
	at := target.Of(corev1.SchemeGroupVersion.WithResource("namespaces"), "").Object(r.Namespace)
	obj, err := r.objects.Get(ctx, at, metav1.GetOptions{ResourceVersion: "0"})
	if apierrors.IsNotFound(err) {
		obj, err = r.objects.Get(ctx, at, metav1.GetOptions{})
	}
	ns, ok := obj.(*corev1.Namespace)
	if err == nil && !ok {
		err = fmt.Errorf("namespace %q is a %T", r.Namespace, obj)
	}
	r.space, r.spaceErr = ns, err
	return ns, err
}

// Around is the namespace that expressions see: none for a Namespace itself.
func (r *Request) Around(ctx context.Context) (*corev1.Namespace, error) {
	if r.Namespace == "" || r.GVK == corev1.SchemeGroupVersion.WithKind("Namespace") {
		return nil, nil
	}
	return r.Space(ctx)
}
