package admit

import (
	"context"
	"fmt"
	"slices"

	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"

	"github.com/sampan-dev/sampan/control/apiserver/authz"
	"github.com/sampan-dev/sampan/control/apiserver/resource"
)

// ownerReferences: who ties an object to another makes the collector delete it
// one day, so they must be allowed to delete it; who blocks the owner's deletion
// must be allowed to change the owner's finalizers.
type ownerReferences struct {
	Judging
	authz      *authz.Authorizer
	resourceOf func(gvk schema.GroupVersionKind) (gvr schema.GroupVersionResource, namespaced, ok bool)
}

func (r ownerReferences) Validate(ctx context.Context, a *resource.Attributes) error {
	now, ok := a.Object.(metav1.Object)
	if !ok || a.Target.Subresource != "" {
		return nil
	}
	had := ownersOf(a.Old)
	if slices.EqualFunc(now.GetOwnerReferences(), had, sameReference) {
		return nil
	}
	t := a.Target
	if a.Operation != resource.OpCreate {
		q := authz.Attributes{User: a.User, Verb: "delete", Group: t.Resource.Group, Version: t.Resource.Version,
			Resource: t.Resource.Resource, Namespace: t.Namespace, Name: t.Name}
		if may, reason := r.authz.Authorize(ctx, q); !may {
			return fmt.Errorf("cannot set an ownerRef on a resource you can't delete: %v, <nil>", reason)
		}
	}
	for _, ref := range now.GetOwnerReferences() {
		if blocks(ref) && !slices.ContainsFunc(had, func(o metav1.OwnerReference) bool { return o.UID == ref.UID && blocks(o) }) {
			if err := r.mayBlock(ctx, a, ref); err != nil {
				return err
			}
		}
	}
	return nil
}

func (r ownerReferences) mayBlock(ctx context.Context, a *resource.Attributes, ref metav1.OwnerReference) error {
	gvr, namespaced, ok := r.resourceOf(schema.FromAPIVersionAndKind(ref.APIVersion, ref.Kind))
	if !ok {
		return fmt.Errorf("cannot set blockOwnerDeletion in this case because cannot find RESTMapping for APIVersion %v Kind %v: %w", ref.APIVersion, ref.Kind, unknownKind(ref))
	}
	q := authz.Attributes{User: a.User, Verb: "update", Group: gvr.Group, Version: gvr.Version,
		Resource: gvr.Resource, Subresource: "finalizers", Name: ref.Name}
	if namespaced {
		q.Namespace = a.Target.Namespace
	}
	if may, reason := r.authz.Authorize(ctx, q); !may {
		return fmt.Errorf("cannot set blockOwnerDeletion if an ownerReference refers to a resource you can't set finalizers on: %v, <nil>", reason)
	}
	return nil
}

// unknownKind is upstream's sentence for a kind that is not served.
func unknownKind(ref metav1.OwnerReference) error {
	gv, err := schema.ParseGroupVersion(ref.APIVersion)
	if err != nil {
		return err
	}
	return &meta.NoKindMatchError{GroupKind: gv.WithKind(ref.Kind).GroupKind(), SearchedVersions: []string{gv.Version}}
}

func ownersOf(obj runtime.Object) []metav1.OwnerReference {
	if old, ok := obj.(metav1.Object); ok {
		return old.GetOwnerReferences()
	}
	return nil
}

func blocks(ref metav1.OwnerReference) bool {
	return ref.BlockOwnerDeletion != nil && *ref.BlockOwnerDeletion
}

func sameReference(a, b metav1.OwnerReference) bool {
	same := func(x, y *bool) bool { return x == y || x != nil && y != nil && *x == *y }
	return a.APIVersion == b.APIVersion && a.Kind == b.Kind && a.Name == b.Name && a.UID == b.UID &&
		same(a.BlockOwnerDeletion, b.BlockOwnerDeletion) && same(a.Controller, b.Controller)
}
