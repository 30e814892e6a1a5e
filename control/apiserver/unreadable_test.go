package apiserver

import (
	"net/http"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/sampan-dev/sampan/control/store"
	"github.com/sampan-dev/sampan/control/store/memory"
)

// What nobody can read can be taken out by whoever may, and nothing else that way.
func TestUnreadableObjects(t *testing.T) {
	var kept store.Store = memory.New(memory.Config{})
	w := startWith(t, func(c *Config) { c.Store = kept })
	admin, alice := w.as("admin", "system:masters"), w.as("alice")
	for _, name := range []string{"good", "bad"} {
		w.made(admin, "/api/v1/namespaces/default/configmaps", &corev1.ConfigMap{TypeMeta: typed("v1", "ConfigMap"),
			ObjectMeta: metav1.ObjectMeta{Name: name, Finalizers: []string{"a.example.com/b"}}})
	}
	w.made(admin, "/apis/rbac.authorization.k8s.io/v1/clusterroles", &rbacv1.ClusterRole{TypeMeta: typed("rbac.authorization.k8s.io/v1", "ClusterRole"),
		ObjectMeta: metav1.ObjectMeta{Name: "deleter"}, Rules: []rbacv1.PolicyRule{{APIGroups: []string{""}, Resources: []string{"configmaps"}, Verbs: []string{"get", "delete"}}}})
	w.made(admin, "/apis/rbac.authorization.k8s.io/v1/clusterrolebindings", &rbacv1.ClusterRoleBinding{TypeMeta: typed("rbac.authorization.k8s.io/v1", "ClusterRoleBinding"),
		ObjectMeta: metav1.ObjectMeta{Name: "deleter"}, RoleRef: rbacv1.RoleRef{APIGroup: rbacv1.GroupName, Kind: "ClusterRole", Name: "deleter"},
		Subjects: []rbacv1.Subject{{Kind: "User", APIGroup: rbacv1.GroupName, Name: "alice"}}})
	const key, path = "/registry/configmaps/default/bad", "/api/v1/namespaces/default/configmaps"
	e, _, err := kept.Get(t.Context(), key)
	must(t, err)
	_, err = kept.Update(t.Context(), key, []byte("k8s\x00 and then nothing that makes sense"), e.Revision, 0)
	must(t, err)
	eventually(t, "alice may", func() bool { code, _ := w.do(alice, "GET", path+"/good", nil, nil); return code == 200 })
	// expect sends a request and looks for a part of the answer.
	expect := func(c *http.Client, method, at string, opts any, code int, part string) {
		t.Helper()
		if got, text := w.do(c, method, at, opts, nil); got != code || !strings.Contains(text, part) {
			t.Errorf("%s %s: %d %s", method, at, got, text)
		}
	}
	force := metav1.DeleteOptions{TypeMeta: typed("v1", "DeleteOptions"), IgnoreStoreReadErrorWithClusterBreakingPotential: new(true)}
	dry := force
	dry.DryRun = []string{metav1.DryRunAll}
	graceful := force
	graceful.GracePeriodSeconds = new(int64(0))
	expect(admin, "GET", path+"/bad", nil, 500, "InternalError")
	eventually(t, "the list cannot be read", func() bool {
		_, text := w.do(admin, "GET", path, nil, nil)
		return strings.Contains(text, `"reason":"StorageReadError"`) && strings.Contains(text, "failed to read one or more configmaps from the storage: ")
	})
	expect(admin, "DELETE", path+"/bad", nil, 500, "InternalError")
	expect(alice, "DELETE", path+"/bad", &force, 403, `not permitted to do \"unsafe-delete-ignore-read-errors\"`)
	expect(admin, "DELETE", path+"/good", &force, 409, "unsafe deletion is not allowed because the object is decodable from storage")
	expect(admin, "DELETE", path+"/none", &force, 404, "not found")
	expect(admin, "DELETE", path, &force, 422, "is not allowed with DELETECOLLECTION")
	expect(admin, "DELETE", path+"/bad", &graceful, 422, "cannot be set together with .gracePeriodSeconds")
	expect(admin, "DELETE", path+"/bad", &dry, 200, `"status":"Success"`)
	expect(admin, "GET", path+"/bad", nil, 500, "InternalError")
	expect(admin, "DELETE", path+"/bad", &force, 200, `"kind":"ConfigMap"`)
	expect(admin, "GET", path+"/bad", nil, 404, "not found")
	eventually(t, "the list can be read again", func() bool { code, _ := w.do(admin, "GET", path, nil, nil); return code == 200 })
}
