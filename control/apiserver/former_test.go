package apiserver

import (
	"testing"

	rbacv1 "k8s.io/api/rbac/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// The nodes of a cluster that an earlier version made go on with what they have, until
// somebody says that all of them are renewed; in a new one no kubelet may what ours may.
func TestFormerAgents(t *testing.T) {
	w := start(t)
	admin, node, agent := w.as("admin", "system:masters"), w.as("system:node:n1", "system:nodes"), w.as("system:node:n1", "system:nodes", "sampan:agents")
	const bindings = "/apis/rbac.authorization.k8s.io/v1/clusterrolebindings"
	lists := func(want int) {
		t.Helper()
		for _, path := range []string{"/api/v1/nodes", "/api/v1/namespaces", "/apis/discovery.k8s.io/v1/endpointslices"} {
			eventually(t, path, func() bool { code, _ := w.do(node, "GET", path, nil, nil); return code == want })
			if code, text := w.do(agent, "GET", path, nil, nil); code != 200 {
				t.Errorf("our agent gets %s: %d %s", path, code, text)
			}
		}
	}
	is := func(name string, want int) {
		t.Helper()
		if code, text := w.do(admin, "GET", bindings+"/"+name, nil, nil); code != want {
			t.Errorf("%s: %d, want %d: %s", name, code, want, text)
		}
	}
	is("sampan:former-agents", 404)
	lists(403)

	for _, b := range [][2]string{{"sampan:node-proxier", "system:node-proxier"}, {"sampan:dns", "sampan:dns"}, {"sampan:image-reader", "sampan:image-reader"}} {
		old := &rbacv1.ClusterRoleBinding{TypeMeta: typed("rbac.authorization.k8s.io/v1", "ClusterRoleBinding"), ObjectMeta: metav1.ObjectMeta{Name: b[0]},
			RoleRef:  rbacv1.RoleRef{APIGroup: rbacv1.GroupName, Kind: "ClusterRole", Name: b[1]},
			Subjects: []rbacv1.Subject{{Kind: "Group", APIGroup: rbacv1.GroupName, Name: "system:nodes"}}}
		if code, text := w.do(admin, "POST", bindings, old, nil); code != 201 {
			t.Fatalf("bind as before: %d %s", code, text)
		}
	}
	for range 2 { // and a start after that
		must(t, w.bootstrap(t.Context()))
		lists(200)
		is("sampan:former-agents", 200)
		is("sampan:node-proxier", 404)
		is("sampan:dns", 404)
		is("sampan:image-reader", 404)
	}

	if code, text := w.do(admin, "DELETE", bindings+"/sampan:former-agents", nil, nil); code != 200 {
		t.Fatalf("delete: %d %s", code, text)
	}
	must(t, w.bootstrap(t.Context()))
	is("sampan:former-agents", 404)
	lists(403)
}
