package controller

import (
	"context"
	"fmt"
	"log/slog"
	"slices"
	"sync"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/runtime/schema"

	"github.com/sampan-dev/sampan/client"
	"github.com/sampan-dev/sampan/client/informer"
)

// Mirrors are the informers of one process, one a kind. Controllers ask for
// theirs with Mirror while they are being made; then Run runs them all.
type Mirrors struct {
	transport client.Transport
	log       *slog.Logger
	mirrors   map[schema.GroupVersionResource]runner
	order     []schema.GroupVersionResource
}

type runner interface {
	Run(ctx context.Context) error
	Synced() <-chan struct{}
}

// NewMirrors makes an empty set that reads through t.
func NewMirrors(t client.Transport, log *slog.Logger) *Mirrors {
	return &Mirrors{transport: t, log: log, mirrors: map[schema.GroupVersionResource]runner{}}
}

// Mirror returns the set's informer of r, which it makes when it is asked for
// the first time. Not to be called once Run has been.
func Mirror[T client.Object](m *Mirrors, r client.Resource[T]) *informer.Informer[T] {
	if known, ok := m.mirrors[r.GroupVersionResource]; ok {
		return known.(*informer.Informer[T])
	}
	made := informer.New(m.transport, r, informer.Options{Log: m.log})
	m.mirrors[r.GroupVersionResource] = made
	m.order = append(m.order, r.GroupVersionResource)
	return made
}

// Run mirrors all kinds until ctx ends.
func (m *Mirrors) Run(ctx context.Context) error {
	var all sync.WaitGroup
	for _, r := range m.order {
		all.Go(func() { _ = m.mirrors[r].Run(ctx) }) // retries by itself; ends only with ctx
	}
	all.Wait()
	return context.Cause(ctx)
}

// Synced is what a controller that reads these kinds waits for before it
// decides. Kinds that are not mirrored are a programming error.
func (m *Mirrors) Synced(kinds ...schema.GroupVersionResource) []<-chan struct{} {
	var all []<-chan struct{}
	for _, r := range kinds {
		mirror, ok := m.mirrors[r]
		if !ok {
			panic(fmt.Sprintf("controller: %s is read but not mirrored", r))
		}
		all = append(all, mirror.Synced())
	}
	return all
}

// Names of indexes that several controllers use.
const (
	byController = "controller" // uid of the controlling owner
	byOrphan     = "orphan"     // namespace, for what has no controller
	byNode       = "node"       // spec.nodeName of a pod
	byNamespace  = "namespace"
)

// IndexOwners makes Owned and Orphans work on i.
func IndexOwners[T client.Object](i *informer.Informer[T]) {
	i.AddIndex(byController, func(obj T) []string {
		if ref := metav1.GetControllerOfNoCopy(obj); ref != nil {
			return []string{string(ref.UID)}
		}
		return nil
	})
	i.AddIndex(byOrphan, func(obj T) []string {
		if metav1.GetControllerOfNoCopy(obj) == nil {
			return []string{obj.GetNamespace()}
		}
		return nil
	})
}

// Owned returns what owner controls, in no order. See IndexOwners.
func Owned[T client.Object](i *informer.Informer[T], owner metav1.Object) []T {
	return i.ByIndex(byController, string(owner.GetUID()))
}

// Orphans returns what nobody controls in a namespace, in no order. See
// IndexOwners.
func Orphans[T client.Object](i *informer.Informer[T], namespace string) []T {
	return i.ByIndex(byOrphan, namespace)
}

// IndexNodes makes OnNode work on i.
func IndexNodes(i *informer.Informer[*corev1.Pod]) {
	i.AddIndex(byNode, func(pod *corev1.Pod) []string { return []string{pod.Spec.NodeName} })
}

// OnNode returns the pods bound to a node, or to none for "", in no order. See
// IndexNodes.
func OnNode(i *informer.Informer[*corev1.Pod], node string) []*corev1.Pod {
	return i.ByIndex(byNode, node)
}

// IndexNamespaces makes InNamespace work on i.
func IndexNamespaces[T client.Object](i *informer.Informer[T]) {
	i.AddIndex(byNamespace, func(obj T) []string { return []string{obj.GetNamespace()} })
}

// InNamespace returns the objects of a namespace that selector matches, by name.
// See IndexNamespaces.
func InNamespace[T client.Object](i *informer.Informer[T], namespace string, selector labels.Selector) []T {
	return slices.DeleteFunc(i.ByIndex(byNamespace, namespace), func(obj T) bool { return !selector.Matches(labels.Set(obj.GetLabels())) })
}
