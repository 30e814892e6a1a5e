package resource

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/util/validation/field"

	"github.com/sampan-dev/sampan/kinds"
)

var (
	podsResource     = corev1.SchemeGroupVersion.WithResource("pods")
	bindingsResource = corev1.SchemeGroupVersion.WithResource("bindings")
)

// builtInSubcreates are the posts that only change stored objects; the config's
// come on top.
func (s *Server) builtInSubcreates() map[string]Subcreate {
	all := map[string]Subcreate{
		"pods/binding":  s.bind,
		"pods/eviction": s.evict,
	}
	for name, f := range s.cfg.Subcreate {
		all[name] = f
	}
	return all
}

func (s *Server) builtInVirtuals() map[schema.GroupVersionResource]Virtual {
	all := map[schema.GroupVersionResource]Virtual{bindingsResource: s.bind}
	for gvr, f := range s.cfg.Virtual {
		all[gvr] = f
	}
	return all
}

// bind puts a pod on a node: the scheduler's one write. It serves
// pods/<name>/binding and the older bindings, where only the body has the name.
func (s *Server) bind(ctx context.Context, r *Request) (runtime.Object, error) {
	b, ok := r.Body.(*corev1.Binding)
	if !ok {
		return nil, apierrors.NewBadRequest(fmt.Sprintf("not a Binding object: %T", r.Body))
	}
	if r.Target.Name != "" && b.Name != r.Target.Name {
		return nil, apierrors.NewBadRequest("name in URL does not match name in Binding object")
	}
	if errs := checkBinding(b); len(errs) > 0 {
		return nil, apierrors.NewInvalid(corev1.SchemeGroupVersion.WithKind("Binding").GroupKind(), b.Name, errs)
	}
	c, err := s.within(r, podsResource, b.Name)
	if err != nil {
		return nil, err
	}
	c.settled = true // as assign leaves what was: see TestBoundIsSettled
	_, err = c.rewrite(ctx, func(old kinds.Object) (kinds.Object, error) {
		next := bindable(old.(*corev1.Pod))
		return next, assign(next, b, s.now())
	})
	if err != nil {
		var status apierrors.APIStatus
		if errors.As(err, &status) {
			return nil, err
		}
		gr := schema.GroupResource{Resource: "pods/binding"}
		if errors.Is(err, errOther) {
			gr.Resource, err = "pods", c.unstorable(b.Name, err.Error())
		}
		return nil, apierrors.NewConflict(gr, b.Name, err)
	}
	return success(), nil
}

func checkBinding(b *corev1.Binding) field.ErrorList {
	var errs field.ErrorList
	if kind := b.Target.Kind; kind != "" && kind != "Node" {
		errs = append(errs, field.NotSupported(field.NewPath("target", "kind"), kind, []string{"Node", "<empty>"}))
	}
	if b.Target.Name == "" {
		errs = append(errs, field.Required(field.NewPath("target", "name"), ""))
	}
	return errs
}

// bindable is a copy of a pod, as deep as assign writes: the rest is shared with the
// pod, and as read-only as that is.
func bindable(pod *corev1.Pod) *corev1.Pod {
	next := *pod
	next.Labels, next.Annotations = maps.Clone(pod.Labels), maps.Clone(pod.Annotations)
	next.Status.Conditions = slices.Clone(pod.Status.Conditions)
	return &next
}

// errOther: the pod is not the one that the binding means.
var errOther = errors.New("Precondition failed") //nolint:staticcheck // upstream's words

// assign writes the binding's word into a pod, unless the pod may not be bound.
func assign(pod *corev1.Pod, b *corev1.Binding, now metav1.Time) error {
	switch {
	case b.UID != "" && b.UID != pod.UID:
		return fmt.Errorf("%w: UID in precondition: %v, UID in object meta: %v", errOther, b.UID, pod.UID)
	case b.ResourceVersion != "" && b.ResourceVersion != pod.ResourceVersion:
		return fmt.Errorf("%w: ResourceVersion in precondition: %v, ResourceVersion in object meta: %v", errOther, b.ResourceVersion, pod.ResourceVersion)
	case pod.DeletionTimestamp != nil:
		return fmt.Errorf("pod %s is being deleted, cannot be assigned to a host", pod.Name)
	case pod.Spec.NodeName != "":
		return fmt.Errorf("pod %v is already assigned to node %q", pod.Name, pod.Spec.NodeName)
	case len(pod.Spec.SchedulingGates) != 0:
		return fmt.Errorf("pod %v has non-empty .spec.schedulingGates", pod.Name)
	}
	pod.Spec.NodeName = b.Target.Name
	pod.Status.NominatedNodeName = ""
	pod.Annotations = overlay(pod.Annotations, b.Annotations)
	pod.Labels = overlay(pod.Labels, b.Labels)
	setPodCondition(pod, corev1.PodCondition{
		Type: corev1.PodScheduled, Status: corev1.ConditionTrue, LastTransitionTime: now,
	})
	return nil
}

func overlay(base, over map[string]string) map[string]string {
	if base == nil && len(over) > 0 {
		base = map[string]string{}
	}
	for k, v := range over {
		base[k] = v
	}
	return base
}

// setPodCondition replaces the condition of c's type; its transition time stays
// when the status does.
func setPodCondition(pod *corev1.Pod, c corev1.PodCondition) {
	for i := range pod.Status.Conditions {
		have := &pod.Status.Conditions[i]
		if have.Type != c.Type {
			continue
		}
		if have.Status == c.Status {
			c.LastTransitionTime = have.LastTransitionTime
		}
		c.ObservedGeneration = max(c.ObservedGeneration, have.ObservedGeneration)
		*have = c
		return
	}
	pod.Status.Conditions = append(pod.Status.Conditions, c)
}
