package admit

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	schedulingv1 "k8s.io/api/scheduling/v1"
	schedulingv1beta1 "k8s.io/api/scheduling/v1beta1"
	storagev1 "k8s.io/api/storage/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	quantity "k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"

	"github.com/sampan-dev/sampan/control/apiserver/authz"
	"github.com/sampan-dev/sampan/control/apiserver/resource"
	"github.com/sampan-dev/sampan/internal/identity"
	"github.com/sampan-dev/sampan/internal/target"
)

// objects is what exists, by "resource namespace/name".
type objects map[string]runtime.Object

func (o objects) Get(_ context.Context, t target.Target, _ metav1.GetOptions) (runtime.Object, error) {
	if obj, ok := o[t.String()]; ok {
		return obj, nil
	}
	return nil, apierrors.NewNotFound(t.Resource.GroupResource(), t.Name)
}

func (o objects) List(_ context.Context, t target.Target, _ metav1.ListOptions) (runtime.Object, error) {
	list := &corev1.List{}
	for key, obj := range o {
		m, err := meta.Accessor(obj)
		if err != nil {
			return nil, err
		}
		if strings.HasPrefix(key, t.Resource.GroupResource().String()+" ") && (t.Namespace == "" || m.GetNamespace() == t.Namespace) {
			list.Items = append(list.Items, runtime.RawExtension{Object: obj})
		}
	}
	return list, nil
}

// policy grants alice nothing but what its one role does.
type policy struct{ rules []rbacv1.PolicyRule }

func (p policy) Version() int64 { return 1 }
func (p policy) ClusterRoles() []*rbacv1.ClusterRole {
	return []*rbacv1.ClusterRole{{ObjectMeta: metav1.ObjectMeta{Name: "r"}, Rules: p.rules}}
}
func (p policy) Roles() []*rbacv1.Role { return nil }
func (p policy) ClusterRoleBindings() []*rbacv1.ClusterRoleBinding {
	return []*rbacv1.ClusterRoleBinding{{RoleRef: rbacv1.RoleRef{Kind: "ClusterRole", Name: "r"}, Subjects: []rbacv1.Subject{{Kind: "User", Name: "alice"}}}}
}
func (p policy) RoleBindings() []*rbacv1.RoleBinding { return nil }

func chain(o objects, rules ...rbacv1.PolicyRule) Chain {
	o["namespaces x"] = &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: "x"}}
	o["serviceaccounts x/default"] = &corev1.ServiceAccount{ObjectMeta: metav1.ObjectMeta{Namespace: "x", Name: "default"}}
	return Default(Config{Objects: o, Authz: authz.New(policy{rules}), Now: time.Now,
		ResourceOf: func(gvk schema.GroupVersionKind) (schema.GroupVersionResource, bool, bool) {
			return gvk.GroupVersion().WithResource(strings.ToLower(gvk.Kind) + "s"), true, gvk.Kind != "Unknown"
		}})
}

// admit runs both halves, as the handler does.
func admit(c Chain, a *resource.Attributes) error {
	if err := c.Admit(context.Background(), a); err != nil {
		return err
	}
	return c.Validate(context.Background(), a)
}

func attrs(op resource.Operation, res, namespace, name string, obj, old runtime.Object) *resource.Attributes {
	gv := corev1.SchemeGroupVersion
	return &resource.Attributes{Operation: op, Object: obj, Old: old, User: identity.Identity{Name: "alice"}, Warn: func(string) {},
		Target: target.Of(gv.WithResource(res), namespace).Object(name)}
}

func pod(change func(*corev1.PodSpec)) *corev1.Pod {
	p := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: "x", Name: "p"}, Spec: corev1.PodSpec{Containers: []corev1.Container{{Name: "c"}}}}
	if change != nil {
		change(&p.Spec)
	}
	return p
}

func create(o objects, p *corev1.Pod) error {
	return admit(chain(o), attrs(resource.OpCreate, "pods", "x", "p", p, nil))
}

