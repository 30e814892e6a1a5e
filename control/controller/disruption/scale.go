package disruption

import (
	"context"
	"errors"
	"fmt"

	appsv1 "k8s.io/api/apps/v1"
	autoscalingv1 "k8s.io/api/autoscaling/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"

	"github.com/sampan-dev/sampan/client"
	"github.com/sampan-dev/sampan/client/informer"
	"github.com/sampan-dev/sampan/control/controller"
	"github.com/sampan-dev/sampan/internal/target"
)

// scales finds out how many pods the owners of pods want: the workloads' mirrors
// tell, and for other kinds their scale subresource.
type scales struct {
	transport   client.Transport
	kinds       *controller.Kinds
	controllers *informer.Informer[*corev1.ReplicationController]
	replicasets *informer.Informer[*appsv1.ReplicaSet]
	deployments *informer.Informer[*appsv1.Deployment]
	sets        *informer.Informer[*appsv1.StatefulSet]
}

func newScales(mirrors *controller.Mirrors, t client.Transport, kinds *controller.Kinds) *scales {
	return &scales{
		transport: t, kinds: kinds,
		controllers: controller.Mirror(mirrors, client.ReplicationControllers),
		replicasets: controller.Mirror(mirrors, client.ReplicaSets),
		deployments: controller.Mirror(mirrors, client.Deployments),
		sets:        controller.Mirror(mirrors, client.StatefulSets),
	}
}

// wanted is how many pods all owners together want.
type wanted struct {
	total int32
	// unmanaged pods have no owner to ask.
	unmanaged bool
}

// of adds up what the owners of pods want, each once.
func (s *scales) of(ctx context.Context, pods []*corev1.Pod) (wanted, error) {
	var w wanted
	asked := map[types.UID]bool{}   // owners of pods
	counted := map[types.UID]bool{} // those that have the number: a deployment for its sets
	for _, pod := range pods {
		ref := metav1.GetControllerOfNoCopy(pod)
		if ref == nil {
			w.unmanaged = true
			continue
		}
		if asked[ref.UID] {
			continue
		}
		asked[ref.UID] = true
		uid, n, err := s.ask(ctx, ref, pod.Namespace)
		if err != nil {
			return wanted{}, err
		}
		if uid == "" {
			return wanted{}, fmt.Errorf("found no controllers for pod %q", pod.Name)
		}
		if !counted[uid] {
			counted[uid] = true
			w.total += n
		}
	}
	return w, nil
}

// ask finds whose number counts for a pod's owner, and the number; "" when that
// owner is gone.
func (s *scales) ask(ctx context.Context, ref *metav1.OwnerReference, namespace string) (types.UID, int32, error) {
	gv, err := schema.ParseGroupVersion(ref.APIVersion)
	if err != nil {
		return "", 0, fmt.Errorf("read the owner's apiVersion: %w", err)
	}
	workload := gv.Group == appsv1.GroupName || gv.Group == "extensions"
	switch {
	case gv.Group == "" && ref.Kind == client.ReplicationControllers.Kind:
		if rc, ok := s.controllers.Get(namespace, ref.Name); ok && rc.UID == ref.UID {
			return rc.UID, number(rc.Spec.Replicas), nil
		}
	case workload && ref.Kind == client.ReplicaSets.Kind:
		if rs, ok := s.replicasets.Get(namespace, ref.Name); ok && rs.UID == ref.UID {
			if uid, n, ok := s.ofSet(rs); ok {
				return uid, n, nil
			}
		}
	case gv.Group == appsv1.GroupName && ref.Kind == client.StatefulSets.Kind:
		if set, ok := s.sets.Get(namespace, ref.Name); ok && set.UID == ref.UID {
			return set.UID, number(set.Spec.Replicas), nil
		}
	}
	return s.subresource(ctx, ref, gv.WithKind(ref.Kind), namespace)
}

// ofSet is a replica set's own number, or that of the deployment behind it.
func (s *scales) ofSet(rs *appsv1.ReplicaSet) (types.UID, int32, bool) {
	ref := metav1.GetControllerOfNoCopy(rs)
	if ref == nil || ref.Kind != client.Deployments.Kind {
		return rs.UID, number(rs.Spec.Replicas), true
	}
	d, ok := s.deployments.Get(rs.Namespace, ref.Name)
	if !ok || d.UID != ref.UID {
		return "", 0, false
	}
	return d.UID, number(d.Spec.Replicas), true
}

// subresource asks the server for the scale of an object of any kind.
func (s *scales) subresource(ctx context.Context, ref *metav1.OwnerReference, gvk schema.GroupVersionKind, namespace string) (types.UID, int32, error) {
	kind, ok := s.kinds.Find(gvk)
	if !ok {
		return "", 0, fmt.Errorf("no matches for kind %q in version %q", gvk.Kind, gvk.GroupVersion())
	}
	at := target.Of(kind.GroupVersionResource, namespace).Object(ref.Name)
	obj, err := s.transport.Get(ctx, at.Sub("scale"), metav1.GetOptions{})
	if apierrors.IsNotFound(err) {
		return "", 0, unscalable(at, err)
	}
	if err != nil {
		return "", 0, fmt.Errorf("get scale of %s: %w", at, err)
	}
	scale, ok := obj.(*autoscalingv1.Scale)
	if !ok {
		return "", 0, fmt.Errorf("%s does not implement the scale subresource", kind.GroupResource())
	}
	if scale.UID != ref.UID {
		return "", 0, nil
	}
	return scale.UID, scale.Spec.Replicas, nil
}

// unscalable tells an object that is gone, which is no failure, from a kind that
// has no scale: the server names the object in one answer and not in the other.
func unscalable(at target.Target, err error) error {
	var known apierrors.APIStatus
	if errors.As(err, &known) && known.Status().Details != nil && known.Status().Details.Name == at.Name {
		return nil
	}
	return fmt.Errorf("%s does not implement the scale subresource", at.Resource.GroupResource())
}

func number(n *int32) int32 {
	if n == nil {
		return 1
	}
	return *n
}
