package authz

import (
	"bufio"
	_ "embed"
	"fmt"
	"reflect"
	"slices"
	"strings"

	rbacv1 "k8s.io/api/rbac/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/component-helpers/auth/rbac/validation"
)

//go:embed bootstrap.txt
var bootstrapText string

const (
	autoUpdate    = "rbac.authorization.kubernetes.io/autoupdate"
	bootstrapping = "kubernetes.io/bootstrapping"
	aggregateTo   = "rbac.authorization.k8s.io/aggregate-to-"
)

// Defaults are the roles and bindings that every cluster starts with.
type Defaults struct {
	ClusterRoles        []*rbacv1.ClusterRole
	Roles               []*rbacv1.Role
	ClusterRoleBindings []*rbacv1.ClusterRoleBinding
	RoleBindings        []*rbacv1.RoleBinding
}

// Bootstrap reads the table of defaults. Roles that aggregate others have their
// rules already gathered.
func Bootstrap() (*Defaults, error) { return parse(bootstrapText) }

func parse(text string) (*Defaults, error) {
	d := &Defaults{}
	var rules *[]rbacv1.PolicyRule
	lines := bufio.NewScanner(strings.NewReader(text))
	for n := 1; lines.Scan(); n++ {
		line := lines.Text()
		if line == "" || strings.HasPrefix(line, "#") {
			continue
		}
		var err error
		if rule, ok := strings.CutPrefix(line, "\t"); ok {
			err = addRule(rules, strings.Fields(rule))
		} else {
			rules, err = d.add(strings.Fields(line))
		}
		if err != nil {
			return nil, fmt.Errorf("default policy, line %d: %w", n, err)
		}
	}
	d.gather()
	return d, lines.Err()
}

// add files the object that a line starts, and says where its rules go.
func (d *Defaults) add(words []string) (*[]rbacv1.PolicyRule, error) {
	if len(words) < 2 {
		return nil, fmt.Errorf("too few words in %q", words)
	}
	namespace, name, namespaced := strings.Cut(words[1], "/")
	if !namespaced {
		namespace, name = "", words[1]
	}
	meta := metav1.ObjectMeta{Namespace: namespace, Name: name,
		Labels: map[string]string{bootstrapping: "rbac-defaults"}, Annotations: map[string]string{autoUpdate: "true"}}
	switch words[0] {
	case "clusterrole":
		r := &rbacv1.ClusterRole{ObjectMeta: meta}
		for _, w := range words[2:] {
			aggregation(r, w)
		}
		d.ClusterRoles = append(d.ClusterRoles, r)
		return &r.Rules, nil
	case "role":
		r := &rbacv1.Role{ObjectMeta: meta}
		d.Roles = append(d.Roles, r)
		return &r.Rules, nil
	case "clusterbinding":
		ref := rbacv1.RoleRef{APIGroup: rbacv1.GroupName, Kind: "ClusterRole", Name: words[2]}
		d.ClusterRoleBindings = append(d.ClusterRoleBindings,
			&rbacv1.ClusterRoleBinding{ObjectMeta: meta, RoleRef: ref, Subjects: subjects(words[3:])})
		return nil, nil
	case "binding":
		kind, role, _ := strings.Cut(words[2], "/")
		ref := rbacv1.RoleRef{APIGroup: rbacv1.GroupName, Kind: "Role", Name: role}
		if kind == "clusterrole" {
			ref.Kind = "ClusterRole"
		}
		d.RoleBindings = append(d.RoleBindings,
			&rbacv1.RoleBinding{ObjectMeta: meta, RoleRef: ref, Subjects: subjects(words[3:])})
		return nil, nil
	}
	return nil, fmt.Errorf("unknown word %q", words[0])
}

func aggregation(r *rbacv1.ClusterRole, word string) {
	if from, ok := strings.CutPrefix(word, "aggregates="); ok {
		r.AggregationRule = &rbacv1.AggregationRule{ClusterRoleSelectors: []metav1.LabelSelector{
			{MatchLabels: map[string]string{aggregateTo + from: "true"}}}}
	}
	if to, ok := strings.CutPrefix(word, "aggregated-to="); ok {
		r.Labels[aggregateTo+to] = "true"
	}
}

