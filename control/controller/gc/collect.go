package gc

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"

	"github.com/sampan-dev/sampan/internal/target"
	"github.com/sampan-dev/sampan/reconcile"
)

// Reconcile implements reconcile.Reconciler.
func (c *Collector) Reconcile(ctx context.Context, key reconcile.Key) (time.Duration, error) {
	n := c.graph.get(types.UID(key.Name))
	switch {
	case n == nil:
		return 0, nil
	case n.deleting && n.orphaning:
		return 0, c.orphan(ctx, n)
	case n.deleting && n.foreground:
		return 0, c.waitForDependents(ctx, n)
	case n.deleting, len(n.owners) == 0:
		return 0, nil
	}
	owners, err := c.classify(ctx, n, n.owners)
	if err != nil || len(owners.dangling)+len(owners.waiting) == 0 {
		return 0, drop(err)
	}
	live, err := c.live(ctx, n)
	if live == nil || err != nil || live.GetDeletionTimestamp() != nil {
		return 0, err // what goes already needs no second push; the graph hears of it
	}
	if owners, err = c.classify(ctx, n, live.GetOwnerReferences()); err != nil {
		return 0, drop(err)
	}
	return 0, c.act(ctx, n, live, decide(owners, live, c.graph.dependentsOf(n.uid)))
}

// errUncollectable marks references that no retry can make sense of.
var errUncollectable = errors.New("a cluster-wide object cannot be owned by one in a namespace")

func drop(err error) error {
	if errors.Is(err, errUncollectable) {
		return nil
	}
	return err
}

// owners are an object's owner references by what has become of the owners.
type owners struct {
	solid    []metav1.OwnerReference // exist
	waiting  []metav1.OwnerReference // wait in the foreground for their dependents
	dangling []metav1.OwnerReference // do not exist
}

// classify looks for the owners: in the graph, and on the server for those that
// the graph cannot vouch for.
func (c *Collector) classify(ctx context.Context, n *node, refs []metav1.OwnerReference) (owners, error) {
	var found owners
	for _, ref := range refs {
		exists, waiting, err := c.owner(ctx, n, ref)
		switch {
		case err != nil:
			return owners{}, err
		case !exists:
			found.dangling = append(found.dangling, ref)
		case waiting:
			found.waiting = append(found.waiting, ref)
		default:
			found.solid = append(found.solid, ref)
		}
	}
	return found, nil
}

// owner says whether the owner that n names exists, and whether it waits for n.
func (c *Collector) owner(ctx context.Context, n *node, ref metav1.OwnerReference) (exists, waiting bool, err error) {
	gvk := schema.FromAPIVersionAndKind(ref.APIVersion, ref.Kind)
	if known := c.graph.get(ref.UID); known != nil && known.name == ref.Name && known.kind.Kind == gvk.Kind && known.kind.Group == gvk.Group {
		if !known.kind.Namespaced || known.namespace == n.namespace {
			return true, known.deleting && known.foreground, nil
		}
		c.foreign(n, ref)
	}
	kind, ok := c.find(gvk)
	if ok && kind.Namespaced && n.namespace == "" {
		return false, false, errUncollectable // even if that owner is known to have gone
	}
	named := absence{uid: ref.UID, namespace: n.namespace, name: ref.Name, kind: gvk.Kind, group: gvk.Group}
	if c.graph.isGone(named) {
		return false, false, nil
	}
	if !ok {
		return false, false, fmt.Errorf("owner %s %q of %s %q: its kind is not known", gvk, ref.Name, n.kind.Resource, n.name)
	}
	namespace := ""
	if kind.Namespaced {
		namespace = n.namespace
	}
	obj, err := c.transport.Get(ctx, target.Of(kind.GroupVersionResource, namespace).Object(ref.Name), metav1.GetOptions{})
	if apierrors.IsNotFound(err) {
		c.graph.markGone(named)
		return false, false, nil
	}
	if err != nil {
		return false, false, fmt.Errorf("get owner %s %q: %w", kind.Resource, ref.Name, err)
	}
	live, err := meta.Accessor(obj)
	if err != nil {
		return false, false, fmt.Errorf("read metadata of %T: %w", obj, err)
	}
	if live.GetUID() != ref.UID {
		c.graph.markGone(named)
		return false, false, nil
	}
	return true, live.GetDeletionTimestamp() != nil && slices.Contains(live.GetFinalizers(), metav1.FinalizerDeleteDependents), nil
}

// foreign tells of an owner in another namespace: that cannot be, and the object
// will be collected as if there were no owner.
func (c *Collector) foreign(n *node, ref metav1.OwnerReference) {
	about := corev1.ObjectReference{
		APIVersion: n.kind.GroupVersion().String(), Kind: n.kind.Kind, Namespace: n.namespace, Name: n.name, UID: n.uid,
	}
	c.events.EventRef(about, corev1.EventTypeWarning, "OwnerRefInvalidNamespace",
		fmt.Sprintf("ownerRef [%s/%s, namespace: %s, name: %s, uid: %s] does not exist in namespace %q",
			ref.APIVersion, ref.Kind, n.namespace, ref.Name, ref.UID, n.namespace))
}

// action is what becomes of an object.
type action struct {
	// keep are the owner references that the object has afterwards; nil leaves
	// them as they are.
	keep []metav1.OwnerReference
	// patch says that keep is to be written.
	patch bool
	// remove is how the object is deleted, "" not at all.
	remove metav1.DeletionPropagation
	reason string
}

