package apiserver

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	authenticationv1 "k8s.io/api/authentication/v1"
	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"

	"github.com/sampan-dev/sampan/control/apiserver/authz"
	"github.com/sampan-dev/sampan/internal/identity"
	"github.com/sampan-dev/sampan/internal/pki"
	"github.com/sampan-dev/sampan/internal/target"
)

// robot makes an account with a pod, and a token of the two.
func (w *world) robot(t testing.TB) string {
	t.Helper()
	own := w.own
	create := func(resource string, obj runtime.Object) {
		t.Helper()
		if _, err := own.Create(t.Context(), target.Of(corev1.SchemeGroupVersion.WithResource(resource), "default"), obj, metav1.CreateOptions{}); err != nil {
			t.Fatal(err)
		}
	}
	meta := metav1.ObjectMeta{Namespace: "default", Name: "robot"}
	create("serviceaccounts", &corev1.ServiceAccount{ObjectMeta: meta})
	create("pods", &corev1.Pod{ObjectMeta: meta, Spec: corev1.PodSpec{ServiceAccountName: "robot", Containers: []corev1.Container{{Name: "c", Image: "i"}}}})
	at := target.Of(corev1.SchemeGroupVersion.WithResource("serviceaccounts"), "default").Object("robot").Sub("token")
	made, err := w.Tokens().Request(t.Context(), at, &authenticationv1.TokenRequest{Spec: authenticationv1.TokenRequestSpec{
		BoundObjectRef: &authenticationv1.BoundObjectReference{APIVersion: "v1", Kind: "Pod", Name: "robot"}}}, func(string) {})
	if err != nil {
		t.Fatal(err)
	}
	return made.(*authenticationv1.TokenRequest).Status.Token
}

// Rights, accounts and pods that are taken away count at once, however often they
// have been used.
func TestWhatIsTakenAway(t *testing.T) {
	w := start(t)
	token := w.robot(t)
	robot := w.as("")
	get := func() int {
		code, _ := w.do(robot, "GET", "/api/v1/namespaces/default/pods", nil, nil, "Authorization", "Bearer "+token)
		return code
	}
	bindings := target.Of(rbacv1.SchemeGroupVersion.WithResource("rolebindings"), "default")
	binding := &rbacv1.RoleBinding{ObjectMeta: metav1.ObjectMeta{Name: "robot"}, RoleRef: rbacv1.RoleRef{APIGroup: rbacv1.GroupName, Kind: "ClusterRole", Name: "view"},
		Subjects: []rbacv1.Subject{{Kind: "ServiceAccount", Name: "robot"}}}
	if code := get(); code != http.StatusForbidden {
		t.Errorf("without a binding: %d", code)
	}
	for range 2 {
		_, err := w.own.Create(t.Context(), bindings, binding, metav1.CreateOptions{})
		must(t, err)
		eventually(t, "the binding counts", func() bool { return get() == http.StatusOK })
		must(t, w.own.Delete(t.Context(), bindings.Object("robot"), metav1.DeleteOptions{}))
		eventually(t, "the binding is gone", func() bool { return get() == http.StatusForbidden })
	}
	_, err := w.own.Create(t.Context(), bindings, binding, metav1.CreateOptions{})
	must(t, err)
	eventually(t, "the binding counts", func() bool { return get() == http.StatusOK })
	now := int64(0)
	pod := target.Of(corev1.SchemeGroupVersion.WithResource("pods"), "default").Object("robot")
	must(t, w.own.Delete(t.Context(), pod, metav1.DeleteOptions{GracePeriodSeconds: &now}))
	eventually(t, "the pod is gone", func() bool { return get() == http.StatusUnauthorized })
}