func list(pairs ...string) corev1.ResourceList {
	out := corev1.ResourceList{}
	for i := 0; i+1 < len(pairs); i += 2 {
		out[corev1.ResourceName(pairs[i])] = quantity.MustParse(pairs[i+1])
	}
	return out
}

func TestTerminatingNamespace(t *testing.T) {
	o := objects{"namespaces old": &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: "old"}, Status: corev1.NamespaceStatus{Phase: corev1.NamespaceTerminating}}}
	c := chain(o)
	err := admit(c, attrs(resource.OpCreate, "configmaps", "old", "a", &corev1.ConfigMap{}, nil))
	if !apierrors.IsForbidden(err) || !apierrors.HasStatusCause(err, corev1.NamespaceTerminatingCause) {
		t.Errorf("create: %v", err)
	}
	for _, op := range []resource.Operation{resource.OpUpdate, resource.OpDelete} {
		if err := admit(c, attrs(op, "configmaps", "old", "a", &corev1.ConfigMap{}, &corev1.ConfigMap{})); err != nil {
			t.Errorf("%s: %v", op, err)
		}
	}
	if err := admit(c, attrs(resource.OpCreate, "configmaps", "none", "a", &corev1.ConfigMap{}, nil)); !apierrors.IsNotFound(err) {
		t.Errorf("create in a namespace that is not there: %v", err)
	}
}

func TestLimits(t *testing.T) {
	ranges := func(items ...corev1.LimitRangeItem) objects {
		return objects{"limitranges x/l": &corev1.LimitRange{ObjectMeta: metav1.ObjectMeta{Namespace: "x"}, Spec: corev1.LimitRangeSpec{Limits: items}}}
	}
	p := pod(nil)
	if err := create(ranges(corev1.LimitRangeItem{Type: corev1.LimitTypeContainer, Default: list("cpu", "2"), DefaultRequest: list("cpu", "1", "memory", "1Gi")}), p); err != nil {
		t.Fatal(err)
	}
	r := p.Spec.Containers[0].Resources
	if r.Requests.Cpu().String() != "1" || r.Limits.Cpu().String() != "2" || p.Annotations[limitedAnnotation] != "LimitRanger plugin set: cpu, memory request for container c; cpu limit for container c" {
		t.Errorf("defaults: %v, %q", r, p.Annotations)
	}
	sized := func(request, limit string) *corev1.Pod {
		return pod(func(s *corev1.PodSpec) {
			s.Containers[0].Resources = corev1.ResourceRequirements{Requests: list("cpu", request), Limits: list("cpu", limit)}
		})
	}
	container := corev1.LimitTypeContainer
	cases := []struct {
		item corev1.LimitRangeItem
		pod  *corev1.Pod
		want string
	}{
		{corev1.LimitRangeItem{Type: container, Min: list("cpu", "2")}, sized("1", "4"), "minimum cpu usage per Container is 2, but request is 1"},
		{corev1.LimitRangeItem{Type: container, Min: list("memory", "1Gi")}, sized("1", "4"), "minimum memory usage per Container is 1Gi.  No request is specified"},
		{corev1.LimitRangeItem{Type: container, Max: list("cpu", "2")}, sized("1", "4"), "maximum cpu usage per Container is 2, but limit is 4"},
		{corev1.LimitRangeItem{Type: container, MaxLimitRequestRatio: list("cpu", "2")}, sized("1", "4"), "cpu max limit to request ratio per Container is 2, but provided ratio is 4.000000"},
		{corev1.LimitRangeItem{Type: corev1.LimitTypePod, Max: list("cpu", "3")}, sized("1", "4"), "maximum cpu usage per Pod is 3, but limit is 4"},
		{corev1.LimitRangeItem{Type: container, Min: list("cpu", "1"), Max: list("cpu", "4"), MaxLimitRequestRatio: list("cpu", "4")}, sized("1", "4"), ""},
	}
	for _, c := range cases {
		err := create(ranges(c.item), c.pod)
		if (c.want == "") != (err == nil) || err != nil && err.Error() != c.want {
			t.Errorf("%+v: %v, want %s", c.item, err, c.want)
		}
	}
}

