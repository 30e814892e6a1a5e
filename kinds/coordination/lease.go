// Package coordination says what the kinds of the coordination.k8s.io group are.
package coordination

import (
	"time"

	coordinationv1 "k8s.io/api/coordination/v1"
	"k8s.io/apimachinery/pkg/runtime"

	"github.com/sampan-dev/sampan/kinds"
)

// Kinds lists the group's kinds.
func Kinds() []*kinds.Kind { return []*kinds.Kind{Lease()} }

// Lease is the kind by which programs claim something for a while.
func Lease() *kinds.Kind {
	return &kinds.Kind{
		GVK:        coordinationv1.SchemeGroupVersion.WithKind("Lease"),
		Resource:   "leases",
		Singular:   "lease",
		Namespaced: true,
		Storage:    "leases",
		New:        func() kinds.Object { return &coordinationv1.Lease{} },
		NewList:    func() runtime.Object { return &coordinationv1.LeaseList{} },
		Strategy: kinds.Strategy{
			AnyFinalizer:              true,
			PrepareCreate:             kinds.Each(prepare),
			PrepareUpdate:             kinds.Pair(prepareUpdate),
			Validate:                  kinds.Check(validate),
			ValidateUpdate:            kinds.CheckUpdate(validateUpdate),
			CreateOnUpdate:            true,
			ForbidUnconditionalUpdate: true,
		},
		Table: kinds.Table{
			Columns: kinds.Explained(leaseTexts(), "Name", "Holder", "Age"),
			Row: kinds.Row(func(l *coordinationv1.Lease, now time.Time) []any {
				return []any{l.Name, kinds.Deref(l.Spec.HolderIdentity), kinds.Created(l, now)}
			}),
		},
	}
}

// prepare drops what coordinated elections need, which are off by default, as
// upstream with its default gates.
func prepare(l *coordinationv1.Lease) { l.Spec.Strategy, l.Spec.PreferredHolder = nil, nil }

// prepareUpdate drops it too, unless it was there before.
func prepareUpdate(l, old *coordinationv1.Lease) {
	if old.Spec.Strategy == nil {
		l.Spec.Strategy = nil
	}
	if old.Spec.PreferredHolder == nil {
		l.Spec.PreferredHolder = nil
	}
}
