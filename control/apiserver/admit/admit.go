// Package admit is the last word on a write: it completes objects with what only
// the cluster knows (a pod's service account, its priority) and refuses what the
// cluster's state forbids (a namespace that is going away). A file is a rule;
// Default lists them in the order in which they speak.
//
// Facts: the admission controllers that Kubernetes v1.37 enables by default, and
// their messages.
package admit

import (
	"context"
	"slices"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"

	"github.com/sampan-dev/sampan/control/apiserver/authz"
	"github.com/sampan-dev/sampan/control/apiserver/resource"
	"github.com/sampan-dev/sampan/internal/target"
)

// Reader reads objects as the server itself; ResourceVersion "0" answers from
// the cache.
type Reader interface {
	Get(ctx context.Context, t target.Target, opts metav1.GetOptions) (runtime.Object, error)
	List(ctx context.Context, t target.Target, opts metav1.ListOptions) (runtime.Object, error)
}

// Config is what the default rules need.
type Config struct {
	Objects Reader
	// Writer keeps the quotas' books; nil enforces no quotas.
	Writer Updater
	// QuotaLimits are what may only be used under a quota; upstream's default is
	// nothing.
	QuotaLimits []QuotaLimit
	// PodSecurity is the zero value for upstream's default: where a namespace
	// says nothing, everything is allowed.
	PodSecurity PodSecurity
	Authz       *authz.Authorizer
	// ResourceOf maps a kind to its resource; ok is false for kinds not served.
	ResourceOf func(gvk schema.GroupVersionKind) (gvr schema.GroupVersionResource, namespaced, ok bool)
	// Now is the wall clock.
	Now func() time.Time
	// Dynamic are the rules that users configure (policies, webhooks), in their
	// order. They see what all others made of the object; only quotas come after.
	Dynamic []Plugin
	// Switches say which rules are on.
	Switches Switches
}

// Default are the rules of a cluster, in upstream's order: those that
// kube-apiserver v1.37 enables by default, and two that it does not and every
// cluster should: OwnerReferencesPermissionEnforcement and DenyServiceExternalIPs.
// PodGroupProtection does nothing: upstream's neither, unless the alpha kind PodGroup
// is switched on.
func Default(cfg Config) Chain {
	return cfg.Switches.keep(slices.Concat(static(cfg), cfg.Dynamic, Chain{{"ResourceQuota", newQuotas(cfg)}}))
}

func static(cfg Config) Chain {
	csr := certificateRules{authz: cfg.Authz, now: cfg.Now}
	return Chain{
		{"NamespaceLifecycle", namespaces{objects: cfg.Objects, going: &going{now: cfg.Now, at: map[string]time.Time{}}}},
		{"LimitRanger", limits{objects: cfg.Objects}},
		{"ServiceAccount", serviceAccounts{objects: cfg.Objects}},
		{"NodeRestriction", nodeRestriction{objects: cfg.Objects, authz: cfg.Authz}},
		{"NodeRestriction", nodeCertificates{objects: cfg.Objects, authz: cfg.Authz}},
		{"TaintNodesByCondition", freshNodes{}},
		{"PodSecurity", newPodSecurity(cfg.Objects, cfg.PodSecurity)},
		{"Priority", priorities{objects: cfg.Objects}},
		{"DefaultTolerationSeconds", tolerations{}},
		{"DefaultStorageClass", storageClasses{objects: cfg.Objects}},
		{"StorageObjectInUseProtection", storageInUse{}},
		{"OwnerReferencesPermissionEnforcement", ownerReferences{authz: cfg.Authz, resourceOf: cfg.ResourceOf}},
		{"PersistentVolumeClaimResize", claimResize{objects: cfg.Objects}},
		{"", volumePhases{now: cfg.Now}},
		{"RuntimeClass", runtimeClasses{objects: cfg.Objects}},
		{"", csr},
		{"CertificateApproval", Judges{certificateApproval{certificateRules: csr}}},
		{"CertificateSigning", Judges{certificateSigning{certificateRules: csr}}},
		{"ClusterTrustBundleAttest", Judges{trustBundleAttest{certificateRules: csr}}},
		{"CertificateSubjectRestriction", subjectRestriction{}},
		{"DefaultIngressClass", ingressClasses{objects: cfg.Objects}},
		{"DenyServiceExternalIPs", externalIPs{}},
		{"PodTopologyLabels", podTopology{objects: cfg.Objects}},
		{"NodeDeclaredFeatureValidator", nodeFeatures{objects: cfg.Objects}},
		{"PodResizeValidator", podResize{objects: cfg.Objects}},
		{"", deviceRules{objects: cfg.Objects, authz: cfg.Authz}},
		{"", deviceTaints{now: cfg.Now}},
		{"", escalation{authz: cfg.Authz}},
	}
}

