package apiserver

import (
	authenticationv1 "k8s.io/api/authentication/v1"
	authorizationv1 "k8s.io/api/authorization/v1"
	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	schedulingv1 "k8s.io/api/scheduling/v1"
	"k8s.io/apimachinery/pkg/api/validation/path"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"

	"github.com/sampan-dev/sampan/kinds"
)

// row is a kind that has nothing to say of its own: these tests are about the
// gates, not about what a Pod is.
func row[T, L any, PT interface {
	*T
	kinds.Object
}, PL interface {
	*L
	runtime.Object
}](gv schema.GroupVersion, kind, resource string, namespaced bool) *kinds.Kind {
	return &kinds.Kind{GVK: gv.WithKind(kind), Resource: resource, Singular: resource, Namespaced: namespaced, Storage: gv.Group + resource,
		Strategy: kinds.Strategy{ValidateName: path.ValidatePathSegmentName},
		New:      func() kinds.Object { return PT(new(T)) }, NewList: func() runtime.Object { return PL(new(L)) }}
}

func review[T any, PT interface {
	*T
	kinds.Object
}](gv schema.GroupVersion, kind, resource string, namespaced bool) *kinds.Kind {
	return &kinds.Kind{GVK: gv.WithKind(kind), Resource: resource, Singular: resource, Namespaced: namespaced, New: func() kinds.Object { return PT(new(T)) }}
}

func table() []*kinds.Kind {
	core, rbac, auth, who := corev1.SchemeGroupVersion, rbacv1.SchemeGroupVersion, authorizationv1.SchemeGroupVersion, authenticationv1.SchemeGroupVersion
	pods := row[corev1.Pod, corev1.PodList](core, "Pod", "pods", true)
	pods.FieldLabels = []string{"spec.nodeName"}
	pods.Fields = func(obj kinds.Object) fields.Set {
		return fields.Set{"spec.nodeName": obj.(*corev1.Pod).Spec.NodeName}
	}
	for _, name := range []string{"log", "exec", "attach", "portforward", "proxy"} {
		pods.Subresources = append(pods.Subresources, kinds.Subresource{Name: name, Verbs: []string{"get", "create"}})
	}
	accounts := row[corev1.ServiceAccount, corev1.ServiceAccountList](core, "ServiceAccount", "serviceaccounts", true)
	accounts.Subresources = []kinds.Subresource{{Name: "token", Verbs: []string{"create"}, GVK: who.WithKind("TokenRequest"),
		New: func() runtime.Object { return &authenticationv1.TokenRequest{} }}}
	return []*kinds.Kind{pods, accounts,
		row[corev1.Namespace, corev1.NamespaceList](core, "Namespace", "namespaces", false),
		row[corev1.Node, corev1.NodeList](core, "Node", "nodes", false),
		row[corev1.Secret, corev1.SecretList](core, "Secret", "secrets", true),
		row[corev1.ConfigMap, corev1.ConfigMapList](core, "ConfigMap", "configmaps", true),
		row[corev1.LimitRange, corev1.LimitRangeList](core, "LimitRange", "limitranges", true),
		row[corev1.Service, corev1.ServiceList](core, "Service", "services", true),
		row[corev1.Endpoints, corev1.EndpointsList](core, "Endpoints", "endpoints", true), //nolint:staticcheck // it is served
		row[discoveryv1.EndpointSlice, discoveryv1.EndpointSliceList](discoveryv1.SchemeGroupVersion, "EndpointSlice", "endpointslices", true),
		row[schedulingv1.PriorityClass, schedulingv1.PriorityClassList](schedulingv1.SchemeGroupVersion, "PriorityClass", "priorityclasses", false),
		row[rbacv1.ClusterRole, rbacv1.ClusterRoleList](rbac, "ClusterRole", "clusterroles", false),
		row[rbacv1.Role, rbacv1.RoleList](rbac, "Role", "roles", true),
		row[rbacv1.ClusterRoleBinding, rbacv1.ClusterRoleBindingList](rbac, "ClusterRoleBinding", "clusterrolebindings", false),
		row[rbacv1.RoleBinding, rbacv1.RoleBindingList](rbac, "RoleBinding", "rolebindings", true),
		review[authorizationv1.SelfSubjectAccessReview](auth, "SelfSubjectAccessReview", "selfsubjectaccessreviews", false),
		review[authenticationv1.SelfSubjectReview](who, "SelfSubjectReview", "selfsubjectreviews", false),
		review[authenticationv1.TokenReview](who, "TokenReview", "tokenreviews", false),
	}
}
