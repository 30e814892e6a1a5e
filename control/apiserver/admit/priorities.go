package admit

import (
	"context"
	"fmt"
	"slices"

	corev1 "k8s.io/api/core/v1"
	schedulingv1 "k8s.io/api/scheduling/v1"
	schedulingv1beta1 "k8s.io/api/scheduling/v1beta1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/runtime"

	"github.com/sampan-dev/sampan/control/apiserver/resource"
)

// lifelines are the classes of what a cluster needs to live.
var lifelines = []string{"system-node-critical", "system-cluster-critical"}

// priorities turns the name of a priority class into the number that the
// scheduler compares, once and for all: a class that changes later changes no
// pod.
type priorities struct {
	objects Reader
}

func (r priorities) Admit(ctx context.Context, a *resource.Attributes) error {
	if pod, ok := newPod(a); ok {
		return r.resolve(ctx, pod)
	}
	if pods, ok := newPodGroup(a); ok {
		return r.resolveGroup(ctx, pods)
	}
	if a.Operation != resource.OpUpdate || a.Target.Subresource != "" || !is(a, "", "pods") {
		return nil
	}
	pod, ok1 := a.Object.(*corev1.Pod)
	old, ok2 := a.Old.(*corev1.Pod)
	if !ok1 || !ok2 {
		return nil
	}
	if pod.Spec.Priority == nil {
		pod.Spec.Priority = old.Spec.Priority
	}
	if pod.Spec.PreemptionPolicy == nil {
		pod.Spec.PreemptionPolicy = old.Spec.PreemptionPolicy
	}
	return nil
}

func (r priorities) resolve(ctx context.Context, pod *corev1.Pod) error {
	class, err := r.class(ctx, pod.Spec.PriorityClassName)
	if err != nil {
		return err
	}
	pod.Spec.PriorityClassName = class.Name
	if p := pod.Spec.Priority; p != nil && *p != class.Value {
		return fmt.Errorf("the integer value of priority (%d) must not be provided in pod spec; priority admission controller computed %d from the given PriorityClass name", *p, class.Value)
	}
	pod.Spec.Priority = &class.Value
	if class.PreemptionPolicy == nil {
		return nil
	}
	if p := pod.Spec.PreemptionPolicy; p != nil && *p != *class.PreemptionPolicy {
		return fmt.Errorf("the string value of PreemptionPolicy (%s) must not be provided in pod spec; priority admission controller computed %s from the given PriorityClass name", *p, *class.PreemptionPolicy)
	}
	policy := *class.PreemptionPolicy
	pod.Spec.PreemptionPolicy = &policy
	return nil
}

// newPodGroup is the group that is being created, if one is.
func newPodGroup(a *resource.Attributes) (*schedulingv1beta1.PodGroup, bool) {
	if a.Operation != resource.OpCreate || a.Target.Subresource != "" || !is(a, schedulingv1beta1.GroupName, "podgroups") {
		return nil, false
	}
	g, ok := a.Object.(*schedulingv1beta1.PodGroup)
	return g, ok
}

// resolveGroup is resolve for a group of pods, whose pods have to have its priority.
func (r priorities) resolveGroup(ctx context.Context, g *schedulingv1beta1.PodGroup) error {
	class, err := r.class(ctx, g.Spec.PriorityClassName)
	if err != nil {
		return err
	}
	if p := g.Spec.Priority; p != nil && *p != class.Value {
		return fmt.Errorf("priority set in the pod group (%d) must match the priority computed (%d) based on the priority class set in the spec", *p, class.Value)
	}
	g.Spec.Priority, g.Spec.PriorityClassName = &class.Value, class.Name
	return nil
}

// class gives a copy of the named class, or the default one for "". Without a
// default, everything has priority zero and may preempt.
func (r priorities) class(ctx context.Context, name string) (*schedulingv1.PriorityClass, error) {
	all := group(schedulingv1.SchemeGroupVersion, "priorityclasses", "")
	if name != "" {
		obj, err := cached(ctx, r.objects, all.Object(name))
		if apierrors.IsNotFound(err) {
			return nil, fmt.Errorf("no PriorityClass with name %v was found", name)
		}
		if err != nil {
			return nil, refuse("failed to get default priority class %s: %w", name, err)
		}
		return copyOf(obj), nil
	}
	chosen, err := r.byDefault(ctx)
	if err != nil {
		return nil, err
	}
	if chosen == nil {
		policy := corev1.PreemptLowerPriority
		return &schedulingv1.PriorityClass{PreemptionPolicy: &policy}, nil
	}
	return copyOf(chosen), nil
}

// byDefault is the default class, shared; nil if there is none. Several can only be
// there by a race: the least wins.
func (r priorities) byDefault(ctx context.Context) (*schedulingv1.PriorityClass, error) {
	classes, err := listed[*schedulingv1.PriorityClass](ctx, r.objects, group(schedulingv1.SchemeGroupVersion, "priorityclasses", ""))
	if err != nil {
		return nil, refuse("failed to get default priority class: %w", err)
	}
	var chosen *schedulingv1.PriorityClass
	for _, c := range classes {
		if c.GlobalDefault && (chosen == nil || c.Value < chosen.Value) {
			chosen = c
		}
	}
	return chosen, nil
}

func copyOf(obj runtime.Object) *schedulingv1.PriorityClass {
	class, ok := obj.(*schedulingv1.PriorityClass)
	if !ok {
		return &schedulingv1.PriorityClass{}
	}
	return class.DeepCopy()
}

// Validate keeps a second default class out, and the two classes that keep a cluster
// alive in.
func (r priorities) Validate(ctx context.Context, a *resource.Attributes) error {
	if a.Operation == resource.OpDelete && is(a, schedulingv1.GroupName, "priorityclasses") && slices.Contains(lifelines, a.Target.Name) {
		return fmt.Errorf("this is a system priority class and cannot be deleted")
	}
	class, ok := a.Object.(*schedulingv1.PriorityClass)
	if !ok || !class.GlobalDefault || a.Target.Subresource != "" {
		return nil
	}
	have, err := r.byDefault(ctx)
	if err == nil && have != nil && have.Name != class.Name {
		err = fmt.Errorf("PriorityClass %v is already marked as default. Only one default can exist", have.Name)
	}
	return err
}
