// Package namespace keeps a promise: a namespace that is being deleted takes
// everything in it along, pods first, and then goes. It follows upstream's
// pkg/controller/namespace in order, conditions and messages.
package namespace

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"

	"github.com/sampan-dev/sampan/client"
	"github.com/sampan-dev/sampan/client/informer"
	"github.com/sampan-dev/sampan/control/controller"
	"github.com/sampan-dev/sampan/internal/target"
	"github.com/sampan-dev/sampan/reconcile"
)

const (
	component = "namespace-controller"
	// byFinalizers is how long what others' finalizers hold back is given before
	// it is looked at again: upstream's estimate, halved as upstream does.
	byFinalizers = 8 * time.Second
	// pageSize bounds the listing of what remains.
	pageSize    = 500
	byNamespace = "namespace" // index of pods
)

// Controller empties namespaces.
type Controller struct {
	transport  client.Transport
	loop       *reconcile.Loop
	namespaces *informer.Informer[*corev1.Namespace]
	kinds      *controller.Kinds
}

// New makes the controller; kinds are those that a namespace may hold.
func New(cfg controller.Config, kinds *controller.Kinds) (*Controller, error) {
	if err := cfg.Valid(); err != nil {
		return nil, err
	}
	if kinds == nil {
		return nil, errors.New("namespace controller: no kinds")
	}
	c := &Controller{
		transport:  cfg.Transport(component),
		namespaces: controller.Mirror(cfg.Mirrors, client.Namespaces),
		kinds:      kinds,
	}
	pods := controller.Mirror(cfg.Mirrors, client.Pods)
	c.loop = reconcile.NewLoop(c, reconcile.Config{Log: cfg.Log, Synced: cfg.Mirrors.Synced(c.Reads()...)})
	c.namespaces.Subscribe(func(e informer.Event[*corev1.Namespace]) {
		if e.New != nil && e.New.DeletionTimestamp != nil {
			c.loop.Enqueue(controller.KeyOf(e.New))
		}
	})
	pods.AddIndex(byNamespace, func(p *corev1.Pod) []string { return []string{p.Namespace} })
	pods.Subscribe(func(e informer.Event[*corev1.Pod]) {
		if e.New == nil && len(pods.ByIndex(byNamespace, e.Old.Namespace)) == 0 {
			c.loop.Enqueue(reconcile.Key{Name: e.Old.Namespace}) // the last has gone: on with the rest
		}
	})
	return c, nil
}

// Everywhere implements controller.Everywhere: it deletes all that a namespace
// holds.
func (*Controller) Everywhere() (reads bool, writes []string) {
	return true, []string{reconcile.Delete}
}

// Name implements reconcile.Reconciler.
func (*Controller) Name() string { return "namespace" }

// Reads implements reconcile.Reconciler.
func (*Controller) Reads() []schema.GroupVersionResource {
	return []schema.GroupVersionResource{client.Namespaces.GroupVersionResource, client.Pods.GroupVersionResource}
}

// Writes implements reconcile.Reconciler.
func (*Controller) Writes() []reconcile.Write {
	return []reconcile.Write{
		{Resource: client.Namespaces.GroupVersionResource, Part: reconcile.Status},
		{Resource: client.Namespaces.GroupVersionResource, Part: "spec.finalizers[kubernetes]"},
	}
}

// Run implements controller.Controller.
func (c *Controller) Run(ctx context.Context) error { return c.loop.Run(ctx) }

// Reconcile implements reconcile.Reconciler.
func (c *Controller) Reconcile(ctx context.Context, key reconcile.Key) (time.Duration, error) {
	seen, ok := c.namespaces.Get("", key.Name)
	if !ok || seen.DeletionTimestamp == nil {
		return 0, nil
	}
	ns, err := client.Namespaces.Get(ctx, c.transport, "", key.Name)
	switch {
	case apierrors.IsNotFound(err):
		return 0, nil
	case err != nil:
		return 0, fmt.Errorf("get namespace %q: %w", key.Name, err)
	case ns.UID != seen.UID || ns.DeletionTimestamp == nil || len(ns.Spec.Finalizers) == 0:
		return 0, nil
	}
	if ns.Status.Phase != corev1.NamespaceTerminating {
		next := ns.DeepCopy()
		next.Status.Phase = corev1.NamespaceTerminating
		if ns, err = client.Namespaces.UpdateStatus(ctx, c.transport, next); err != nil {
			return 0, fmt.Errorf("mark namespace %q as terminating: %w", key.Name, err)
		}
	}
	left := c.empty(ctx, ns.Name)
	if status, changed := statusOf(ns, left, time.Now()); changed {
		next := ns.DeepCopy()
		next.Status = status
		if ns, err = client.Namespaces.UpdateStatus(ctx, c.transport, next); err != nil {
			return 0, fmt.Errorf("update status of namespace %q: %w", key.Name, err)
		}
	}
	if err := errors.Join(append(left.errs, left.undiscovered())...); err != nil {
		return 0, fmt.Errorf("empty namespace %q: %w", key.Name, err)
	}
	if left.any() {
		return lookAgain(left.wait, time.Since(ns.DeletionTimestamp.Time)), nil
	}
	return 0, c.finalize(ctx, ns)
}

