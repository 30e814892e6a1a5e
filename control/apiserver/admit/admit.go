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

	"github.com/sampan-dev/sampan/control/apiserver/admit/match"
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

// Rule is one admission rule. A rule that only changes, or only judges, embeds
// Neither for the other half.
type Rule interface {
	Admit(ctx context.Context, a *resource.Attributes) error
	Validate(ctx context.Context, a *resource.Attributes) error
}

// Neither changes nothing and refuses nothing.
type Neither struct{}

// Admit does nothing.
func (Neither) Admit(context.Context, *resource.Attributes) error { return nil }

// Validate does nothing.
func (Neither) Validate(context.Context, *resource.Attributes) error { return nil }

// Chain is an ordered list of rules; the first that refuses ends it.
type Chain []Rule

// Admit lets every rule change the object in turn, and once more if a webhook or
// policy changed what the rules before it had seen.
func (c Chain) Admit(ctx context.Context, a *resource.Attributes) error {
	ctx, rounds := match.WithRounds(ctx)
	if err := c.admit(ctx, a); err != nil || !rounds.Again() {
		return err
	}
	return c.admit(ctx, a)
}

func (c Chain) admit(ctx context.Context, a *resource.Attributes) error {
	for _, rule := range c {
		if err := rule.Admit(ctx, a); err != nil {
			return err
		}
	}
	return nil
}

// Validate lets every rule judge the object as it will be stored.
func (c Chain) Validate(ctx context.Context, a *resource.Attributes) error {
	for _, rule := range c {
		if err := rule.Validate(ctx, a); err != nil {
			return err
		}
	}
	return nil
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
	Dynamic []Rule
}

// Default are the rules of a cluster that nobody configured, in upstream's order:
// those that kube-apiserver v1.37 enables by default, and two that it does not
// and every cluster should: OwnerReferencesPermissionEnforcement and
// DenyServiceExternalIPs. PodGroupProtection is missing: upstream does nothing in
// it unless the alpha kind PodGroup is switched on.
func Default(cfg Config) Chain {
	return slices.Concat(static(cfg), cfg.Dynamic, Chain{newQuotas(cfg)})
}

func static(cfg Config) Chain {
	return Chain{
		namespaces{objects: cfg.Objects, going: &going{now: cfg.Now, at: map[string]time.Time{}}},
		limits{objects: cfg.Objects},
		serviceAccounts{objects: cfg.Objects},
		nodeRestriction{objects: cfg.Objects},
		nodeCertificates{objects: cfg.Objects, authz: cfg.Authz},
		freshNodes{},
		newPodSecurity(cfg.Objects, cfg.PodSecurity),
		priorities{objects: cfg.Objects},
		tolerations{},
		storageClasses{objects: cfg.Objects},
		storageInUse{},
		ownerReferences{authz: cfg.Authz, resourceOf: cfg.ResourceOf},
		claimResize{objects: cfg.Objects},
		volumePhases{now: cfg.Now},
		runtimeClasses{objects: cfg.Objects},
		certificateRules{authz: cfg.Authz, now: cfg.Now},
		ingressClasses{objects: cfg.Objects},
		externalIPs{},
		podTopology{objects: cfg.Objects},
		nodeFeatures{objects: cfg.Objects},
		podResize{objects: cfg.Objects},
		escalation{authz: cfg.Authz},
	}
}

// cached asks the cache, and the store when the cache has not got it: an object
// made a moment ago must be seen.
func cached(ctx context.Context, r Reader, t target.Target) (runtime.Object, error) {
	obj, err := r.Get(ctx, t, metav1.GetOptions{ResourceVersion: "0"})
	if apierrors.IsNotFound(err) {
		return r.Get(ctx, t, metav1.GetOptions{})
	}
	return obj, err
}

// listed gives a list's items from the cache.
func listed[T runtime.Object](ctx context.Context, r Reader, t target.Target) ([]T, error) {
	list, err := r.List(ctx, t, metav1.ListOptions{ResourceVersion: "0"})
	if err != nil {
		return nil, err
	}
	return itemsOf[T](list)
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