func TestPriority(t *testing.T) {
	class := func(name string, value int32, isDefault bool) objects {
		never := corev1.PreemptNever
		return objects{"priorityclasses.scheduling.k8s.io " + name: &schedulingv1.PriorityClass{ObjectMeta: metav1.ObjectMeta{Name: name},
			Value: value, GlobalDefault: isDefault, PreemptionPolicy: &never}}
	}
	five := int32(5)
	cases := []struct {
		name  string
		exist objects
		spec  func(*corev1.PodSpec)
		want  string
	}{
		{"no classes", objects{}, nil, " 0 PreemptLowerPriority"},
		{"the default", class("d", 7, true), nil, "d 7 Never"},
		{"not the default", class("d", 7, false), nil, " 0 PreemptLowerPriority"},
		{"by name", class("n", 9, false), func(s *corev1.PodSpec) { s.PriorityClassName = "n" }, "n 9 Never"},
		{"unknown", objects{}, func(s *corev1.PodSpec) { s.PriorityClassName = "n" }, "no PriorityClass with name n was found"},
		{"by number", objects{}, func(s *corev1.PodSpec) { s.Priority = &five }, "the integer value of priority (5) must not be provided in pod spec; priority admission controller computed 0 from the given PriorityClass name"},
	}
	for _, c := range cases {
		p := pod(c.spec)
		err := create(c.exist, p)
		got := fmt.Sprint(err)
		if err == nil {
			got = fmt.Sprintf("%s %d %s", p.Spec.PriorityClassName, *p.Spec.Priority, *p.Spec.PreemptionPolicy)
		}
		if got != c.want {
			t.Errorf("%s: %s, want %s", c.name, got, c.want)
		}
	}
	for _, c := range []struct {
		class string
		given *int32
		want  string
	}{
		{"n", nil, "9"}, {"", nil, "0"}, {"gone", nil, "no PriorityClass with name gone was found"},
		{"n", &five, "priority set in the pod group (5) must match the priority computed (9) based on the priority class set in the spec"},
	} {
		g := &schedulingv1beta1.PodGroup{Spec: schedulingv1beta1.PodGroupSpec{PriorityClassName: c.class, Priority: c.given}}
		a := attrs(resource.OpCreate, "podgroups", "", "g", g, nil)
		a.Target.Resource = schedulingv1beta1.SchemeGroupVersion.WithResource("podgroups")
		got := fmt.Sprint(priorities{objects: class("n", 9, false)}.Admit(t.Context(), a))
		if got == "<nil>" {
			got = fmt.Sprint(*g.Spec.Priority)
		}
		if got != c.want {
			t.Errorf("group of %q: %s, want %s", c.class, got, c.want)
		}
	}
	second := attrs(resource.OpCreate, "priorityclasses", "", "e", &schedulingv1.PriorityClass{ObjectMeta: metav1.ObjectMeta{Name: "e"}, GlobalDefault: true}, nil)
	if err := admit(chain(class("d", 7, true)), second); err == nil || !strings.Contains(err.Error(), "already marked as default") {
		t.Errorf("a second default: %v", err)
	}
}

