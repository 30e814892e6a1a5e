package authz

import (
	"encoding/json"
	"fmt"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	authorizationv1 "k8s.io/api/authorization/v1"

	"github.com/sampan-dev/sampan/internal/identity"
)

// judge allows what reads ships, denies what sinks them, and has no opinion else.
type judge struct {
	asked []authorizationv1.SubjectAccessReviewSpec
	down  bool
}

func (j *judge) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if j.down {
		http.Error(w, "not now", http.StatusBadRequest)
		return
	}
	var review authorizationv1.SubjectAccessReview
	_ = json.NewDecoder(r.Body).Decode(&review) // an empty review has no opinion
	j.asked = append(j.asked, review.Spec)
	if a := review.Spec.ResourceAttributes; a != nil && a.Resource == "ships" {
		review.Status = authorizationv1.SubjectAccessReviewStatus{Allowed: a.Verb == "list", Denied: a.Verb == "delete", Reason: "the judge says so"}
	}
	_ = json.NewEncoder(w).Encode(review)
}

const hookFile = `apiVersion: apiserver.config.k8s.io/v1
kind: AuthorizationConfiguration
authorizers:
- type: Webhook
  name: judge.example.com
  webhook:
    timeout: 30s
    subjectAccessReviewVersion: v1
    matchConditionSubjectAccessReviewVersion: v1
    failurePolicy: %s
    connectionInfo: {type: KubeConfigFile, kubeConfigFile: %s}
    matchConditions:
    - expression: has(request.resourceAttributes)
    - expression: request.user != 'ahab'
- {type: RBAC, name: rbac}
`

func TestWebhook(t *testing.T) {
	j := &judge{}
	server := httptest.NewServer(j)
	defer server.Close()
	dir := t.TempDir()
	kubeconfig, path := filepath.Join(dir, "kubeconfig"), filepath.Join(dir, "authz.yaml")
	write := func(path, text string) {
		t.Helper()
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	write(kubeconfig, fmt.Sprintf("apiVersion: v1\nkind: Config\ncurrent-context: c\nclusters: [{name: c, cluster: {server: %q}}]\ncontexts: [{name: c, context: {cluster: c, user: u}}]\nusers: [{name: u, user: {}}]\n", server.URL))
	write(path, fmt.Sprintf(hookFile, "NoOpinion", kubeconfig))
	a := New(policy(t, "clusterrole ships\n\tget,delete example.com ships\nclusterbinding all ships group:system:authenticated"))
	settings, err := a.Configure(path, nil, time.Now, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	decide := func(user, verb string) string {
		d, reason := a.Decide(t.Context(), Attributes{User: identity.Identity{Name: user, Groups: []string{identity.Authenticated}}, Verb: verb,
			Group: "example.com", Version: "v1", Resource: "ships", FieldSelector: "metadata.name=pequod", LabelSelector: "sails in (3)"})
		return fmt.Sprintf("%d %s", d, reason)
	}
	for _, c := range []struct{ user, verb, want string }{
		{"jane", "list", "1 the judge says so"},
		{"jane", "delete", "2 the judge says so"},
		{"jane", "get", "1 RBAC: allowed by ClusterRoleBinding"},
		{"ahab", "delete", "1 RBAC: allowed by ClusterRoleBinding"}, // nobody asks the judge about him
	} {
		if got := decide(c.user, c.verb); !strings.HasPrefix(got, c.want) {
			t.Errorf("%s %s: %s, want %s", c.user, c.verb, got, c.want)
		}
	}
	if n := len(j.asked); n != 3 {
		t.Errorf("asked %d times, want 3", n)
	}
	if decide("jane", "list"); len(j.asked) != 3 {
		t.Error("the answer was not kept")
	}
	first := j.asked[0].ResourceAttributes
	if first.FieldSelector == nil || first.FieldSelector.Requirements[0].Key != "metadata.name" || first.LabelSelector == nil || first.LabelSelector.Requirements[0].Values[0] != "3" {
		t.Errorf("selectors %+v %+v", first.FieldSelector, first.LabelSelector)
	}
	j.down = true
	if got := decide("zoe", "delete"); !strings.HasPrefix(got, "1 RBAC") {
		t.Errorf("a judge that is down: %s", got)
	}
	write(path, fmt.Sprintf(hookFile, "Deny", kubeconfig))
	if _, err := settings.load(); err != nil {
		t.Fatal(err)
	}
	if got := decide("zoe", "delete"); !strings.HasPrefix(got, "2 webhook") {
		t.Errorf("a judge that is down, and must be asked: %s", got)
	}
	write(path, "kind: Nonsense")
	if _, err := settings.load(); err == nil || !strings.HasPrefix(decide("zoe", "get"), "2 webhook") {
		t.Errorf("nonsense: %v", err)
	}
}

func TestSelectorsOfAReview(t *testing.T) {
	a := New(policy(t, ""), NewNodes(nil, &Defaults{}))
	ask := func(raw string) authorizationv1.SubjectAccessReviewStatus {
		got, err := a.Review(t.Context(), identity.Identity{}, "", &authorizationv1.SubjectAccessReview{Spec: authorizationv1.SubjectAccessReviewSpec{
			User: "system:node:n1", Groups: []string{"system:nodes"}, ResourceAttributes: &authorizationv1.ResourceAttributes{Verb: "list", Version: "v1", Resource: "pods",
				FieldSelector: &authorizationv1.FieldSelectorAttributes{RawSelector: raw}}}})
		if err != nil {
			t.Fatal(err)
		}
		return got.(*authorizationv1.SubjectAccessReview).Status
	}
	if s := ask("spec.nodeName=n1"); !s.Allowed {
		t.Errorf("its own pods: %+v", s)
	}
	if s := ask("spec.nodeName=n2"); s.Allowed || s.Reason != "node: can only list/watch pods with spec.nodeName field selector" {
		t.Errorf("another's pods: %+v", s)
	}
}
