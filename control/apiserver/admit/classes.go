package admit

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	nodev1 "k8s.io/api/node/v1"
	storagev1 "k8s.io/api/storage/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/sampan-dev/sampan/control/apiserver/resource"
)

// The annotations by which a class is the default one.
const (
	defaultStorageClass     = "storageclass.kubernetes.io/is-default-class"
	defaultStorageClassBeta = "storageclass.beta.kubernetes.io/is-default-class"
)

// storageClasses gives a claim without a class the default one.
type storageClasses struct {
	Changing
	objects Reader
}

func (r storageClasses) Admit(ctx context.Context, a *resource.Attributes) error {
	claim, ok := a.Object.(*corev1.PersistentVolumeClaim)
	if !ok || a.Operation != resource.OpCreate || a.Target.Subresource != "" {
		return nil
	}
	if _, beta := claim.Annotations[corev1.BetaStorageClassAnnotation]; beta || claim.Spec.StorageClassName != nil {
		return nil
	}
	classes, err := listed[*storagev1.StorageClass](ctx, r.objects, group(storagev1.SchemeGroupVersion, "storageclasses", ""))
	if err != nil {
		return err
	}
	classes = slices.DeleteFunc(classes, func(c *storagev1.StorageClass) bool {
		return c.Annotations[defaultStorageClass] != "true" && c.Annotations[defaultStorageClassBeta] != "true"
	})
	if len(classes) == 0 {
		return nil
	}
	newest := slices.MinFunc(classes, func(a, b *storagev1.StorageClass) int { return newestFirst(a, b) })
	name := newest.Name
	claim.Spec.StorageClassName = &name
	return nil
}

// newestFirst orders by age, the youngest first, then by name.
func newestFirst(a, b metav1.Object) int {
	if c := b.GetCreationTimestamp().Compare(a.GetCreationTimestamp().Time); c != 0 {
		return c
	}
	return strings.Compare(a.GetName(), b.GetName())
}

// ingressClasses gives an ingress without a class the default one.
type ingressClasses struct {
	Changing
	objects Reader
}

func (r ingressClasses) Admit(ctx context.Context, a *resource.Attributes) error {
	ingress, ok := a.Object.(*networkingv1.Ingress)
	if !ok || a.Operation != resource.OpCreate || a.Target.Subresource != "" || ingress.Spec.IngressClassName != nil {
		return nil
	}
	if _, old := ingress.Annotations["kubernetes.io/ingress.class"]; old {
		return nil
	}
	classes, err := listed[*networkingv1.IngressClass](ctx, r.objects, group(networkingv1.SchemeGroupVersion, "ingressclasses", ""))
	if err != nil {
		return err
	}
	classes = slices.DeleteFunc(classes, func(c *networkingv1.IngressClass) bool {
		return c.Annotations[networkingv1.AnnotationIsDefaultIngressClass] != "true"
	})
	if len(classes) == 0 {
		return nil
	}
	name := slices.MinFunc(classes, func(a, b *networkingv1.IngressClass) int { return newestFirst(a, b) }).Name
	ingress.Spec.IngressClassName = &name
	return nil
}

// runtimeClasses adds to a pod what its runtime class costs and where it runs.
type runtimeClasses struct{ objects Reader }

func (r runtimeClasses) Admit(ctx context.Context, a *resource.Attributes) error {
	pod, class, err := r.of(ctx, a)
	if class == nil || err != nil {
		return err
	}
	if class.Overhead != nil {
		if pod.Spec.Overhead != nil && !equality.Semantic.DeepEqual(class.Overhead.PodFixed, pod.Spec.Overhead) {
			return errors.New("pod rejected: Pod's Overhead doesn't match RuntimeClass's defined Overhead")
		}
		pod.Spec.Overhead = class.Overhead.PodFixed.DeepCopy()
	}
	if class.Scheduling == nil {
		return nil
	}
	for key, value := range class.Scheduling.NodeSelector {
		if have, ok := pod.Spec.NodeSelector[key]; ok && have != value {
			return fmt.Errorf("conflict: runtimeClass.scheduling.nodeSelector[%s] = %s; pod.spec.nodeSelector[%s] = %s", key, value, key, have)
		}
		if pod.Spec.NodeSelector == nil {
			pod.Spec.NodeSelector = map[string]string{}
		}
		pod.Spec.NodeSelector[key] = value
	}
	pod.Spec.Tolerations = mergeTolerations(pod.Spec.Tolerations, class.Scheduling.Tolerations)
	return nil
}

// mergeTolerations joins two lists and leaves out what another toleration covers.
func mergeTolerations(first, second []corev1.Toleration) []corev1.Toleration {
	all := slices.Concat(first, second)
	var merged []corev1.Toleration
	for i, t := range all {
		covered := func(by corev1.Toleration) bool { return covers(by, t) }
		later := func(by corev1.Toleration) bool { return !equality.Semantic.DeepEqual(by, t) && covers(by, t) }
		if !slices.ContainsFunc(merged, covered) && !slices.ContainsFunc(all[i+1:], later) {
			merged = append(merged, t)
		}
	}
	return merged
}

// covers says whether all that t tolerates by does, too.
func covers(by, t corev1.Toleration) bool {
	switch {
	case equality.Semantic.DeepEqual(by, t):
		return true
	case t.Key != by.Key && (by.Key != "" || by.Operator != corev1.TolerationOpExists):
		return false
	case t.Effect != by.Effect && by.Effect != "":
		return false
	case by.Effect == corev1.TaintEffectNoExecute && by.TolerationSeconds != nil &&
		(t.TolerationSeconds == nil || *t.TolerationSeconds > *by.TolerationSeconds):
		return false
	case by.Operator == corev1.TolerationOpExists:
		return true
	}
	return (by.Operator == corev1.TolerationOpEqual || by.Operator == "") && t.Operator == corev1.TolerationOpEqual && t.Value == by.Value
}

func (r runtimeClasses) Validate(ctx context.Context, a *resource.Attributes) error {
	pod, class, err := r.of(ctx, a)
	if err != nil || pod == nil {
		return err
	}
	switch has := class != nil && class.Overhead != nil; {
	case !has && pod.Spec.Overhead != nil:
		return errors.New("pod rejected: Pod Overhead set without corresponding RuntimeClass defined Overhead")
	case has && !equality.Semantic.DeepEqual(class.Overhead.PodFixed, pod.Spec.Overhead):
		return errors.New("pod rejected: Pod's Overhead doesn't match RuntimeClass's defined Overhead")
	}
	return nil
}

func (r runtimeClasses) of(ctx context.Context, a *resource.Attributes) (*corev1.Pod, *nodev1.RuntimeClass, error) {
	pod, ok := newPod(a)
	if !ok || pod.Spec.RuntimeClassName == nil {
		return pod, nil, nil
	}
	name := *pod.Spec.RuntimeClassName
	obj, err := cached(ctx, r.objects, group(nodev1.SchemeGroupVersion, "runtimeclasses", "").Object(name))
	if apierrors.IsNotFound(err) {
		return nil, nil, fmt.Errorf("pod rejected: RuntimeClass %q not found", name)
	}
	if err != nil {
		return nil, nil, err
	}
	class, _ := obj.(*nodev1.RuntimeClass)
	return pod, class, nil
}