func TestOwners(t *testing.T) {
	yes := true
	owned := func(kind string) *corev1.ConfigMap {
		return &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Namespace: "x", Name: "a",
			OwnerReferences: []metav1.OwnerReference{{APIVersion: "apps/v1", Kind: kind, Name: "d", UID: "1", BlockOwnerDeletion: &yes}}}}
	}
	bare := &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Namespace: "x", Name: "a"}}
	finalizers := rbacv1.PolicyRule{Verbs: []string{"update"}, APIGroups: []string{"apps"}, Resources: []string{"deployments/finalizers"}}
	deletes := rbacv1.PolicyRule{Verbs: []string{"delete"}, APIGroups: []string{""}, Resources: []string{"configmaps"}}
	cases := []struct {
		name     string
		rules    []rbacv1.PolicyRule
		obj, old *corev1.ConfigMap
		want     string
	}{
		{"create without the right to finalizers", nil, owned("Deployment"), nil, "cannot set blockOwnerDeletion if an ownerReference refers to a resource you can't set finalizers on"},
		{"create with it", []rbacv1.PolicyRule{finalizers}, owned("Deployment"), nil, ""},
		{"an owner of no known kind", []rbacv1.PolicyRule{finalizers}, owned("Unknown"), nil, "cannot find RESTMapping"},
		{"update without the right to delete", []rbacv1.PolicyRule{finalizers}, owned("Deployment"), bare, "cannot set an ownerRef on a resource you can't delete"},
		{"update with both", []rbacv1.PolicyRule{finalizers, deletes}, owned("Deployment"), bare, ""},
		{"update of something else", nil, owned("Deployment"), owned("Deployment"), ""},
	}
	for _, c := range cases {
		a := attrs(resource.OpCreate, "configmaps", "x", "a", c.obj, nil)
		if c.old != nil {
			a.Operation, a.Old = resource.OpUpdate, c.old
		}
		err := admit(chain(objects{}, c.rules...), a)
		if (c.want == "") != (err == nil) || err != nil && !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v, want %q", c.name, err, c.want)
		}
	}
}

func TestServiceAccountToken(t *testing.T) {
	no := false
	cases := []struct {
		name    string
		account corev1.ServiceAccount
		spec    func(*corev1.PodSpec)
		volumes int
	}{
		{"by default", corev1.ServiceAccount{}, nil, 1},
		{"the account does not want it", corev1.ServiceAccount{AutomountServiceAccountToken: &no}, nil, 0},
		{"the pod does not want it", corev1.ServiceAccount{}, func(s *corev1.PodSpec) { s.AutomountServiceAccountToken = &no }, 0},
		{"something is mounted there", corev1.ServiceAccount{}, func(s *corev1.PodSpec) {
			s.Containers[0].VolumeMounts = []corev1.VolumeMount{{Name: "v", MountPath: tokenMountPath}}
		}, 0},
	}
	for _, c := range cases {
		account := c.account
		account.Namespace, account.Name = "x", "own"
		account.ImagePullSecrets = []corev1.LocalObjectReference{{Name: "pull"}}
		p := pod(c.spec)
		p.Spec.ServiceAccountName = "own"
		if err := create(objects{"serviceaccounts x/own": &account}, p); err != nil {
			t.Fatalf("%s: %v", c.name, err)
		}
		if len(p.Spec.Volumes) != c.volumes || len(p.Spec.ImagePullSecrets) != 1 || p.Spec.ImagePullSecrets[0].Name != "pull" {
			t.Errorf("%s: %+v", c.name, p.Spec)
		}
		if c.volumes == 1 && *p.Spec.Volumes[0].Projected.Sources[0].ServiceAccountToken.ExpirationSeconds != 3607 {
			t.Errorf("%s: %+v", c.name, p.Spec.Volumes[0])
		}
	}
}

func TestDefaultStorageClass(t *testing.T) {
	class := func(name string, age time.Duration, isDefault string) *storagev1.StorageClass {
		return &storagev1.StorageClass{ObjectMeta: metav1.ObjectMeta{Name: name, CreationTimestamp: metav1.NewTime(time.Unix(1e9, 0).Add(-age)),
			Annotations: map[string]string{defaultStorageClass: isDefault}}}
	}
	o := objects{}
	for _, c := range []*storagev1.StorageClass{class("old", time.Hour, "true"), class("new", time.Minute, "true"), class("newest", 0, "false")} {
		o["storageclasses.storage.k8s.io "+c.Name] = c
	}
	claim := &corev1.PersistentVolumeClaim{ObjectMeta: metav1.ObjectMeta{Namespace: "x", Name: "c"}}
	if err := admit(chain(o), attrs(resource.OpCreate, "persistentvolumeclaims", "x", "c", claim, nil)); err != nil {
		t.Fatal(err)
	}
	if claim.Spec.StorageClassName == nil || *claim.Spec.StorageClassName != "new" || claim.Finalizers[0] != "kubernetes.io/pvc-protection" {
		t.Errorf("claim %+v", claim)
	}
}
