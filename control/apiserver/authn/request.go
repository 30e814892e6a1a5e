package authn

import (
	"context"
	"fmt"
	"time"

	admissionregistrationv1 "k8s.io/api/admissionregistration/v1"
	authenticationv1 "k8s.io/api/authentication/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/util/validation/field"

	"github.com/sampan-dev/sampan/internal/target"
)

// Lives of tokens in seconds. What is asked for beyond TokensConfig.Longest is cut, and the
// asker is warned.
const (
	minTokenSeconds     = 10 * 60
	defaultTokenSeconds = 60 * 60
)

// Request makes a token for the service account at, as the request body asks:
// the token subresource. warn shows the caller a warning.
func (t *Tokens) Request(ctx context.Context, at target.Target, body *authenticationv1.TokenRequest, warn func(string)) (runtime.Object, error) {
	r := body.DeepCopy()
	got, err := t.objects.Get(ctx, object("serviceaccounts", at.Namespace, at.Name), metav1.GetOptions{})
	if err != nil {
		return nil, err
	}
	account, ok := got.(*corev1.ServiceAccount)
	if !ok {
		return nil, fmt.Errorf("service account %q is a %T", at.Key(), got)
	}
	if err := t.complete(r, account); err != nil {
		return nil, err
	}
	b := bound{Namespace: account.Namespace, ServiceAccount: ref{account.Name, string(account.UID)}}
	if r.Spec.BoundObjectRef != nil {
		if err := t.bind(ctx, &b, r.Spec.BoundObjectRef); err != nil {
			return nil, err
		}
	}
	if longest := int64(t.longest.Seconds()); longest > 0 && *r.Spec.ExpirationSeconds > longest {
		warn(fmt.Sprintf("requested expiration of %d seconds shortened to %d seconds", *r.Spec.ExpirationSeconds, longest))
		*r.Spec.ExpirationSeconds = longest
	}
	token, expires, err := t.issue(b, r.Spec.Audiences, time.Duration(*r.Spec.ExpirationSeconds)*time.Second)
	if err != nil {
		return nil, apierrors.NewInternalError(err)
	}
	r.Status = authenticationv1.TokenRequestStatus{Token: token, ExpirationTimestamp: metav1.NewTime(expires)}
	return r, nil
}

// complete fills what the request left out from the account and refuses what
// contradicts it.
func (t *Tokens) complete(r *authenticationv1.TokenRequest, account *corev1.ServiceAccount) error {
	gk := authenticationv1.SchemeGroupVersion.WithKind("TokenRequest").GroupKind()
	path := field.NewPath("metadata")
	if r.Name != "" && r.Name != account.Name {
		return apierrors.NewInvalid(gk, account.Name, field.ErrorList{field.Invalid(path.Child("name"), r.Name, "must match the service account name if specified")})
	}
	if r.Namespace != "" && r.Namespace != account.Namespace {
		return apierrors.NewInvalid(gk, account.Name, field.ErrorList{field.Invalid(path.Child("namespace"), r.Namespace, "must match the service account namespace if specified")})
	}
	if r.UID != "" && r.UID != account.UID {
		return apierrors.NewConflict(schema.GroupResource{Group: gk.Group, Resource: gk.Kind}, account.Name,
			fmt.Errorf("the UID in the token request (%s) does not match the UID of the service account (%s)", r.UID, account.UID))
	}
	r.Name, r.Namespace, r.UID = account.Name, account.Namespace, account.UID
	r.CreationTimestamp = metav1.NewTime(t.now())
	if len(r.Spec.Audiences) == 0 {
		r.Spec.Audiences = t.audiences
	}
	if r.Spec.ExpirationSeconds == nil {
		seconds := int64(defaultTokenSeconds)
		r.Spec.ExpirationSeconds = &seconds
	}
	path = field.NewPath("spec").Child("expirationSeconds")
	seconds := *r.Spec.ExpirationSeconds
	if seconds < minTokenSeconds {
		return apierrors.NewInvalid(gk, "", field.ErrorList{field.Invalid(path, seconds, "may not specify a duration less than 10 minutes")})
	}
	if seconds > 1<<32 {
		return apierrors.NewInvalid(gk, "", field.ErrorList{field.Invalid(path, seconds, "may not specify a duration larger than 2^32 seconds")})
	}
	if a := r.Spec.Attestations; len(a) > 0 && !boundToWebhook(r.Spec.BoundObjectRef) {
		return apierrors.NewInvalid(gk, "", field.ErrorList{field.Invalid(field.NewPath("spec", "attestations"), a,
			"attestations may only be specified with a webhook bound object reference")})
	}
	return nil
}

