package admit

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	quantity "k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	utilerrors "k8s.io/apimachinery/pkg/util/errors"
	helpers "k8s.io/component-helpers/resource"

	"github.com/sampan-dev/sampan/control/apiserver/resource"
)

// limitedAnnotation tells people which values are not their own.
const limitedAnnotation = "kubernetes.io/limit-ranger"

// limits applies a namespace's LimitRanges: defaults for containers that ask for
// nothing, bounds for all.
type limits struct{ objects Reader }

func (r limits) Admit(ctx context.Context, a *resource.Attributes) error {
	pod, ok := limited(a)
	if !ok {
		return nil
	}
	ranges, err := r.of(ctx, a)
	if err != nil {
		return err
	}
	var notes []string
	for _, lr := range ranges {
		for _, item := range lr.Spec.Limits {
			if item.Type != corev1.LimitTypeContainer {
				continue
			}
			for i := range pod.Spec.Containers {
				notes = append(notes, fill(&pod.Spec.Containers[i], &item, "container")...)
			}
			for i := range pod.Spec.InitContainers {
				notes = append(notes, fill(&pod.Spec.InitContainers[i], &item, "init container")...)
			}
		}
	}
	if len(notes) > 0 {
		if pod.Annotations == nil {
			pod.Annotations = map[string]string{}
		}
		pod.Annotations[limitedAnnotation] = "LimitRanger plugin set: " + strings.Join(notes, "; ")
	}
	return nil
}

// limited is the pod that a request creates or resizes. What is being deleted is
// left alone.
func limited(a *resource.Attributes) (*corev1.Pod, bool) {
	if pod, ok := newPod(a); ok {
		return pod, true
	}
	pod, ok := a.Object.(*corev1.Pod)
	return pod, ok && a.Operation == resource.OpUpdate && a.Target.Subresource == "resize" && !leaving(a)
}

// leaving says that the object of an update is being deleted.
func leaving(a *resource.Attributes) bool {
	old, ok := a.Old.(metav1.Object)
	return ok && old.GetDeletionTimestamp() != nil
}

func (r limits) of(ctx context.Context, a *resource.Attributes) ([]*corev1.LimitRange, error) {
	ranges, err := listed[*corev1.LimitRange](ctx, r.objects, core("limitranges", a.Target.Namespace, ""))
	if err != nil {
		return nil, refuse("unable to %s %v at this time because there was an error enforcing limit ranges: %w", a.Operation, a.Target.Resource, err)
	}
	return ranges, nil
}

// fill gives the container the range's defaults where it has none of its own.
func fill(c *corev1.Container, item *corev1.LimitRangeItem, what string) (notes []string) {
	set := func(have *corev1.ResourceList, defaults corev1.ResourceList, kind string) {
		var names []string
		for name, q := range defaults {
			if _, ok := (*have)[name]; ok {
				continue
			}
			if *have == nil {
				*have = corev1.ResourceList{}
			}
			(*have)[name] = q.DeepCopy()
			names = append(names, string(name))
		}
		if len(names) > 0 {
			slices.Sort(names)
			notes = append(notes, fmt.Sprintf("%s %s for %s %s", strings.Join(names, ", "), kind, what, c.Name))
		}
	}
	set(&c.Resources.Requests, item.DefaultRequest, "request")
	set(&c.Resources.Limits, item.Default, "limit")
	return notes
}

func (r limits) Validate(ctx context.Context, a *resource.Attributes) error {
	var check func(item *corev1.LimitRangeItem) []error
	switch o := a.Object.(type) {
	case *corev1.Pod:
		if _, ok := limited(a); !ok {
			return nil
		}
		check = func(item *corev1.LimitRangeItem) []error { return boundPod(o, item) }
	case *corev1.PersistentVolumeClaim:
		if a.Target.Subresource != "" || a.Operation == resource.OpDelete || leaving(a) {
			return nil
		}
		check = func(item *corev1.LimitRangeItem) []error { return boundClaim(o, item) }
	default:
		return nil
	}
	ranges, err := r.of(ctx, a)
	if err != nil {
		return err
	}
	for _, lr := range ranges {
		var errs []error
		for i := range lr.Spec.Limits {
			errs = append(errs, check(&lr.Spec.Limits[i])...)
		}
		if len(errs) > 0 {
			return errors.New(utilerrors.NewAggregate(errs).Error())
		}
	}
	return nil
}

