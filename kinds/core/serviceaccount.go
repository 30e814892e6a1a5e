package core

import (
	"time"

	authenticationv1 "k8s.io/api/authentication/v1"
	corev1 "k8s.io/api/core/v1"
	apivalidation "k8s.io/apimachinery/pkg/api/validation"
	"k8s.io/apimachinery/pkg/runtime"

	"github.com/sampan-dev/sampan/kinds"
)

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
		Strategy:   kinds.Strategy{ValidateName: apivalidation.ValidateServiceAccountName, ReturnsDeleted: true},
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
		}},
	}
}