// boundToWebhook says that the token is for calling a webhook: something that upstream
// has behind a gate which is off, and nobody here makes.
func boundToWebhook(to *authenticationv1.BoundObjectReference) bool {
	return to != nil && to.APIVersion == admissionregistrationv1.SchemeGroupVersion.String() &&
		(to.Kind == "ValidatingWebhookConfiguration" || to.Kind == "MutatingWebhookConfiguration")
}

// bind ties the token to the object that the request refers to.
func (t *Tokens) bind(ctx context.Context, b *bound, to *authenticationv1.BoundObjectReference) error {
	gvk := schema.FromAPIVersionAndKind(to.APIVersion, to.Kind)
	resources := map[string]string{"Pod": "pods", "Node": "nodes", "Secret": "secrets"}
	resource, ok := resources[gvk.Kind]
	if boundToWebhook(to) {
		return apierrors.NewBadRequest(fmt.Sprintf("cannot bind token to object of type %s (feature gate APIServerWebhookAuthenticationToken is disabled)", gvk.String()))
	}
	if !ok || gvk.Group != "" {
		return apierrors.NewBadRequest(fmt.Sprintf("cannot bind token to object of type %s", gvk.String()))
	}
	namespace := b.Namespace
	if gvk.Kind == "Node" {
		namespace = ""
	}
	obj, err := t.objects.Get(ctx, object(resource, namespace, to.Name), metav1.GetOptions{})
	if err != nil {
		return err
	}
	m, ok := obj.(metav1.Object)
	if !ok {
		return fmt.Errorf("%s %q is a %T", resource, to.Name, obj)
	}
	if to.UID != "" && to.UID != m.GetUID() {
		return apierrors.NewConflict(schema.GroupResource{Group: gvk.Group, Resource: gvk.Kind}, to.Name,
			fmt.Errorf("the UID in the bound object reference (%s) does not match the UID in record. The object might have been deleted and then recreated", to.UID))
	}
	is := &ref{m.GetName(), string(m.GetUID())}
	switch o := obj.(type) {
	case *corev1.Pod:
		if o.Spec.ServiceAccountName != b.ServiceAccount.Name {
			return apierrors.NewBadRequest(fmt.Sprintf("cannot bind token for serviceaccount %q to pod running with different serviceaccount name.", b.ServiceAccount.Name))
		}
		b.Pod, b.Node = is, t.nodeOf(ctx, o)
	case *corev1.Node:
		b.Node = is
	case *corev1.Secret:
		b.Secret = is
	}
	return nil
}

// nodeOf notes where the pod runs; a node that is gone is noted by name only.
func (t *Tokens) nodeOf(ctx context.Context, pod *corev1.Pod) *ref {
	if pod.Spec.NodeName == "" {
		return nil
	}
	is := &ref{Name: pod.Spec.NodeName}
	if obj, err := t.objects.Get(ctx, object("nodes", "", is.Name), metav1.GetOptions{ResourceVersion: "0"}); err == nil {
		if node, ok := obj.(*corev1.Node); ok {
			is.UID = string(node.UID)
		}
	}
	return is
}
