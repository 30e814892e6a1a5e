package core

import (
	"strings"

	corev1 "k8s.io/api/core/v1"
	apivalidation "k8s.io/apimachinery/pkg/api/validation"
	"k8s.io/apimachinery/pkg/util/sets"
	"k8s.io/apimachinery/pkg/util/validation/field"

	"github.com/sampan-dev/sampan/kinds"
)

func validateQuota(q *corev1.ResourceQuota) field.ErrorList {
	var f kinds.Faults
	at := kinds.NewPath("spec")
	checkQuotaList(&f, q.Spec.Hard, at.Child("hard"))
	checkScopes(&f, q, at.Child("scopes"))
	checkScopeSelector(&f, q, at.Child("scopeSelector").Child("matchExpressions"))
	return f.List()
}

func checkQuotaList(f *kinds.Faults, list corev1.ResourceList, at *kinds.Path) {
	for name, amount := range list {
		f.Join(quotaResourceName(name, at.Key(string(name))))
		f.Join(validateQuantity(name, amount, at.Key(string(name))))
	}
}

// scopeCovers says whether a scope makes sense for something that is counted.
func scopeCovers(scope corev1.ResourceQuotaScope, name corev1.ResourceName) bool {
	compute := strings.TrimPrefix(strings.TrimPrefix(string(name), "requests."), "limits.")
	isCompute := compute == "cpu" || compute == "memory"
	switch scope {
	case corev1.ResourceQuotaScopeBestEffort:
		return name == corev1.ResourcePods
	case corev1.ResourceQuotaScopeVolumeAttributesClass:
		return name == corev1.ResourcePersistentVolumeClaims || name == corev1.ResourceRequestsStorage
	case corev1.ResourceQuotaScopeTerminating, corev1.ResourceQuotaScopeNotTerminating, corev1.ResourceQuotaScopeNotBestEffort,
		corev1.ResourceQuotaScopePriorityClass, corev1.ResourceQuotaScopeCrossNamespacePodAffinity:
		return name == corev1.ResourcePods || isCompute
	}
	return true
}

var knownScopes = sets.New(corev1.ResourceQuotaScopeTerminating, corev1.ResourceQuotaScopeNotTerminating,
	corev1.ResourceQuotaScopeBestEffort, corev1.ResourceQuotaScopeNotBestEffort, corev1.ResourceQuotaScopePriorityClass,
	corev1.ResourceQuotaScopeCrossNamespacePodAffinity, corev1.ResourceQuotaScopeVolumeAttributesClass)

// checkHard complains about value for each capped resource outside the scope.
func checkHard(f *kinds.Faults, q *corev1.ResourceQuota, scope corev1.ResourceQuotaScope, value any, at *kinds.Path) {
	for name := range q.Spec.Hard {
		if (quotaResources.Has(name) || isQuotaHugePage(name)) && !scopeCovers(scope, name) {
			f.Invalid(at, value, "unsupported scope applied to resource")
		}
	}
}

func checkScopes(f *kinds.Faults, q *corev1.ResourceQuota, at *kinds.Path) {
	seen := sets.New[corev1.ResourceQuotaScope]()
	for _, scope := range q.Spec.Scopes {
		if !knownScopes.Has(scope) {
			f.Invalid(at, q.Spec.Scopes, "unsupported scope")
		}
		checkHard(f, q, scope, q.Spec.Scopes, at)
		seen.Insert(scope)
	}
	checkConflict(f, q, seen, at)
}

func checkConflict(f *kinds.Faults, q *corev1.ResourceQuota, seen sets.Set[corev1.ResourceQuotaScope], at *kinds.Path) {
	if seen.HasAll(corev1.ResourceQuotaScopeBestEffort, corev1.ResourceQuotaScopeNotBestEffort) {
		f.Invalid(at, q.Spec.Scopes, "conflicting scopes")
	}
	if seen.HasAll(corev1.ResourceQuotaScopeTerminating, corev1.ResourceQuotaScopeNotTerminating) {
		f.Invalid(at, q.Spec.Scopes, "conflicting scopes")
	}
}

func checkScopeSelector(f *kinds.Faults, q *corev1.ResourceQuota, at *kinds.Path) {
	if q.Spec.ScopeSelector == nil {
		return
	}
	seen := sets.New[corev1.ResourceQuotaScope]()
	for _, r := range q.Spec.ScopeSelector.MatchExpressions {
		if !knownScopes.Has(r.ScopeName) {
			f.Invalid(at.Child("scopeName"), r.ScopeName, "unsupported scope")
		}
		checkHard(f, q, r.ScopeName, q.Spec.ScopeSelector, at)
		valued := r.ScopeName == corev1.ResourceQuotaScopePriorityClass || r.ScopeName == corev1.ResourceQuotaScopeVolumeAttributesClass
		if knownScopes.Has(r.ScopeName) && !valued && r.Operator != corev1.ScopeSelectorOpExists {
			f.Invalid(at.Child("operator"), r.Operator, "must be 'Exists' when scope is any of ResourceQuotaScopeTerminating, "+
				"ResourceQuotaScopeNotTerminating, ResourceQuotaScopeBestEffort, ResourceQuotaScopeNotBestEffort or ResourceQuotaScopeCrossNamespacePodAffinity")
		}
		switch r.Operator {
		case corev1.ScopeSelectorOpIn, corev1.ScopeSelectorOpNotIn:
			if len(r.Values) == 0 {
				f.Required(at.Child("values"), "must be at least one value when `operator` is 'In' or 'NotIn' for scope selector")
			}
		case corev1.ScopeSelectorOpExists, corev1.ScopeSelectorOpDoesNotExist:
			if len(r.Values) > 0 {
				f.Invalid(at.Child("values"), r.Values, "must be no value when `operator` is 'Exist' or 'DoesNotExist' for scope selector")
			}
		default:
			f.Invalid(at.Child("operator"), r.Operator, "not a valid selector operator")
		}
		seen.Insert(r.ScopeName)
	}
	checkConflict(f, q, seen, at)
}

func validateQuotaUpdate(q, old *corev1.ResourceQuota) field.ErrorList {
	var f kinds.Faults
	f.Join(validateQuota(q))
	if !sets.New(q.Spec.Scopes...).Equal(sets.New(old.Spec.Scopes...)) {
		f.Invalid(kinds.NewPath("spec").Child("scopes"), q.Spec.Scopes, apivalidation.FieldImmutableErrorMsg)
	}
	return f.List()
}

func validateQuotaStatus(q, _ *corev1.ResourceQuota) field.ErrorList {
	var f kinds.Faults
	checkQuotaList(&f, q.Status.Hard, kinds.NewPath("status").Child("hard"))
	checkQuotaList(&f, q.Status.Used, kinds.NewPath("status").Child("used"))
	return f.List()
}
