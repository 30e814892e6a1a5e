// Package authentication says what the kinds of the authentication.k8s.io group
// are: questions about who somebody is. None is stored.
package authentication

import (
	authenticationv1 "k8s.io/api/authentication/v1"
	"k8s.io/apimachinery/pkg/runtime"

	"github.com/sampan-dev/sampan/kinds"
)

// Kinds lists the group's kinds.
func Kinds() []*kinds.Kind {
	return []*kinds.Kind{
		review("SelfSubjectReview", "selfsubjectreviews", "selfsubjectreview", func() kinds.Object { return &authenticationv1.SelfSubjectReview{} }),
		review("TokenReview", "tokenreviews", "tokenreview", func() kinds.Object { return &authenticationv1.TokenReview{} }),
	}
}

// review is a kind that one can only create, and whose answer is its status.
func review(kind, resource, singular string, empty func() kinds.Object) *kinds.Kind {
	return &kinds.Kind{
		GVK:      authenticationv1.SchemeGroupVersion.WithKind(kind),
		Resource: resource,
		Singular: singular,
		Verbs:    []string{"create"},
		New:      empty,
		NewList:  func() runtime.Object { return empty() },
	}
}
