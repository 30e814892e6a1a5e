// Package authorization says what the kinds of the authorization.k8s.io group
// are: questions about who may do what. None is stored.
package authorization

import (
	authorizationv1 "k8s.io/api/authorization/v1"
	"k8s.io/apimachinery/pkg/runtime"

	"github.com/sampan-dev/sampan/kinds"
)

// Kinds lists the group's kinds.
func Kinds() []*kinds.Kind {
	local := review("LocalSubjectAccessReview", "localsubjectaccessreviews", "localsubjectaccessreview",
		func() kinds.Object { return &authorizationv1.LocalSubjectAccessReview{} })
	local.Namespaced = true
	local.Strategy.Validate = kinds.Check(validateLocal)
	subject := review("SubjectAccessReview", "subjectaccessreviews", "subjectaccessreview",
		func() kinds.Object { return &authorizationv1.SubjectAccessReview{} })
	subject.Strategy.Validate = kinds.Check(validateSubject)
	self := review("SelfSubjectAccessReview", "selfsubjectaccessreviews", "selfsubjectaccessreview",
		func() kinds.Object { return &authorizationv1.SelfSubjectAccessReview{} })
	self.Strategy.Validate = kinds.Check(validateSelf)
	rules := review("SelfSubjectRulesReview", "selfsubjectrulesreviews", "selfsubjectrulesreview",
		func() kinds.Object { return &authorizationv1.SelfSubjectRulesReview{} })
	return []*kinds.Kind{local, self, rules, subject}
}

// review is a kind that one can only create, and whose answer is its status.
func review(kind, resource, singular string, empty func() kinds.Object) *kinds.Kind {
	return &kinds.Kind{
		GVK:      authorizationv1.SchemeGroupVersion.WithKind(kind),
		Resource: resource,
		Singular: singular,
		Verbs:    []string{"create"},
		New:      empty,
		NewList:  func() runtime.Object { return empty() },
	}
}