func addRule(rules *[]rbacv1.PolicyRule, words []string) error {
	if rules == nil || len(words) < 3 {
		return fmt.Errorf("misplaced or short rule %q", words)
	}
	rule := rbacv1.PolicyRule{Verbs: strings.Split(words[0], ",")}
	if words[1] == "urls" {
		rule.NonResourceURLs = strings.Split(words[2], ",")
		*rules = append(*rules, rule)
		return nil
	}
	for _, group := range strings.Split(words[1], ",") {
		if group == "core" {
			group = ""
		}
		rule.APIGroups = append(rule.APIGroups, group)
	}
	rule.Resources = strings.Split(words[2], ",")
	for _, w := range words[3:] {
		names, ok := strings.CutPrefix(w, "names=")
		if !ok {
			return fmt.Errorf("unknown word %q in a rule", w)
		}
		rule.ResourceNames = strings.Split(names, ",")
	}
	*rules = append(*rules, rule)
	return nil
}

func subjects(words []string) []rbacv1.Subject {
	var out []rbacv1.Subject
	for _, w := range words {
		kind, name, _ := strings.Cut(w, ":")
		switch kind {
		case "user":
			out = append(out, rbacv1.Subject{Kind: rbacv1.UserKind, APIGroup: rbacv1.GroupName, Name: name})
		case "group":
			out = append(out, rbacv1.Subject{Kind: rbacv1.GroupKind, APIGroup: rbacv1.GroupName, Name: name})
		case "sa":
			namespace, name, _ := strings.Cut(name, "/")
			out = append(out, rbacv1.Subject{Kind: rbacv1.ServiceAccountKind, Namespace: namespace, Name: name})
		}
	}
	return out
}

// gather fills the roles that aggregate others, in as many rounds as they nest.
func (d *Defaults) gather() {
	for changed := true; changed; {
		changed = false
		for _, r := range d.ClusterRoles {
			if rules, differ := Aggregate(r, d.ClusterRoles); differ {
				r.Rules, changed = rules, true
			}
		}
	}
}

// Aggregate gives the rules that a role with an aggregation rule should hold: those
// of all roles that it selects, selector by selector and by their names, none twice.
// The order is upstream's: another controller that aggregates would else write against
// this one for ever. differ is false when it holds them already, or aggregates nothing.
func Aggregate(role *rbacv1.ClusterRole, all []*rbacv1.ClusterRole) (rules []rbacv1.PolicyRule, differ bool) {
	if role.AggregationRule == nil {
		return nil, false
	}
	all = slices.SortedFunc(slices.Values(all), func(a, b *rbacv1.ClusterRole) int { return strings.Compare(a.Name, b.Name) })
	for _, s := range role.AggregationRule.ClusterRoleSelectors {
		selector, err := metav1.LabelSelectorAsSelector(&s)
		if err != nil {
			continue // validation refuses such a selector on write
		}
		for _, r := range all {
			if r.Name == role.Name || !selector.Matches(labels.Set(r.Labels)) {
				continue
			}
			for _, rule := range r.Rules {
				if !slices.ContainsFunc(rules, func(have rbacv1.PolicyRule) bool { return reflect.DeepEqual(have, rule) }) {
					rules = append(rules, rule)
				}
			}
		}
	}
	return rules, !equality.Semantic.DeepEqual(rules, role.Rules)
}

// RepairRules adds to have the rules of want that it does not cover: a start
// never takes away what an administrator added. An annotation autoupdate=false
// keeps the role as it is. changed is false when nothing is missing.
func RepairRules(meta metav1.Object, have, want []rbacv1.PolicyRule) (rules []rbacv1.PolicyRule, changed bool) {
	if meta.GetAnnotations()[autoUpdate] == "false" {
		return have, false
	}
	covered, missing := validation.Covers(have, want)
	if covered {
		return have, false
	}
	return append(slices.Clone(have), missing...), true
}

// RepairSubjects is RepairRules for the subjects of a binding.
func RepairSubjects(meta metav1.Object, have, want []rbacv1.Subject) (out []rbacv1.Subject, changed bool) {
	if meta.GetAnnotations()[autoUpdate] == "false" {
		return have, false
	}
	out = slices.Clone(have)
	for _, s := range want {
		if !slices.Contains(have, s) {
			out = append(out, s)
		}
	}
	return out, len(out) != len(have)
}
