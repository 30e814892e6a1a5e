package authorization

import (
	"fmt"

	authorizationv1 "k8s.io/api/authorization/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	metavalidation "k8s.io/apimachinery/pkg/apis/meta/v1/validation"
	"k8s.io/apimachinery/pkg/util/validation/field"

	"github.com/sampan-dev/sampan/kinds"
)

func validateSubject(r *authorizationv1.SubjectAccessReview) field.ErrorList {
	var f kinds.Faults
	checkSubject(&f, &r.Spec)
	checkMeta(&f, r.ObjectMeta)
	return f.List()
}

func validateSelf(r *authorizationv1.SelfSubjectAccessReview) field.ErrorList {
	var f kinds.Faults
	checkEither(&f, r.Spec.ResourceAttributes, r.Spec.NonResourceAttributes)
	checkSelectors(&f, r.Spec.ResourceAttributes)
	checkMeta(&f, r.ObjectMeta)
	return f.List()
}

// validateLocal: the question is about the namespace it is asked in.
func validateLocal(r *authorizationv1.LocalSubjectAccessReview) field.ErrorList {
	var f kinds.Faults
	checkSubject(&f, &r.Spec)
	local := r.ObjectMeta
	local.Namespace, local.ManagedFields = "", nil
	if !kinds.Same(local, metav1.ObjectMeta{}) {
		f.Invalid(kinds.NewPath("metadata"), r.ObjectMeta, "must be empty except for namespace")
	}
	if asked := r.Spec.ResourceAttributes; asked != nil && asked.Namespace != r.Namespace {
		f.Invalid(kinds.NewPath("spec.resourceAttributes.namespace"), asked.Namespace, "must match metadata.namespace")
	}
	if asked := r.Spec.NonResourceAttributes; asked != nil {
		f.Invalid(kinds.NewPath("spec.nonResourceAttributes"), asked, "disallowed on this kind of request")
	}
	return f.List()
}

func checkMeta(f *kinds.Faults, meta metav1.ObjectMeta) {
	own := meta
	own.ManagedFields = nil
	if !kinds.Same(own, metav1.ObjectMeta{}) {
		f.Invalid(kinds.NewPath("metadata"), meta, "must be empty")
	}
}

func checkSubject(f *kinds.Faults, spec *authorizationv1.SubjectAccessReviewSpec) {
	checkEither(f, spec.ResourceAttributes, spec.NonResourceAttributes)
	if spec.User == "" && len(spec.Groups) == 0 {
		f.Invalid(kinds.NewPath("spec").Child("user"), spec.User, "at least one of user or group must be specified")
	}
	checkSelectors(f, spec.ResourceAttributes)
}

func checkEither(f *kinds.Faults, resource *authorizationv1.ResourceAttributes, path *authorizationv1.NonResourceAttributes) {
	if (resource == nil) == (path == nil) {
		f.Invalid(kinds.NewPath("spec"), path, "exactly one of nonResourceAttributes or resourceAttributes must be specified")
	}
}

func checkSelectors(f *kinds.Faults, resource *authorizationv1.ResourceAttributes) {
	if resource == nil {
		return
	}
	at := kinds.NewPath("spec.resourceAttributes")
	if s := resource.FieldSelector; s != nil {
		here := at.Child("fieldSelector")
		checkSelector(f, s.RawSelector, len(s.Requirements), here)
		for i, r := range s.Requirements {
			f.Join(metavalidation.ValidateFieldSelectorRequirement(r,
				metavalidation.FieldSelectorValidationOptions{AllowUnknownOperatorInRequirement: true}, here.Child("requirements").Index(i).Field()))
		}
	}
	if s := resource.LabelSelector; s != nil {
		here := at.Child("labelSelector")
		checkSelector(f, s.RawSelector, len(s.Requirements), here)
		for i, r := range s.Requirements {
			f.Join(metavalidation.ValidateLabelSelectorRequirement(r,
				metavalidation.LabelSelectorValidationOptions{AllowUnknownOperatorInRequirement: true}, here.Child("requirements").Index(i).Field()))
		}
	}
}

func checkSelector(f *kinds.Faults, raw string, requirements int, at *kinds.Path) {
	switch {
	case raw != "" && requirements > 0:
		f.Invalid(at.Child("rawSelector"), raw, "may not specified at the same time as requirements")
	case raw == "" && requirements == 0:
		f.Required(at.Child("requirements"), fmt.Sprintf("when %s is specified, requirements or rawSelector is required", at))
	}
}
