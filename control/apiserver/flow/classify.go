package flow

import (
	"cmp"
	"slices"
	"strings"

	flowcontrolv1 "k8s.io/api/flowcontrol/v1"

	"github.com/sampan-dev/sampan/control/apiserver/resource"
	"github.com/sampan-dev/sampan/internal/identity"
)

// digest of a request: what schemas look at.
type request struct {
	user  identity.Identity
	asked resource.Asked
	path  string
	// namespace is the target's, or for a namespace its own name, as upstream.
	namespace string
	// name is the one object that a list or watch is limited to, or the target's.
	name string
}

// schemaRule is one FlowSchema, ready to be matched. It is read-only.
type schemaRule struct {
	name string
	// uid and levelUID are what the answer's headers say.
	uid, levelUID []string
	precedence    int32
	by            flowcontrolv1.FlowDistinguisherMethodType
	rules         []flowcontrolv1.PolicyRulesWithSubjects
	level         *level
	seed          uint64
	told          schemaMetrics
}

func (o *Order) compile(s *flowcontrolv1.FlowSchema, l *level) *schemaRule {
	r := &schemaRule{name: s.Name, uid: []string{string(s.UID)}, levelUID: []string{l.uid}, precedence: s.Spec.MatchingPrecedence, rules: s.Spec.Rules,
		level: l, seed: hash(0, s.Name), told: o.metrics.of(l.name, s.Name)}
	if m := s.Spec.DistinguisherMethod; m != nil {
		r.by = m.Type
	}
	return r
}

// bySchemaPrecedence orders schemas: the lower number first, then by name.
func bySchemaPrecedence(a, b *schemaRule) int {
	return cmp.Or(cmp.Compare(a.precedence, b.precedence), strings.Compare(a.name, b.name))
}

// classify finds the schema of a request. The catch-all schema fits everybody; a
// user without groups, whom it does not, gets it all the same.
func (p *plan) classify(r *request) *schemaRule {
	var last *schemaRule
	for _, s := range p.schemas {
		if s.fits(r) {
			return s
		}
		if s.name == flowcontrolv1.FlowSchemaNameCatchAll {
			last = s
		}
	}
	return last
}

// flow is the number of the flow that a request of this schema belongs to, and
// the name that tells it from the schema's others.
func (s *schemaRule) flow(r *request) (uint64, string) {
	switch s.by {
	case flowcontrolv1.FlowDistinguisherMethodByUserType:
		return hash(s.seed, r.user.Name), r.user.Name
	case flowcontrolv1.FlowDistinguisherMethodByNamespaceType:
		return hash(s.seed, r.namespace), r.namespace
	}
	return hash(s.seed, ""), ""
}

func (s *schemaRule) fits(r *request) bool {
	for i := range s.rules {
		rule := &s.rules[i]
		if !fitsSubject(rule.Subjects, r.user) {
			continue
		}
		if r.asked.Resource && fitsResource(rule.ResourceRules, r) || !r.asked.Resource && fitsPath(rule.NonResourceRules, r) {
			return true
		}
	}
	return false
}

func fitsSubject(subjects []flowcontrolv1.Subject, who identity.Identity) bool {
	for i := range subjects {
		switch s := &subjects[i]; {
		case s.User != nil:
			if s.User.Name == flowcontrolv1.NameAll || s.User.Name == who.Name {
				return true
			}
		case s.Group != nil:
			if s.Group.Name == flowcontrolv1.NameAll || who.In(s.Group.Name) {
				return true
			}
		case s.ServiceAccount != nil:
			namespace, name, ok := identity.SplitServiceAccount(who.Name)
			if ok && namespace == s.ServiceAccount.Namespace && (s.ServiceAccount.Name == flowcontrolv1.NameAll || s.ServiceAccount.Name == name) {
				return true
			}
		}
	}
	return false
}

func fitsResource(rules []flowcontrolv1.ResourcePolicyRule, r *request) bool {
	t := r.asked.Target
	for i := range rules {
		rule := &rules[i]
		if !has(rule.Verbs, r.asked.Verb) || !has(rule.APIGroups, t.Resource.Group) || !hasResource(rule.Resources, t.Resource.Resource, t.Subresource) {
			continue
		}
		if r.namespace == "" && rule.ClusterScope || r.namespace != "" && has(rule.Namespaces, r.namespace) {
			return true
		}
	}
	return false
}

func fitsPath(rules []flowcontrolv1.NonResourcePolicyRule, r *request) bool {
	for i := range rules {
		if has(rules[i].Verbs, r.asked.Verb) && slices.ContainsFunc(rules[i].NonResourceURLs, func(rule string) bool { return below(rule, r.path) }) {
			return true
		}
	}
	return false
}

// below says whether path is rule's or below it; "/x" covers "/x/y", too, as
// upstream.
func below(rule, path string) bool {
	if rule == flowcontrolv1.NonResourceAll || rule == path {
		return true
	}
	rest, ok := strings.CutPrefix(path, strings.TrimSuffix(strings.TrimSuffix(rule, "*"), "/"))
	return ok && strings.HasPrefix(rest, "/")
}

// has: "*" stands for all, and then alone.
func has(list []string, want string) bool {
	return len(list) == 1 && list[0] == "*" || slices.Contains(list, want)
}

func hasResource(list []string, resource, sub string) bool {
	if sub == "" || len(list) == 1 && list[0] == flowcontrolv1.ResourceAll {
		return has(list, resource)
	}
	return slices.ContainsFunc(list, func(have string) bool {
		rest, ok := strings.CutPrefix(have, resource)
		return ok && len(rest) == len(sub)+1 && rest[0] == '/' && rest[1:] == sub
	})
}
