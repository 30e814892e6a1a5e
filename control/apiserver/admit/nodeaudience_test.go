package admit

import (
	"context"
	"strings"
	"testing"

	authenticationv1 "k8s.io/api/authentication/v1"
	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	storagev1 "k8s.io/api/storage/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/sampan-dev/sampan/control/apiserver/authz"
	"github.com/sampan-dev/sampan/control/apiserver/resource"
	"github.com/sampan-dev/sampan/internal/identity"
)

// nodePolicy gives a node one right more.
type nodePolicy struct{ policy }

func (p nodePolicy) ClusterRoleBindings() []*rbacv1.ClusterRoleBinding {
	return []*rbacv1.ClusterRoleBinding{{RoleRef: rbacv1.RoleRef{Kind: "ClusterRole", Name: "r"}, Subjects: []rbacv1.Subject{{Kind: "Group", Name: identity.Nodes}}}}
}

// A node gets tokens for those whom its pods ask tokens for, and whom it was given the
// right to ask for.
func TestAudiencesOfNodes(t *testing.T) {
	meta := func(name string) metav1.ObjectMeta { return metav1.ObjectMeta{Namespace: "x", Name: name, UID: "1"} }
	token := func(audience string) corev1.VolumeSource {
		return corev1.VolumeSource{Projected: &corev1.ProjectedVolumeSource{Sources: []corev1.VolumeProjection{
			{ServiceAccountToken: &corev1.ServiceAccountTokenProjection{Audience: audience}}}}}
	}
	claim := func(name string) corev1.VolumeSource {
		return corev1.VolumeSource{PersistentVolumeClaim: &corev1.PersistentVolumeClaimVolumeSource{ClaimName: name}}
	}
	o := objects{
		"csidrivers.storage.k8s.io d":        &storagev1.CSIDriver{ObjectMeta: metav1.ObjectMeta{Name: "d"}, Spec: storagev1.CSIDriverSpec{TokenRequests: []storagev1.TokenRequest{{Audience: "vault"}}}},
		"persistentvolumeclaims x/c":         &corev1.PersistentVolumeClaim{ObjectMeta: meta("c"), Spec: corev1.PersistentVolumeClaimSpec{VolumeName: "v"}},
		"persistentvolumeclaims x/p-scratch": &corev1.PersistentVolumeClaim{ObjectMeta: meta("p-scratch"), Spec: corev1.PersistentVolumeClaimSpec{VolumeName: "v"}},
		"persistentvolumes v": &corev1.PersistentVolume{Spec: corev1.PersistentVolumeSpec{
			PersistentVolumeSource: corev1.PersistentVolumeSource{CSI: &corev1.CSIPersistentVolumeSource{Driver: "d"}}}},
	}
	o["serviceaccounts x/default"] = &corev1.ServiceAccount{ObjectMeta: meta("default")}
	rule := nodeRestriction{objects: o, authz: authz.New(nodePolicy{policy{[]rbacv1.PolicyRule{{
		Verbs: []string{"request-serviceaccounts-token-audience"}, APIGroups: []string{""}, Resources: []string{"registry"}, ResourceNames: []string{"default"}}}}})}
	for _, test := range []struct {
		what   string
		volume corev1.VolumeSource
		want   []string
		err    string
	}{
		{"the server's own, which it wants", token(""), nil, ""},
		{"the server's own, which it does not want", token("vault"), nil, `system:node:n is not authorized to request tokens for audience ""`},
		{"one that it wants", token("vault"), []string{"vault"}, ""},
		{"another", token("vault"), []string{"bank"}, `system:node:n is not authorized to request tokens for audience "bank"`},
		{"two", token("vault"), []string{"vault", "bank"}, "node may only request 0 or 1 audiences"},
		{"its driver's", corev1.VolumeSource{CSI: &corev1.CSIVolumeSource{Driver: "d"}}, []string{"vault"}, ""},
		{"its claim's driver's", claim("c"), []string{"vault"}, ""},
		{"its own claim's driver's", corev1.VolumeSource{Ephemeral: &corev1.EphemeralVolumeSource{VolumeClaimTemplate: &corev1.PersistentVolumeClaimTemplate{}}}, []string{"vault"}, ""},
		{"a claim that is not there", claim("none"), []string{"vault"}, `error validating audience "vault"`},
		{"what the node may ask for", corev1.VolumeSource{}, []string{"registry"}, ""},
	} {
		o["pods x/p"] = &corev1.Pod{ObjectMeta: meta("p"), Spec: corev1.PodSpec{NodeName: "n", Volumes: []corev1.Volume{{Name: "scratch", VolumeSource: test.volume}}}}
		body := &authenticationv1.TokenRequest{Spec: authenticationv1.TokenRequestSpec{Audiences: test.want,
			BoundObjectRef: &authenticationv1.BoundObjectReference{APIVersion: "v1", Kind: "Pod", Name: "p", UID: "1"}}}
		a := attrs(resource.OpCreate, "serviceaccounts", "x", "default", body, nil)
		a.Target.Subresource = "token"
		a.User = identity.Identity{Name: identity.NodePrefix + "n", Groups: []string{identity.Nodes, identity.Authenticated}}
		err := rule.Admit(context.Background(), a)
		if (err == nil) != (test.err == "") || err != nil && !strings.Contains(err.Error(), test.err) {
			t.Errorf("%s: %v, want %q", test.what, err, test.err)
		}
	}
}