func boundPod(pod *corev1.Pod, item *corev1.LimitRangeItem) (errs []error) {
	switch item.Type {
	case corev1.LimitTypeContainer:
		for _, c := range slices.Concat(pod.Spec.Containers, pod.Spec.InitContainers) {
			errs = append(errs, bound(item, c.Resources.Requests, c.Resources.Limits)...)
		}
	case corev1.LimitTypePod:
		opts := helpers.PodResourcesOptions{ExcludeOverhead: true}
		errs = bound(item, helpers.PodRequests(pod, opts), helpers.PodLimits(pod, opts))
	}
	return errs
}

func boundClaim(claim *corev1.PersistentVolumeClaim, item *corev1.LimitRangeItem) (errs []error) {
	if item.Type != corev1.LimitTypePersistentVolumeClaim {
		return nil
	}
	asked := claim.Spec.Resources.Requests
	for _, name := range ordered(item.Min) {
		errs = append(errs, atLeast(item, name, asked, nil))
	}
	for _, name := range ordered(item.Max) {
		most, got := item.Max[name], asked[name]
		if _, ok := asked[name]; !ok {
			errs = append(errs, fmt.Errorf("maximum %s usage per %s is %s.  No request is specified", name, item.Type, most.String()))
		} else if got.Cmp(most) > 0 {
			errs = append(errs, fmt.Errorf("maximum %s usage per %s is %s, but request is %s", name, item.Type, most.String(), got.String()))
		}
	}
	return slices.DeleteFunc(errs, func(err error) bool { return err == nil })
}

func bound(item *corev1.LimitRangeItem, requests, limits corev1.ResourceList) (errs []error) {
	for _, name := range ordered(item.Min) {
		errs = append(errs, atLeast(item, name, requests, limits))
	}
	for _, name := range ordered(item.Max) {
		errs = append(errs, atMost(item, name, requests, limits))
	}
	for _, name := range ordered(item.MaxLimitRequestRatio) {
		errs = append(errs, inRatio(item, name, requests, limits))
	}
	return slices.DeleteFunc(errs, func(err error) bool { return err == nil })
}

// ordered makes messages the same each time.
func ordered(list corev1.ResourceList) []corev1.ResourceName {
	names := make([]corev1.ResourceName, 0, len(list))
	for name := range list {
		names = append(names, name)
	}
	slices.Sort(names)
	return names
}

func atLeast(item *corev1.LimitRangeItem, name corev1.ResourceName, requests, limits corev1.ResourceList) error {
	least := item.Min[name]
	request, asked := requests[name]
	limit, limited := limits[name]
	switch {
	case !asked:
		return fmt.Errorf("minimum %s usage per %s is %s.  No request is specified", name, item.Type, least.String())
	case request.Cmp(least) < 0:
		return fmt.Errorf("minimum %s usage per %s is %s, but request is %s", name, item.Type, least.String(), request.String())
	case limited && limit.Cmp(least) < 0:
		return fmt.Errorf("minimum %s usage per %s is %s, but limit is %s", name, item.Type, least.String(), limit.String())
	}
	return nil
}

func atMost(item *corev1.LimitRangeItem, name corev1.ResourceName, requests, limits corev1.ResourceList) error {
	most := item.Max[name]
	request, asked := requests[name]
	limit, limited := limits[name]
	switch {
	case !limited:
		return fmt.Errorf("maximum %s usage per %s is %s.  No limit is specified", name, item.Type, most.String())
	case limit.Cmp(most) > 0:
		return fmt.Errorf("maximum %s usage per %s is %s, but limit is %s", name, item.Type, most.String(), limit.String())
	case asked && request.Cmp(most) > 0:
		return fmt.Errorf("maximum %s usage per %s is %s, but request is %s", name, item.Type, most.String(), request.String())
	}
	return nil
}

func inRatio(item *corev1.LimitRangeItem, name corev1.ResourceName, requests, limits corev1.ResourceList) error {
	most := item.MaxLimitRequestRatio[name]
	request, limit := requests[name], limits[name]
	if request.IsZero() {
		return fmt.Errorf("%s max limit to request ratio per %s is %s, but no request is specified or request is 0", name, item.Type, most.String())
	}
	if limit.IsZero() {
		return fmt.Errorf("%s max limit to request ratio per %s is %s, but no limit is specified or limit is 0", name, item.Type, most.String())
	}
	ratio := amount(limit) / amount(request)
	if ratio > amount(most) {
		return fmt.Errorf("%s max limit to request ratio per %s is %s, but provided ratio is %f", name, item.Type, most.String(), ratio)
	}
	return nil
}

func amount(q quantity.Quantity) float64 { return q.AsApproximateFloat64() }
