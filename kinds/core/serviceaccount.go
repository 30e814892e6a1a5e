package core

import (
	"time"

	authenticationv1 "k8s.io/api/authentication/v1"
	corev1 "k8s.io/api/core/v1"
	apivalidation "k8s.io/apimachinery/pkg/api/validation"
	"k8s.io/apimachinery/pkg/runtime"

	"github.com/sampan-dev/sampan/kinds"
)

// tokenSeconds is for how long a token is good that is asked for without saying so.
const tokenSeconds = 60 * 60

// ServiceAccount is the kind for the identity of programs that run in pods.
func ServiceAccount() *kinds.Kind {
	return &kinds.Kind{
		GVK:        gvk("ServiceAccount"),
		Resource:   "serviceaccounts",
		Singular:   "serviceaccount",
		Short:      []string{"sa"},
		Namespaced: true,
		Storage:    "serviceaccounts",
		New:        func() kinds.Object { return &corev1.ServiceAccount{} },
		NewList:    func() runtime.Object { return &corev1.ServiceAccountList{} },
		Strategy: kinds.Strategy{
			NamesOnUpdate:  true,
			ValidateName:   apivalidation.ValidateServiceAccountName,
			PrepareCreate:  kinds.Each(trimSecrets),
			PrepareUpdate:  kinds.Pair(func(a, _ *corev1.ServiceAccount) { trimSecrets(a) }),
			Warnings:       kinds.Warn(serviceAccountWarnings),
			ReturnsDeleted: true,
		},
		Table: kinds.Table{
			Columns: kinds.Columns("Name", "Age"),
			Row: kinds.Row(func(a *corev1.ServiceAccount, now time.Time) []any {
				return []any{a.Name, kinds.Created(a, now)}
			}),
		},
		Subresources: []kinds.Subresource{{
			Name:  "token",
			GVK:   authenticationv1.SchemeGroupVersion.WithKind("TokenRequest"),
			Verbs: []string{"create"},
			New:   func() runtime.Object { return &authenticationv1.TokenRequest{} },
			Default: kinds.Each(func(r *authenticationv1.TokenRequest) {
				if r.Spec.ExpirationSeconds == nil {
					r.Spec.ExpirationSeconds = new(int64(tokenSeconds))
				}
			}),
		}},
	}
}

// trimSecrets keeps the names alone of the secrets that an account refers to.
func trimSecrets(a *corev1.ServiceAccount) {
	for i := range a.Secrets {
		a.Secrets[i] = corev1.ObjectReference{Name: a.Secrets[i].Name}
	}
}

// mountableOnly is the annotation that once confined pods to their account's secrets.
const mountableOnly = "kubernetes.io/enforce-mountable-secrets"

// serviceAccountWarnings tell who newly uses that annotation what to do instead.
func serviceAccountWarnings(a, old *corev1.ServiceAccount) []string {
	if old != nil {
		if _, ok := old.Annotations[mountableOnly]; ok {
			return nil
		}
	}
	if _, ok := a.Annotations[mountableOnly]; !ok {
		return nil
	}
	return []string{"metadata.annotations[" + mountableOnly + "]: deprecated in v1.32+; prefer separate namespaces to isolate access to mounted secrets"}
}
