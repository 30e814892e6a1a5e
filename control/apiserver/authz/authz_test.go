package authz

import (
	"flag"
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"

	authorizationv1 "k8s.io/api/authorization/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"

	"github.com/sampan-dev/sampan/internal/identity"
)

var update = flag.Bool("update", false, "rewrite the transcripts in testdata")

// held is a policy that does not change.
type held struct {
	*Defaults
	version int64
}

func (h *held) Version() int64                      { return h.version }
func (h *held) ClusterRoles() []*rbacv1.ClusterRole { return h.Defaults.ClusterRoles }
func (h *held) Roles() []*rbacv1.Role               { return h.Defaults.Roles }
func (h *held) ClusterRoleBindings() []*rbacv1.ClusterRoleBinding {
	return h.Defaults.ClusterRoleBindings
}
func (h *held) RoleBindings() []*rbacv1.RoleBinding { return h.Defaults.RoleBindings }

func policy(t *testing.T, text string) *held {
	t.Helper()
	d, err := parse(text)
	if err != nil {
		t.Fatal(err)
	}
	return &held{Defaults: d}
}

func who(words string) identity.Identity {
	names := strings.Split(words, ",")
	return identity.Identity{Name: names[0], Groups: names[1:]}
}

// ask reads "USER[,GROUP...] VERB RESOURCE[/SUB] NAMESPACE/NAME" or
// "USER VERB url PATH".
func ask(line string) Attributes {
	w := strings.Fields(line)
	q := Attributes{User: who(w[0]), Verb: w[1]}
	if w[2] == "url" {
		q.Path = w[3]
		return q
	}
	q.Namespace, q.Name, _ = strings.Cut(w[3], "/")
	q.Resource, q.Subresource, _ = strings.Cut(w[2], "/")
	if group, resource, ok := strings.Cut(q.Resource, "."); ok {
		q.Group, q.Resource = group, resource
	}
	return q
}