// decide is pure: the rules of collection.
func decide(o owners, live metav1.Object, dependents []*node) action {
	switch {
	case len(o.solid) > 0 && len(o.dangling)+len(o.waiting) == 0:
		return action{reason: "an owner exists"}
	case len(o.solid) > 0:
		return action{patch: true, keep: o.solid, reason: "an owner exists; the others are let go"}
	case len(o.dangling)+len(o.waiting) == 0:
		return action{reason: "it has no owner"}
	case len(o.waiting) > 0 && len(dependents) > 0:
		a := action{remove: metav1.DeletePropagationForeground, reason: "its owner waits for it, and it has dependents itself"}
		if slices.ContainsFunc(dependents, func(d *node) bool { return d.deleting && d.foreground }) {
			a.patch, a.keep = true, unblocked(live.GetOwnerReferences()) // else a circle would wait for itself
		}
		return a
	case slices.Contains(live.GetFinalizers(), metav1.FinalizerOrphanDependents):
		return action{remove: metav1.DeletePropagationOrphan, reason: "no owner exists"}
	case slices.Contains(live.GetFinalizers(), metav1.FinalizerDeleteDependents):
		return action{remove: metav1.DeletePropagationForeground, reason: "no owner exists"}
	}
	return action{remove: metav1.DeletePropagationBackground, reason: "no owner exists"}
}

func unblocked(refs []metav1.OwnerReference) []metav1.OwnerReference {
	no := false
	all := slices.Clone(refs)
	for i := range all {
		all[i].BlockOwnerDeletion = &no
	}
	return all
}

// act carries out a.
func (c *Collector) act(ctx context.Context, n *node, live metav1.Object, a action) error {
	rev := live.GetResourceVersion()
	if a.patch {
		var err error
		if rev, err = c.patch(ctx, n, rev, map[string]any{"ownerReferences": a.keep}); err != nil {
			return err
		}
	}
	if a.remove == "" {
		return nil
	}
	c.log.Debug("collecting", "kind", n.kind.Resource, "namespace", n.namespace, "name", n.name, "reason", a.reason)
	err := c.transport.Delete(ctx, at(n), metav1.DeleteOptions{
		Preconditions:     &metav1.Preconditions{UID: &n.uid, ResourceVersion: &rev},
		PropagationPolicy: &a.remove,
	})
	if err != nil && !apierrors.IsNotFound(err) {
		return fmt.Errorf("delete %s %q: %w", n.kind.Resource, n.name, err)
	}
	return nil
}

// orphan lets the dependents of an owner go, then the owner.
func (c *Collector) orphan(ctx context.Context, n *node) error {
	for _, d := range c.graph.dependentsOf(n.uid) {
		live, err := c.live(ctx, d)
		if err != nil {
			return err
		}
		if live == nil {
			continue
		}
		keep := slices.DeleteFunc(slices.Clone(live.GetOwnerReferences()), func(ref metav1.OwnerReference) bool { return ref.UID == n.uid })
		if len(keep) == len(live.GetOwnerReferences()) {
			continue
		}
		if _, err := c.patch(ctx, d, live.GetResourceVersion(), map[string]any{"ownerReferences": keep}); err != nil {
			return err
		}
	}
	return c.removeFinalizer(ctx, n, metav1.FinalizerOrphanDependents)
}

// waitForDependents sends the dependents of an owner off before it, and lets it
// go when none is left that it has to wait for.
func (c *Collector) waitForDependents(ctx context.Context, n *node) error {
	blocking := false
	for _, d := range c.graph.dependentsOf(n.uid) {
		blocking = blocking || d.blocks(n.uid)
		if !d.deleting {
			c.loop.Enqueue(reconcile.Key{Name: string(d.uid)})
		}
	}
	if blocking {
		return nil // the going of the last one brings the owner back here
	}
	return c.removeFinalizer(ctx, n, metav1.FinalizerDeleteDependents)
}

func (c *Collector) removeFinalizer(ctx context.Context, n *node, finalizer string) error {
	live, err := c.live(ctx, n)
	if live == nil || err != nil {
		return err
	}
	keep := slices.DeleteFunc(slices.Clone(live.GetFinalizers()), func(f string) bool { return f == finalizer })
	if len(keep) == len(live.GetFinalizers()) {
		return nil
	}
	_, err = c.patch(ctx, n, live.GetResourceVersion(), map[string]any{"finalizers": keep})
	return err
}

// live returns the object's metadata as the server has it, nil when it is gone.
func (c *Collector) live(ctx context.Context, n *node) (metav1.Object, error) {
	obj, err := c.transport.Get(ctx, at(n), metav1.GetOptions{})
	if apierrors.IsNotFound(err) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("get %s %q: %w", n.kind.Resource, n.name, err)
	}
	m, err := meta.Accessor(obj)
	if err != nil {
		return nil, fmt.Errorf("read metadata of %T: %w", obj, err)
	}
	if m.GetUID() != n.uid {
		return nil, nil
	}
	return m, nil
}

// patch changes metadata of the object as it was at rev, and returns its new
// revision. An object that is gone needs no change.
func (c *Collector) patch(ctx context.Context, n *node, rev string, metadata map[string]any) (string, error) {
	metadata["uid"], metadata["resourceVersion"] = n.uid, rev
	data, err := json.Marshal(map[string]any{"metadata": metadata})
	if err != nil {
		return "", fmt.Errorf("encode patch: %w", err)
	}
	obj, err := c.transport.Patch(ctx, at(n), types.MergePatchType, data, metav1.PatchOptions{})
	if apierrors.IsNotFound(err) {
		return rev, nil
	}
	if err != nil {
		return "", fmt.Errorf("patch %s %q: %w", n.kind.Resource, n.name, err)
	}
	m, err := meta.Accessor(obj)
	if err != nil {
		return "", fmt.Errorf("read metadata of %T: %w", obj, err)
	}
	return m.GetResourceVersion(), nil
}

func at(n *node) target.Target {
	return target.Of(n.kind.GroupVersionResource, n.namespace).Object(n.name)
}