// lookAgain is when to look again at a namespace whose content may take as long as
// wait to go, and that has been going for a while: pods seldom need all of their
// grace, and who deletes a namespace often waits for its end. So it is looked at
// every second at first, and then more and more seldom.
func lookAgain(wait, going time.Duration) time.Duration {
	return min(wait, max(going/2, time.Second))
}

// finalize removes the finalizer that has kept the namespace until now.
func (c *Controller) finalize(ctx context.Context, ns *corev1.Namespace) error {
	next := ns.DeepCopy()
	next.Spec.Finalizers = slices.DeleteFunc(next.Spec.Finalizers, func(f corev1.FinalizerName) bool { return f == corev1.FinalizerKubernetes })
	at := target.Of(client.Namespaces.GroupVersionResource, "").Object(ns.Name).Sub("finalize")
	_, err := c.transport.Update(ctx, at, next, metav1.UpdateOptions{})
	if err != nil && !apierrors.IsNotFound(err) {
		return fmt.Errorf("finalize namespace %q: %w", ns.Name, err)
	}
	return nil
}

// empty asks for the deletion of everything in a namespace and says what is
// left. Nothing else goes before the last pod has: pods may need the rest to end
// well.
func (c *Controller) empty(ctx context.Context, namespace string) remains {
	left := remains{kinds: map[schema.GroupVersionResource]int{}, finalizers: map[string]int{}}
	kinds, _ := c.kinds.List()
	others := c.discover(ctx)
	left.failed = others.failed
	pods := client.Pods.GroupVersionResource
	left.emptyKind(ctx, c.transport, pods, namespace)
	if left.kinds[pods] > 0 {
		return left
	}
	for _, kind := range kinds {
		if kind.Namespaced && kind.GroupVersionResource != pods {
			left.emptyKind(ctx, c.transport, kind.GroupVersionResource, namespace)
		}
	}
	for _, kind := range others.kinds {
		left.emptyRemote(ctx, c.transport, kind, namespace)
	}
	return left
}

// remains is what a namespace still holds, and why.
type remains struct {
	kinds      map[schema.GroupVersionResource]int
	finalizers map[string]int
	errs       []error
	// failed are group versions of other servers of which nobody knows what they
	// keep.
	failed map[schema.GroupVersion]error
	wait   time.Duration // when to look again
}

func (r *remains) any() bool { return len(r.kinds) > 0 }

// emptyKind deletes a kind's objects and counts those that stay for a while.
func (r *remains) emptyKind(ctx context.Context, t client.Transport, kind schema.GroupVersionResource, namespace string) {
	at := target.Of(kind, namespace)
	background := metav1.DeletePropagationBackground
	opts := metav1.DeleteOptions{PropagationPolicy: &background}
	err := t.DeleteCollection(ctx, at, opts, metav1.ListOptions{})
	if apierrors.IsMethodNotSupported(err) {
		err = deleteEach(ctx, t, at, opts)
	}
	if gone(err) {
		return
	}
	if err != nil {
		r.errs = append(r.errs, fmt.Errorf("delete %s: %w", kind.GroupResource(), err))
		return
	}
	page := metav1.ListOptions{Limit: pageSize}
	for {
		list, err := t.List(ctx, at, page)
		if gone(err) {
			return
		}
		if err == nil {
			err = meta.EachListItem(list, func(obj runtime.Object) error { return r.count(kind, obj) })
		}
		if err != nil {
			r.errs = append(r.errs, fmt.Errorf("list %s: %w", kind.GroupResource(), err))
			return
		}
		m, err := meta.ListAccessor(list)
		if err != nil || m.GetContinue() == "" {
			return
		}
		page.Continue = m.GetContinue()
	}
}

// deleteEach is for kinds that can only be deleted one by one.
func deleteEach(ctx context.Context, t client.Transport, at target.Target, opts metav1.DeleteOptions) error {
	list, err := t.List(ctx, at, metav1.ListOptions{})
	if err != nil {
		return err
	}
	return meta.EachListItem(list, func(obj runtime.Object) error {
		m, err := meta.Accessor(obj)
		if err != nil {
			return fmt.Errorf("read metadata of %T: %w", obj, err)
		}
		if err := t.Delete(ctx, at.Object(m.GetName()), opts); err != nil && !gone(err) {
			return err
		}
		return nil
	})
}

// gone says that a kind is not served, or cannot be deleted or listed: then it
// holds nothing back.
func gone(err error) bool {
	return apierrors.IsNotFound(err) || apierrors.IsMethodNotSupported(err)
}

func (r *remains) count(kind schema.GroupVersionResource, obj runtime.Object) error {
	m, err := meta.Accessor(obj)
	if err != nil {
		return fmt.Errorf("read metadata of %T: %w", obj, err)
	}
	r.kinds[kind]++
	for _, f := range m.GetFinalizers() {
		r.finalizers[f]++
	}
	wait := byFinalizers
	if until := m.GetDeletionTimestamp(); until != nil && len(m.GetFinalizers()) == 0 {
		if left := time.Until(until.Time); left > 0 { // else it is late, and who knows why
			wait = left/2 + time.Second
		}
	}
	if r.wait == 0 || wait < r.wait {
		r.wait = wait
	}
	return nil
}
