package authz

import (
	"strings"
	"sync"

	rbacv1 "k8s.io/api/rbac/v1"
)

// holdings are all grants of one subject. Their rules are sorted by what they are
// about when the subject first asks for something: most subjects never do.
type holdings struct {
	grants []*grant

	once    sync.Once
	exact   map[about][]right // rules that name group and resource
	wide    []right           // rules with a "*" among their groups or resources
	paths   []right           // rules on URLs
	missing []error           // roles that do not exist
}

// about is what a rule can name.
type about struct{ group, resource, subresource string }

// right is a rule, by a grant.
type right struct {
	rule  *rbacv1.PolicyRule
	grant *grant
}

// find gives a grant that allows q; nil when there is none.
func (h *holdings) find(q *Attributes) *grant {
	h.once.Do(h.sort)
	if q.Path != "" {
		return first(h.paths, q)
	}
	if g := first(h.exact[about{q.Group, q.Resource, q.Subresource}], q); g != nil {
		return g
	}
	return first(h.wide, q)
}

func first(among []right, q *Attributes) *grant {
	for i := range among {
		if allows(among[i].rule, q) {
			return among[i].grant
		}
	}
	return nil
}

func (h *holdings) sort() {
	h.exact = map[about][]right{}
	for _, g := range h.grants {
		if g.missing != nil {
			h.missing = append(h.missing, g.missing)
			continue
		}
		for i := range g.rules {
			h.file(right{&g.rules[i], g})
		}
	}
}

// file puts a rule where it is looked for.
func (h *holdings) file(one right) {
	if len(one.rule.NonResourceURLs) > 0 {
		h.paths = append(h.paths, one)
	}
	if isWide(one.rule) {
		h.wide = append(h.wide, one)
		return
	}
	for _, group := range one.rule.APIGroups {
		for _, name := range one.rule.Resources {
			resource, sub, _ := strings.Cut(name, "/")
			at := about{group, resource, sub}
			h.exact[at] = append(h.exact[at], one)
		}
	}
}

func isWide(r *rbacv1.PolicyRule) bool {
	for _, group := range r.APIGroups {
		if group == rbacv1.APIGroupAll {
			return true
		}
	}
	for _, name := range r.Resources {
		if strings.HasPrefix(name, "*") {
			return true
		}
	}
	return false
}