// peeker is a Reader that can give what its cache has without the ado of a request;
// not ok sends on to Get and List.
type peeker interface {
	Peek(t target.Target) (obj runtime.Object, ok bool)
	PeekAll(t target.Target) (objects []runtime.Object, ok bool)
}

// cached asks the cache, and the store when the cache has not got it: an object
// made a moment ago must be seen.
func cached(ctx context.Context, r Reader, t target.Target) (runtime.Object, error) {
	if p, can := r.(peeker); can {
		if obj, ok := p.Peek(t); ok {
			return obj, nil
		}
	}
	obj, err := r.Get(ctx, t, metav1.GetOptions{ResourceVersion: "0"})
	if apierrors.IsNotFound(err) {
		return r.Get(ctx, t, metav1.GetOptions{})
	}
	return obj, err
}

// asListed names what is not found as upstream's listers do: by its kind, not by its
// resource.
func asListed(err error, kind, name string) error {
	if apierrors.IsNotFound(err) {
		return apierrors.NewNotFound(corev1.Resource(kind), name)
	}
	return err
}

// listed gives a list's items from the cache.
func listed[T runtime.Object](ctx context.Context, r Reader, t target.Target) ([]T, error) {
	if p, can := r.(peeker); can {
		if all, ok := p.PeekAll(t); ok {
			return typed[T](all), nil
		}
	}
	list, err := r.List(ctx, t, metav1.ListOptions{ResourceVersion: "0"})
	if err != nil {
		return nil, err
	}
	return itemsOf[T](list)
}

// typed are those of the objects that are what they should be: all of them.
func typed[T runtime.Object](all []runtime.Object) (items []T) {
	for _, obj := range all {
		if item, ok := obj.(T); ok {
			items = append(items, item)
		}
	}
	return items
}

// itemsOf are a list's items, shared.
func itemsOf[T runtime.Object](list runtime.Object) ([]T, error) {
	var items []T
	err := meta.EachListItem(list, func(obj runtime.Object) error {
		if item, ok := obj.(T); ok {
			items = append(items, item)
		}
		return nil
	})
	return items, err
}

// newPod is the pod that a request creates.
func newPod(a *resource.Attributes) (*corev1.Pod, bool) {
	if a.Operation != resource.OpCreate || a.Target.Subresource != "" || !is(a, "", "pods") {
		return nil, false
	}
	pod, ok := a.Object.(*corev1.Pod)
	return pod, ok
}

// is says whether the request is about the resource or one of its subresources.
func is(a *resource.Attributes, group, res string) bool {
	return a.Target.Resource.Group == group && a.Target.Resource.Resource == res
}

// core names an object of the core group.
func core(res, namespace, name string) target.Target {
	return target.Of(corev1.SchemeGroupVersion.WithResource(res), namespace).Object(name)
}

// group names a collection of another group.
func group(gv schema.GroupVersion, res, namespace string) target.Target {
	return target.Of(gv.WithResource(res), namespace)
}
