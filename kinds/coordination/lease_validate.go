package coordination

import (
	"strings"

	coordinationv1 "k8s.io/api/coordination/v1"
	"k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/apimachinery/pkg/util/validation/field"

	"github.com/sampan-dev/sampan/kinds"
)

func validate(l *coordinationv1.Lease) field.ErrorList {
	var f kinds.Faults
	at, spec := kinds.NewPath("spec"), &l.Spec
	if spec.LeaseDurationSeconds != nil && *spec.LeaseDurationSeconds <= 0 {
		f.Invalid(at.Child("leaseDurationSeconds"), spec.LeaseDurationSeconds, "must be greater than 0")
	}
	if spec.LeaseTransitions != nil && *spec.LeaseTransitions < 0 {
		f.Invalid(at.Child("leaseTransitions"), spec.LeaseTransitions, "must be greater than or equal to 0")
	}
	// A strategy without a domain is one of Kubernetes' own. Its path is
	// upstream's, doubled.
	strategy := kinds.Deref(spec.Strategy)
	path := at.Child("strategy").Child("strategy")
	switch {
	case spec.Strategy == nil:
	case strings.Contains(string(strategy), "/"):
		f.Each(path, strategy, validation.IsQualifiedName(string(strategy)))
	default:
		kinds.OneOf(&f, path, strategy, coordinationv1.OldestEmulationVersion)
	}
	if kinds.Deref(spec.PreferredHolder) != "" && strategy == "" {
		f.Forbidden(at.Child("preferredHolder"), "may only be specified if `strategy` is defined")
	}
	return f.List()
}

func validateUpdate(l, _ *coordinationv1.Lease) field.ErrorList { return validate(l) }
