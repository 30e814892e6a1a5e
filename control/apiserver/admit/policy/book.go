package policy

import (
	"sync"

	admissionregistrationv1 "k8s.io/api/admissionregistration/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/sampan-dev/sampan/control/apiserver/admit/match"
)

// book keeps the policies that are bound, ready to be asked. A policy of the same
// generation stays compiled. P is what is kept of a policy.
type book[P, T, B metav1.Object] struct {
	read func(policy T) P
	bind func(b B) (policy string, ready *binding)

	mu       sync.Mutex // guards what follows
	policies *[]T
	bindings *[]B
	kept     map[edition]P
	bound    []bound[P]
}

// bound is a policy with its bindings; never none.
type bound[P any] struct {
	policy   P
	bindings []*binding
}

// edition is a policy as one generation has it.
type edition struct {
	uid        types.UID
	generation int64
}

// of returns the bound policies, in the order of their names.
func (b *book[P, T, B]) of(policies *[]T, bindings *[]B) []bound[P] {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.policies == policies && b.bindings == bindings {
		return b.bound
	}
	byPolicy := map[string][]*binding{}
	for _, each := range *bindings {
		name, ready := b.bind(each)
		byPolicy[name] = append(byPolicy[name], ready)
	}
	kept := make(map[edition]P, len(*policies))
	var all []bound[P]
	for _, p := range *policies {
		if len(byPolicy[p.GetName()]) == 0 {
			continue
		}
		key := edition{p.GetUID(), p.GetGeneration()}
		ready, ok := b.kept[key]
		if !ok {
			ready = b.read(p)
		}
		kept[key] = ready
		all = append(all, bound[P]{ready, byPolicy[p.GetName()]})
	}
	b.policies, b.bindings, b.kept, b.bound = policies, bindings, kept, all
	return all
}

// binding is what both sorts of bindings have.
type binding struct {
	name    string
	params  *admissionregistrationv1.ParamRef
	matches *matcher // nil matches all
	actions []admissionregistrationv1.ValidationAction
}

func bindValidating(b *admissionregistrationv1.ValidatingAdmissionPolicyBinding) (string, *binding) {
	return b.Spec.PolicyName, &binding{name: b.Name, params: b.Spec.ParamRef, matches: newMatcher(b.Spec.MatchResources), actions: b.Spec.ValidationActions}
}

func bindMutating(b *admissionregistrationv1.MutatingAdmissionPolicyBinding) (string, *binding) {
	return b.Spec.PolicyName, &binding{name: b.Name, params: b.Spec.ParamRef, matches: newMatcher(b.Spec.MatchResources)}
}

// matcher says which requests a policy or binding is about.
type matcher struct {
	resources *admissionregistrationv1.MatchResources
	selectors match.Selectors
}

func newMatcher(m *admissionregistrationv1.MatchResources) *matcher {
	if m == nil {
		return nil
	}
	return &matcher{m, match.NewSelectors(m.NamespaceSelector, m.ObjectSelector)}
}