// What it costs to know who asks for one object, and that they may.
func BenchmarkWho(b *testing.B) {
	w := serve(b, func(*Config) {})
	token := w.robot(b)
	for i := range 300 {
		binding := &rbacv1.ClusterRoleBinding{ObjectMeta: metav1.ObjectMeta{Name: "b" + time.Duration(i).String()}, RoleRef: rbacv1.RoleRef{APIGroup: rbacv1.GroupName, Kind: "ClusterRole", Name: "view"},
			Subjects: []rbacv1.Subject{{Kind: "Group", APIGroup: rbacv1.GroupName, Name: "system:serviceaccounts:x" + time.Duration(i).String()}, {Kind: "ServiceAccount", Name: "robot", Namespace: "default"}}}
		if _, err := w.own.Create(b.Context(), target.Of(rbacv1.SchemeGroupVersion.WithResource("clusterrolebindings"), ""), binding, metav1.CreateOptions{}); err != nil {
			b.Fatal(err)
		}
	}
	leaf, err := w.ca.Issue(pki.Leaf{CommonName: "admin", Organizations: []string{identity.Masters}, Client: true})
	if err != nil {
		b.Fatal(err)
	}
	admin, robot := httptest.NewRequest(http.MethodGet, "/api", nil), httptest.NewRequest(http.MethodGet, "/api", nil)
	admin.TLS = &tls.ConnectionState{PeerCertificates: []*x509.Certificate{leaf.Leaf}}
	robot.Header.Set("Authorization", "Bearer "+token)
	for name, r := range map[string]*http.Request{"certificate": admin, "token": robot} {
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				who, err := w.Server.authn.Authenticate(r)
				if err != nil {
					b.Fatal(err)
				}
				q := authz.Attributes{User: who, Verb: "get", Version: "v1", Resource: "configmaps", Namespace: "default", Name: "x"}
				if allowed, reason := w.Server.authz.Authorize(context.Background(), q); !allowed {
					b.Fatal(reason)
				}
			}
		})
	}
}

// Who cannot say who they are is written down where a policy wants it.
func TestStrangersAreAudited(t *testing.T) {
	policy := filepath.Join(t.TempDir(), "policy.yaml")
	must(t, os.WriteFile(policy, []byte("apiVersion: audit.k8s.io/v1\nkind: Policy\nrules: [{level: Metadata}]\n"), 0o600))
	w := startWith(t, func(c *Config) { c.AuditPolicy = policy })
	nobody := w.as("")
	if code, _ := w.do(nobody, "GET", "/api/v1/pods", nil, nil); code != http.StatusUnauthorized {
		t.Errorf("nobody: %d", code)
	}
	if code, _ := w.do(nobody, "GET", "/api/v1/secrets", nil, nil, "Authorization", "Bearer x"); code != http.StatusUnauthorized {
		t.Errorf("a bad token: %d", code)
	}
	w.stop()
	audit, err := os.ReadFile(w.audit)
	must(t, err)
	for resource, want := range map[string]string{"pods": "Authentication failed, no credentials provided", "secrets": "Authentication failed, attempted: bearer"} {
		found := false
		for line := range strings.Lines(string(audit)) {
			found = found || strings.Contains(line, `"resource":"`+resource+`"`) && strings.Contains(line, want) && strings.Contains(line, `"code":401`)
		}
		if !found {
			t.Errorf("no line on %s says %q", resource, want)
		}
	}
}

// A review of what has no namespace may be sent with one, which is passed over.
func TestReviewWithNamespace(t *testing.T) {
	w := start(t)
	for _, resource := range []string{"selfsubjectaccessreviews", "subjectaccessreviews"} {
		body := map[string]any{
			"metadata": map[string]any{"namespace": "default"},
			"spec":     map[string]any{"user": "alice", "resourceAttributes": map[string]any{"verb": "get", "resource": "pods"}},
		}
		if resource == "selfsubjectaccessreviews" {
			delete(body["spec"].(map[string]any), "user")
		}
		if code, text := w.do(w.as("root", "system:masters"), "POST", "/apis/authorization.k8s.io/v1/"+resource, body, nil); code != http.StatusCreated {
			t.Errorf("%s: %d %s", resource, code, text)
		}
	}
}
