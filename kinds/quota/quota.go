// Package quota says what each kind of object counts for against a
// ResourceQuota: which of the capped resources it uses, how much of them, and
// which scopes it falls into. The admission rule reserves by it and the quota
// controller recounts by it, so that both always agree.
//
// Everything here is pure. Facts: the evaluators of Kubernetes v1.37
// (pkg/quota/v1).
package quota

import (
	"slices"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/selection"
)

// Requirement is one condition of a quota's scopes.
type Requirement = corev1.ScopedResourceSelectorRequirement

// Meter measures the objects of one resource.
type Meter struct {
	// Resource is what it measures.
	Resource schema.GroupResource
	// fixed are the names that the kind's usage has besides those that measures
	// recognises.
	fixed    []corev1.ResourceName
	measures func(name corev1.ResourceName) bool
	usage    func(obj runtime.Object, now time.Time) corev1.ResourceList
	inScope  func(r Requirement, obj runtime.Object) bool
	missing  func(required []corev1.ResourceName, obj runtime.Object) error
}

// legacy are names from before every resource could be counted.
var legacy = map[schema.GroupResource]corev1.ResourceName{
	{Resource: "configmaps"}:             corev1.ResourceConfigMaps,
	{Resource: "resourcequotas"}:         corev1.ResourceQuotas,
	{Resource: "replicationcontrollers"}: corev1.ResourceReplicationControllers,
	{Resource: "secrets"}:                corev1.ResourceSecrets,
}

// ignored are reviews, which are not stored, and events, which never were
// capped.
var ignored = []schema.GroupResource{
	{Resource: "bindings"}, {Resource: "componentstatuses"}, {Resource: "events"}, {Group: "events.k8s.io", Resource: "events"},
	{Group: "authorization.k8s.io", Resource: "localsubjectaccessreviews"},
}

// Ignored says that a resource cannot be capped.
func Ignored(gr schema.GroupResource) bool { return slices.Contains(ignored, gr) }

// Counted is the name under which the number of a resource's objects is capped.
func Counted(gr schema.GroupResource) corev1.ResourceName {
	return corev1.ResourceName("count/" + gr.String())
}

// For returns the meter of a resource: most are merely counted. devices may be
// nil, where resource claims are not looked at.
func For(gr schema.GroupResource, devices Devices) Meter {
	switch gr {
	case schema.GroupResource{Resource: "pods"}:
		return podMeter()
	case schema.GroupResource{Resource: "services"}:
		return serviceMeter()
	case schema.GroupResource{Resource: "persistentvolumeclaims"}:
		return claimMeter()
	case schema.GroupResource{Group: "resource.k8s.io", Resource: "resourceclaims"}:
		return deviceMeter(devices)
	}
	names := []corev1.ResourceName{Counted(gr)}
	if alias, ok := legacy[gr]; ok {
		names = append(names, alias)
	}
	return Meter{Resource: gr, fixed: names, usage: func(runtime.Object, time.Time) corev1.ResourceList {
		used := corev1.ResourceList{}
		for _, name := range names {
			used[name] = count(1)
		}
		return used
	}}
}

// Measures picks from names those that the resource's objects can use, sorted.
func (m Meter) Measures(names []corev1.ResourceName) []corev1.ResourceName {
	var mine []corev1.ResourceName
	for _, name := range names {
		if slices.Contains(m.fixed, name) || m.measures != nil && m.measures(name) {
			mine = append(mine, name)
		}
	}
	slices.Sort(mine)
	return slices.Compact(mine)
}

// Usage is what an object uses at a time.
func (m Meter) Usage(obj runtime.Object, now time.Time) corev1.ResourceList { return m.usage(obj, now) }

// Missing says which of the required resources a pod's containers do not
// mention; nil if none.
func (m Meter) Missing(required []corev1.ResourceName, obj runtime.Object) error {
	if m.missing == nil {
		return nil
	}
	return m.missing(required, obj)
}

// InScope says whether an object meets one condition.
func (m Meter) InScope(r Requirement, obj runtime.Object) bool {
	return m.inScope != nil && m.inScope(r, obj)
}

// Scoped says whether an object falls into all scopes of a quota.
func (m Meter) Scoped(q *corev1.ResourceQuota, obj runtime.Object) bool {
	for _, r := range Scopes(q) {
		if !m.InScope(r, obj) {
			return false
		}
	}
	return true
}

// Scopes are all conditions of a quota, however they are written.
func Scopes(q *corev1.ResourceQuota) []Requirement {
	var all []Requirement
	for _, s := range q.Spec.Scopes {
		all = append(all, Requirement{ScopeName: s, Operator: corev1.ScopeSelectorOpExists})
	}
	if q.Spec.ScopeSelector != nil {
		all = append(all, q.Spec.ScopeSelector.MatchExpressions...)
	}
	return all
}

// fits says whether one of values meets a condition; with none, whether the
// absence of a value does.
func fits(r Requirement, values ...string) bool {
	if r.Operator == corev1.ScopeSelectorOpExists {
		return len(values) > 0
	}
	op, ok := map[corev1.ScopeSelectorOperator]selection.Operator{
		corev1.ScopeSelectorOpIn:           selection.In,
		corev1.ScopeSelectorOpNotIn:        selection.NotIn,
		corev1.ScopeSelectorOpDoesNotExist: selection.DoesNotExist,
	}[r.Operator]
	if !ok {
		return false
	}
	selector, err := labels.NewRequirement(string(r.ScopeName), op, r.Values)
	if err != nil {
		return false
	}
	if len(values) == 0 {
		return selector.Matches(labels.Set{})
	}
	return slices.ContainsFunc(values, func(v string) bool { return selector.Matches(labels.Set{string(r.ScopeName): v}) })
}

func count(n int64) resource.Quantity { return *resource.NewQuantity(n, resource.DecimalSI) }