func TestAuthorize(t *testing.T) {
	const path = "testdata/rbac.txt"
	raw, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	rules, questions, ok := strings.Cut(string(raw), "----\n")
	if !ok {
		t.Fatal("the transcript has no questions")
	}
	a := New(policy(t, rules))
	var got strings.Builder
	for line := range strings.Lines(questions) {
		question, _, _ := strings.Cut(strings.TrimSuffix(line, "\n"), " = ")
		allowed, reason := a.Authorize(t.Context(), ask(question))
		answer := map[bool]string{true: "yes", false: "no"}[allowed]
		fmt.Fprintln(&got, strings.TrimSpace(question+" = "+answer+" "+reason))
	}
	if *update {
		if err := os.WriteFile(path, []byte(rules+"----\n"+got.String()), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if got.String() != questions {
		t.Errorf("got:\n%s\nwant:\n%s", got.String(), questions)
	}
}

func TestDefaults(t *testing.T) {
	d, err := Bootstrap()
	if err != nil {
		t.Fatal(err)
	}
	a := New(&held{Defaults: d})
	bind := func(user, role string) {
		d.ClusterRoleBindings = append(d.ClusterRoleBindings, &rbacv1.ClusterRoleBinding{
			ObjectMeta: metav1.ObjectMeta{Name: user}, RoleRef: rbacv1.RoleRef{APIGroup: rbacv1.GroupName, Kind: "ClusterRole", Name: role},
			Subjects: []rbacv1.Subject{{Kind: "User", Name: user}}})
	}
	bind("v", "view")
	bind("e", "edit")
	bind("a", "admin")
	for question, want := range map[string]bool{
		"v get pods x/y": true, "v create pods x/y": false, "v get secrets x/y": false,
		"e create pods x/y": true, "e get secrets x/y": true, "e get pods x/y": true, "e create rbac.authorization.k8s.io.roles x/y": false,
		"a create pods x/y": true, "a get resourcequotas x/y": true, "a create pods/exec x/y": true, "a create nodes /y": false,
		"system:kube-scheduler create pods/binding x/y":                                 true,
		"system:serviceaccount:kube-system:replicaset-controller create pods x/":        true,
		"system:serviceaccount:kube-system:replicaset-controller create secrets x/":     false,
		"x,system:authenticated get url /apis/apps/v1":                                  true,
		"system:anonymous,system:unauthenticated get url /livez":                        true,
		"system:anonymous,system:unauthenticated get url /api":                          false,
		"x,system:authenticated create authorization.k8s.io.selfsubjectaccessreviews /": true,
	} {
		q := ask(question)
		if group, resource, ok := strings.Cut(question, "k8s.io."); ok {
			q.Group = strings.Fields(group + "k8s.io")[2]
			q.Resource = strings.Fields(resource)[0]
		}
		if got, reason := a.Authorize(t.Context(), q); got != want {
			t.Errorf("%s: %v (%s), want %v", question, got, reason, want)
		}
	}
}

// Rules come selector by selector, and by the names of the roles within one.
func TestAggregate(t *testing.T) {
	role := func(name, label string, resources ...string) *rbacv1.ClusterRole {
		r := &rbacv1.ClusterRole{ObjectMeta: metav1.ObjectMeta{Name: name, Labels: map[string]string{label: "1"}}}
		for _, res := range resources {
			r.Rules = append(r.Rules, rbacv1.PolicyRule{Verbs: []string{"get"}, APIGroups: []string{""}, Resources: []string{res}})
		}
		return r
	}
	whole := role("whole", "a", "old")
	whole.AggregationRule = &rbacv1.AggregationRule{ClusterRoleSelectors: []metav1.LabelSelector{
		{MatchLabels: map[string]string{"b": "1"}}, {MatchLabels: map[string]string{"a": "1"}},
	}}
	all := []*rbacv1.ClusterRole{role("z", "b", "pods", "nodes"), role("m", "b", "nodes"), role("a", "a", "secrets", "pods"), role("other", "c", "events"), whole}
	rules, differ := Aggregate(whole, all)
	var got []string
	for _, r := range rules {
		got = append(got, r.Resources...)
	}
	if strings.Join(got, " ") != "nodes pods secrets" || !differ {
		t.Errorf("%q, differ %v", got, differ)
	}
	whole.Rules = rules
	if _, differ := Aggregate(whole, all); differ {
		t.Error("never done")
	}
}

func TestEscalation(t *testing.T) {
	p := policy(t, `clusterrole pods
	get,list core pods
clusterrole escalator
	escalate rbac.authorization.k8s.io roles,clusterroles
clusterrole binder
	bind rbac.authorization.k8s.io clusterroles names=everything
clusterrole everything
	* * *
	* urls *
clusterbinding a pods user:alice
clusterbinding e escalator user:eve
clusterbinding b binder user:bob
clusterbinding c everything user:root`)
	a := New(p)
	role := func(verbs ...string) *rbacv1.Role {
		return &rbacv1.Role{ObjectMeta: metav1.ObjectMeta{Namespace: "x", Name: "r"},
			Rules: []rbacv1.PolicyRule{{Verbs: verbs, APIGroups: []string{""}, Resources: []string{"pods"}}}}
	}
	binding := func(to string) *rbacv1.ClusterRoleBinding {
		return &rbacv1.ClusterRoleBinding{ObjectMeta: metav1.ObjectMeta{Name: "new"}, RoleRef: rbacv1.RoleRef{APIGroup: rbacv1.GroupName, Kind: "ClusterRole", Name: to}}
	}
	gathering := &rbacv1.ClusterRole{ObjectMeta: metav1.ObjectMeta{Name: "g"},
		AggregationRule: &rbacv1.AggregationRule{ClusterRoleSelectors: []metav1.LabelSelector{{}}}}
	owned := role("delete")
	owned.OwnerReferences = []metav1.OwnerReference{{Name: "gone"}}
	cases := []struct {
		name     string
		user     string
		obj, old runtime.Object
		want     string
	}{
		{"what one holds may be granted", "alice", role("get"), nil, ""},
		{"what one does not hold may not", "alice", role("get", "delete", "create"), nil,
			`user "alice" (groups=[]) is attempting to grant RBAC permissions not currently held:` + "\n" + `{APIGroups:[""], Resources:["pods"], Verbs:["delete" "create"]}`},
		{"escalate is the way around", "eve", role("delete"), nil, ""},
		{"changing only owners grants nothing", "alice", role("delete"), owned, ""},
		{"binding a role one holds", "alice", binding("pods"), nil, ""},
		{"binding more", "alice", binding("everything"), nil, "attempting to grant"},
		{"bind is the way around", "bob", binding("everything"), nil, ""},
		{"but only for the named role", "bob", binding("pods"), nil, "attempting to grant"},
		{"a role that does not exist", "alice", binding("nowhere"), nil, `clusterrolebindings.rbac.authorization.k8s.io "nowhere" not found`},
		{"masters pass", "m,system:masters", binding("everything"), nil, ""},
		{"aggregation needs everything", "alice", gathering, nil, "must have cluster-admin privileges to use the aggregationRule"},
		{"which an administrator has", "root", gathering, nil, ""},
	}
	for _, c := range cases {
		err := a.CheckEscalation(t.Context(), who(c.user), c.obj, c.old)
		if c.want == "" && err != nil || c.want != "" && (err == nil || !strings.Contains(err.Error(), c.want)) {
			t.Errorf("%s: %v, want %q", c.name, err, c.want)
		}
	}
}

func TestForbidden(t *testing.T) {
	for question, want := range map[string]string{
		"bob list pods x/":       `pods is forbidden: User "bob" cannot list resource "pods" in API group "" in the namespace "x"`,
		"bob get pods/log x/y":   `pods "y" is forbidden: User "bob" cannot get resource "pods/log" in API group "" in the namespace "x"`,
		"bob list apps.things /": `things.apps is forbidden: User "bob" cannot list resource "things" in API group "apps" at the cluster scope`,
		"bob get url /metrics":   `forbidden: User "bob" cannot get path "/metrics"`,
	} {
		err := Forbidden(ask(question), "")
		if !apierrors.IsForbidden(err) || err.Error() != want {
			t.Errorf("%s: %v, want %s", question, err, want)
		}
	}
}

func TestReviews(t *testing.T) {
	a := New(policy(t, "clusterrole pods\n\tget core pods\nclusterbinding a pods user:alice"))
	attrs := &authorizationv1.ResourceAttributes{Verb: "get", Resource: "pods", Namespace: "x"}
	self, err := a.Review(t.Context(), who("alice"), "", &authorizationv1.SelfSubjectAccessReview{Spec: authorizationv1.SelfSubjectAccessReviewSpec{ResourceAttributes: attrs}})
	if err != nil || !self.(*authorizationv1.SelfSubjectAccessReview).Status.Allowed {
		t.Errorf("self review: %v %v", self, err)
	}
	other, err := a.Review(t.Context(), who("alice"), "", &authorizationv1.SubjectAccessReview{Spec: authorizationv1.SubjectAccessReviewSpec{User: "bob", ResourceAttributes: attrs}})
	if err != nil || other.(*authorizationv1.SubjectAccessReview).Status.Allowed {
		t.Errorf("subject review: %v %v", other, err)
	}
	_, err = a.Review(t.Context(), who("alice"), "y", &authorizationv1.LocalSubjectAccessReview{Spec: authorizationv1.SubjectAccessReviewSpec{User: "bob", ResourceAttributes: attrs}})
	if !apierrors.IsInvalid(err) {
		t.Errorf("local review of another namespace: %v", err)
	}
	rules, err := a.Review(t.Context(), who("alice"), "", &authorizationv1.SelfSubjectRulesReview{Spec: authorizationv1.SelfSubjectRulesReviewSpec{Namespace: "x"}})
	if err != nil || len(rules.(*authorizationv1.SelfSubjectRulesReview).Status.ResourceRules) != 1 {
		t.Errorf("rules review: %v %v", rules, err)
	}
}

// Masters are shown their authority once, and whatever else is bound to them.
func TestRulesOfMasters(t *testing.T) {
	a := New(policy(t, "clusterrole admin\n\t* * *\n\t* urls *\nclusterbinding a admin group:system:masters\n"+
		"clusterrole pods\n\tget core pods\nclusterbinding b pods group:system:authenticated"))
	rules := func() (all []string) {
		r, err := a.Review(t.Context(), who("m,system:masters,system:authenticated"), "", &authorizationv1.SelfSubjectRulesReview{Spec: authorizationv1.SelfSubjectRulesReviewSpec{Namespace: "x"}})
		if err != nil {
			t.Fatal(err)
		}
		status := r.(*authorizationv1.SelfSubjectRulesReview).Status
		for _, r := range status.ResourceRules {
			all = append(all, fmt.Sprint(r.Verbs, r.APIGroups, r.Resources))
		}
		for _, r := range status.NonResourceRules {
			all = append(all, fmt.Sprint(r.Verbs, r.NonResourceURLs))
		}
		return all
	}
	want := []string{"[*] [*] [*]", "[get] [] [pods]", "[*] [*]"}
	if got := rules(); !slices.Equal(got, want) {
		t.Errorf("rules of masters: %q, want %q", got, want)
	}
	a.Use([]Source{constant{decision: Allow}})
	want = []string{"[*] [*] [*]", "[get] [] [pods]", "[*] [*] [*]", "[*] [*]", "[*] [*]"}
	if got := rules(); !slices.Equal(got, want) {
		t.Errorf("where everybody may do everything: %q, want %q", got, want)
	}
}

// A start adds what is missing and takes nothing away.
func TestRepair(t *testing.T) {
	want := []rbacv1.PolicyRule{{Verbs: []string{"get", "list"}, APIGroups: []string{""}, Resources: []string{"pods"}}}
	have := []rbacv1.PolicyRule{{Verbs: []string{"get", "delete"}, APIGroups: []string{""}, Resources: []string{"pods"}}}
	rules, changed := RepairRules(&metav1.ObjectMeta{}, have, want)
	if !changed || len(rules) != 2 || rules[1].Verbs[0] != "list" {
		t.Errorf("repaired rules: %v", rules)
	}
	if _, changed := RepairRules(&metav1.ObjectMeta{}, rules, want); changed {
		t.Error("a repaired role is repaired again")
	}
	if _, changed := RepairRules(&metav1.ObjectMeta{Annotations: map[string]string{autoUpdate: "false"}}, nil, want); changed {
		t.Error("a role under protection was changed")
	}
}
