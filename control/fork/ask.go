package fork

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	corev1 "k8s.io/api/core/v1"
	policyv1 "k8s.io/api/policy/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"

	"github.com/sampan-dev/sampan/client"
	"github.com/sampan-dev/sampan/client/explain"
	"github.com/sampan-dev/sampan/internal/scheme"
	"github.com/sampan-dev/sampan/internal/target"
	"github.com/sampan-dev/sampan/kinds"
)

// maxEvictions bounds the rounds in which refused evictions are tried again.
const maxEvictions = 100

// Apply makes each object on the fork, or brings it to what is given where it
// exists, and forecasts what comes of it. namespace is that of objects which name
// none.
func (f *Fork) Apply(ctx context.Context, namespace string, objects []*unstructured.Unstructured) (*explain.Forecast, error) {
	start := time.Now()
	out := &explain.Forecast{}
	f.Settle(ctx) // what is under way in the live cluster is not the objects' doing
	for _, obj := range objects {
		if err := f.apply(ctx, namespace, obj); err != nil {
			out.Refused = append(out.Refused, explain.Loss{Namespace: obj.GetNamespace(), Name: obj.GetKind() + "/" + obj.GetName(), Reason: err.Error()})
		}
	}
	f.touch()
	out.Settled = f.Settle(ctx)
	return out, f.tell(ctx, out, start)
}

func (f *Fork) apply(ctx context.Context, namespace string, obj *unstructured.Unstructured) error {
	at := slices.IndexFunc(f.cfg.Kinds, func(k *kinds.Kind) bool { return k.GVK == obj.GroupVersionKind() })
	if at < 0 {
		return fmt.Errorf("no kind %s: a fork has no kinds made of definitions", obj.GroupVersionKind())
	}
	kind := f.cfg.Kinds[at]
	if kind.Namespaced && obj.GetNamespace() == "" {
		obj.SetNamespace(namespace)
	}
	typed, err := scheme.Scheme().New(kind.GVK)
	if err != nil {
		return err
	}
	if err := runtime.DefaultUnstructuredConverter.FromUnstructuredWithValidation(obj.Object, typed, true); err != nil {
		return err
	}
	own, ok := typed.(client.Object)
	if !ok {
		return fmt.Errorf("%T is no object of the API", typed)
	}
	where := target.Of(kind.GVR(), own.GetNamespace())
	_, err = f.admin.Create(ctx, where, own, metav1.CreateOptions{FieldValidation: metav1.FieldValidationStrict})
	if !apierrors.IsAlreadyExists(err) {
		return err
	}
	have, err := f.admin.Get(ctx, where.Object(own.GetName()), metav1.GetOptions{})
	if err != nil {
		return err
	}
	if m, ok := have.(metav1.Object); ok {
		own.SetResourceVersion(m.GetResourceVersion())
	}
	_, err = f.admin.Update(ctx, where.Object(own.GetName()), own, metav1.UpdateOptions{})
	return err
}

// Drain cordons a node of the fork and evicts what kubectl drain would, trying
// again for as long as that leads anywhere, and forecasts what comes of it.
func (f *Fork) Drain(ctx context.Context, node string) (*explain.Forecast, error) {
	start := time.Now()
	out := &explain.Forecast{}
	f.Settle(ctx)
	if err := f.cordon(ctx, node); err != nil {
		return nil, err
	}
	for range maxEvictions {
		out.Blocked, out.Kept = nil, nil
		evicted, err := f.evictAll(ctx, node, out)
		if err != nil {
			return nil, err
		}
		if evicted > 0 {
			f.touch()
		}
		out.Settled = f.Settle(ctx)
		if evicted == 0 || ctx.Err() != nil {
			break
		}
	}
	return out, f.tell(ctx, out, start)
}

func (f *Fork) cordon(ctx context.Context, name string) error {
	for {
		n, err := client.Nodes.Get(ctx, f.admin, "", name)
		if err != nil {
			return err
		}
		n = n.DeepCopy()
		n.Spec.Unschedulable = true
		if _, err = client.Nodes.Update(ctx, f.admin, n); !apierrors.IsConflict(err) {
			return err
		}
	}
}

// evictAll asks once for the eviction of each pod of a node.
func (f *Fork) evictAll(ctx context.Context, node string, out *explain.Forecast) (evicted int, err error) {
	pods, _, err := client.Pods.List(ctx, f.admin, "", metav1.ListOptions{FieldSelector: "spec.nodeName=" + node})
	if err != nil {
		return 0, err
	}
	for _, p := range pods {
		loss := explain.Loss{Namespace: p.Namespace, Name: p.Name, Node: node}
		if loss.Reason = stays(p); loss.Reason != "" {
			out.Kept = append(out.Kept, loss)
			continue
		}
		if p.DeletionTimestamp != nil {
			continue
		}
		e := &policyv1.Eviction{ObjectMeta: metav1.ObjectMeta{Namespace: p.Namespace, Name: p.Name}}
		at := target.Target{Resource: client.Pods.GroupVersionResource, Namespace: p.Namespace, Name: p.Name, Subresource: "eviction"}
		_, err := f.admin.Create(ctx, at, e, metav1.CreateOptions{})
		switch {
		case err == nil:
			evicted++
		case apierrors.IsNotFound(err):
		default:
			loss.Reason = because(err)
			out.Blocked = append(out.Blocked, loss)
		}
	}
	return evicted, nil
}

// because is an error's message and what is said beside it: a budget's name.
func because(err error) string {
	var status apierrors.APIStatus
	if !errors.As(err, &status) || status.Status().Details == nil {
		return err.Error()
	}
	text := status.Status().Message
	for _, c := range status.Status().Details.Causes {
		if c.Message != "" {
			text += " " + c.Message
		}
	}
	return text
}

// stays says why kubectl drain leaves a pod alone; "" means that it does not.
func stays(p *corev1.Pod) string {
	if _, mirror := p.Annotations[corev1.MirrorPodAnnotationKey]; mirror {
		return "it is a static pod of the node"
	}
	ref := metav1.GetControllerOf(p)
	if ref != nil && ref.Kind == "DaemonSet" && p.Status.Phase != corev1.PodSucceeded && p.Status.Phase != corev1.PodFailed {
		return "DaemonSet " + ref.Name + " puts one on every node (--ignore-daemonsets)"
	}
	return ""
}
