package hollow

import (
	"context"
	"slices"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/watch"

	"github.com/sampan-dev/sampan/client"
	"github.com/sampan-dev/sampan/internal/target"
)

// emptied is a node's connection that hides from the agent what a hollow node
// can't do: volumes, probes, hooks, init containers. What the agent writes is not
// touched.
type emptied struct {
	client.Transport
	// alike is what pods have in common.
	alike *templates
	// joined is called whenever a lease was written: the node is there, and beats.
	joined func()
}

// Watch implements client.Transport.
func (t emptied) Watch(ctx context.Context, at target.Target, opts metav1.ListOptions) (watch.Interface, error) {
	w, err := t.Transport.Watch(ctx, at, opts)
	if err != nil || at.Resource != client.Pods.GroupVersionResource {
		return w, err
	}
	return watch.Filter(w, func(e watch.Event) (watch.Event, bool) {
		e.Object = t.empty(e.Object)
		return e, true
	}), nil
}

// List implements client.Transport.
func (t emptied) List(ctx context.Context, at target.Target, opts metav1.ListOptions) (runtime.Object, error) {
	list, err := t.Transport.List(ctx, at, opts)
	if pods, ok := list.(*corev1.PodList); ok {
		kept := &corev1.PodList{TypeMeta: pods.TypeMeta, ListMeta: pods.ListMeta}
		for i := range pods.Items {
			kept.Items = append(kept.Items, *t.empty(&pods.Items[i]).(*corev1.Pod)) //nolint:forcetypeassert // a pod stays one
		}
		return kept, err
	}
	return list, err
}

// Get implements client.Transport.
func (t emptied) Get(ctx context.Context, at target.Target, opts metav1.GetOptions) (runtime.Object, error) {
	obj, err := t.Transport.Get(ctx, at, opts)
	return t.empty(obj), err
}

// What writes answer is read by the agent, too.

// Update implements client.Transport.
func (t emptied) Update(ctx context.Context, at target.Target, obj runtime.Object, opts metav1.UpdateOptions) (runtime.Object, error) {
	made, err := t.Transport.Update(ctx, at, obj, opts)
	if err == nil && at.Resource == client.Leases.GroupVersionResource {
		t.joined()
	}
	return t.empty(made), err
}

// Patch implements client.Transport.
func (t emptied) Patch(ctx context.Context, at target.Target, pt types.PatchType, data []byte, opts metav1.PatchOptions) (runtime.Object, error) {
	made, err := t.Transport.Patch(ctx, at, pt, data, opts)
	return t.empty(made), err
}

// empty is a pod without what a hollow node can't do; others stay as they are.
func (t emptied) empty(obj runtime.Object) runtime.Object {
	pod, ok := obj.(*corev1.Pod)
	if !ok || pod == nil {
		return obj
	}
	own := *pod // what is not changed stays shared: it is read-only
	pod = &own
	pod.ManagedFields = nil
	pod.Spec.Volumes, pod.Spec.InitContainers = nil, nil
	pod.Spec.Containers = slices.Clone(pod.Spec.Containers)
	for i := range pod.Spec.Containers {
		c := &pod.Spec.Containers[i]
		c.VolumeMounts, c.VolumeDevices, c.Lifecycle = nil, nil, nil
		c.LivenessProbe, c.ReadinessProbe, c.StartupProbe = nil, nil, nil
		c.Env, c.EnvFrom = nil, nil
	}
	t.alike.share(pod)
	return pod
}
