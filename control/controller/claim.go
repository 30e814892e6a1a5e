package controller

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"

	"github.com/sampan-dev/sampan/client"
	"github.com/sampan-dev/sampan/internal/target"
)

// Claim sorts out whom dependents belong to, by controller reference and
// selector: an owner adopts matching objects that have no controller and
// releases its own that match no longer.
type Claim[T client.Object] struct {
	Transport client.Transport
	Resource  client.Resource[T]
	Owner     client.Object
	OwnerKind schema.GroupVersionKind
	Selector  labels.Selector
	// Member, when set, must be true of what belongs to the owner, besides Selector.
	Member func(T) bool
	// Finalizers are put on what is adopted, and taken off what is released.
	Finalizers []string
	// Confirm asks the server, not a mirror, for the owner as it is now. It is
	// called at most once, before the first adoption.
	Confirm func(ctx context.Context) (client.Object, error)

	confirmed error
	asked     bool
}

// Decision is what becomes of one object.
type Decision int

// The decisions.
const (
	Ignore Decision = iota
	Keep
	Adopt
	Release
)

// Decide is pure: what should become of obj.
func (c *Claim[T]) Decide(obj T) Decision {
	match := c.Selector.Matches(labels.Set(obj.GetLabels())) && (c.Member == nil || c.Member(obj))
	if ref := metav1.GetControllerOfNoCopy(obj); ref != nil {
		switch {
		case ref.UID != c.Owner.GetUID():
			return Ignore
		case match:
			return Keep
		case c.Owner.GetDeletionTimestamp() != nil:
			return Ignore // the collector sees to it
		}
		return Release
	}
	if !match || c.Owner.GetDeletionTimestamp() != nil || obj.GetDeletionTimestamp() != nil {
		return Ignore
	}
	return Adopt
}

// Sort returns the objects that belong to the owner, after adopting and
// releasing. Objects that vanish meanwhile are left out; other failures are
// reported together, with what could be claimed.
func (c *Claim[T]) Sort(ctx context.Context, objects []T) ([]T, error) {
	var mine []T
	var errs []error
	for _, obj := range objects {
		switch c.Decide(obj) {
		case Keep:
			mine = append(mine, obj)
		case Adopt:
			adopted, err := c.adopt(ctx, obj)
			if err == nil {
				mine = append(mine, adopted)
			} else if !apierrors.IsNotFound(err) {
				errs = append(errs, fmt.Errorf("adopt %s %q: %w", c.Resource.Kind, obj.GetName(), err))
			}
		case Release:
			if err := c.release(ctx, obj); err != nil {
				errs = append(errs, fmt.Errorf("release %s %q: %w", c.Resource.Kind, obj.GetName(), err))
			}
		}
	}
	return mine, errors.Join(errs...)
}

func (c *Claim[T]) adopt(ctx context.Context, obj T) (T, error) {
	if !c.asked {
		c.asked = true
		c.confirmed = c.confirm(ctx)
	}
	if c.confirmed != nil {
		return obj, c.confirmed
	}
	ref := metav1.NewControllerRef(c.Owner, c.OwnerKind)
	return c.patch(ctx, obj, ref, "finalizers")
}

// confirm makes sure that the owner has not been deleted, or deleted and made
// anew, since the mirror saw it.
func (c *Claim[T]) confirm(ctx context.Context) error {
	live, err := c.Confirm(ctx)
	if err != nil {
		return err
	}
	if live.GetUID() != c.Owner.GetUID() {
		return fmt.Errorf("owner %q is another object now: uid %s, was %s", c.Owner.GetName(), live.GetUID(), c.Owner.GetUID())
	}
	if live.GetDeletionTimestamp() != nil {
		return fmt.Errorf("owner %q is being deleted", c.Owner.GetName())
	}
	return nil
}

// release removes the owner's reference. That the object is gone, or is another
// one (422 for the uid), is as good.
func (c *Claim[T]) release(ctx context.Context, obj T) error {
	_, err := c.patch(ctx, obj, map[string]any{"$patch": "delete", "uid": c.Owner.GetUID()}, "$deleteFromPrimitiveList/finalizers")
	if apierrors.IsNotFound(err) || apierrors.IsInvalid(err) {
		return nil
	}
	return err
}

// patch changes one owner reference, and the finalizers by the given directive,
// on condition that obj is still the same.
func (c *Claim[T]) patch(ctx context.Context, obj T, ref any, directive string) (T, error) {
	meta := map[string]any{"uid": obj.GetUID(), "ownerReferences": []any{ref}}
	if len(c.Finalizers) > 0 {
		meta[directive] = c.Finalizers
	}
	data, err := json.Marshal(map[string]any{"metadata": meta})
	if err != nil {
		return obj, fmt.Errorf("encode patch: %w", err)
	}
	at := target.Of(c.Resource.GroupVersionResource, obj.GetNamespace()).Object(obj.GetName())
	return c.Resource.Patch(ctx, c.Transport, at, client.Patch{Type: types.StrategicMergePatchType, Data: data})
}

func groupOf(ref *metav1.OwnerReference) string {
	gv, err := schema.ParseGroupVersion(ref.APIVersion)
	if err != nil {
		return ""
	}
	return gv.Group
}
