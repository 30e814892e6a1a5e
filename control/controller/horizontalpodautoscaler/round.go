package horizontalpodautoscaler

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"time"

	autoscalingv1 "k8s.io/api/autoscaling/v1"
	autoscalingv2 "k8s.io/api/autoscaling/v2"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/runtime/schema"

	"github.com/sampan-dev/sampan/control/controller"
	"github.com/sampan-dev/sampan/control/controller/measure"
	"github.com/sampan-dev/sampan/internal/target"
	"github.com/sampan-dev/sampan/reconcile"
)

// round is one look at an autoscaler. h is its own copy, whose status it changes.
type round struct {
	c   *Controller
	key reconcile.Key
	had *hpa
	h   *hpa
	now time.Time
	mem *memory
	// current and wanted are how many replicas there are, and what they were set to;
	// blame is set if the autoscaler itself is wrong.
	current, wanted int32
	blame           string
}

// run is turn, counted.
func (r *round) run(ctx context.Context) error {
	began := time.Now()
	err := r.turn(ctx)
	blame := measure.NoError
	if err != nil {
		blame = cmp.Or(r.blame, measure.InternalError)
	}
	measure.From(ctx).ReplicasWanted(r.key.Namespace, r.key.Name, r.h.Status.DesiredReplicas)
	measure.From(ctx).Autoscaled(measure.Scaling{Current: r.current, Wanted: r.wanted, Blame: blame, Began: began})
	return err
}

// turn measures, decides, scales and tells.
func (r *round) turn(ctx context.Context) error {
	scale, at, err := r.scale(ctx)
	if err != nil {
		r.warn("FailedGetScale", err)
		r.set(autoscalingv2.AbleToScale, corev1.ConditionFalse, "FailedGetScale", fmt.Sprintf("the HPA controller was unable to get the target's current scale: %v", err))
		return r.save(ctx, err)
	}
	r.set(autoscalingv2.AbleToScale, corev1.ConditionTrue, "SucceededGetScale", "the HPA controller was able to get the target's current scale")
	current := scale.Spec.Replicas
	r.current, r.wanted = current, current
	r.mem.begin(current, r.now)

	least := least(r.h)
	d := first(r.h, current, least)
	if d.disabled {
		r.set(autoscalingv2.ScalingActive, corev1.ConditionFalse, "ScalingDisabled", "scaling is disabled since the replica count of the target is zero")
	}
	var statuses []autoscalingv2.MetricStatus
	var incomplete error
	if d.measure {
		best, all, err := r.measure(ctx, scale)
		statuses, incomplete = all, err
		if best == nil {
			r.status(current, r.h.Status.DesiredReplicas, statuses)
			_ = r.save(ctx, nil) // the measurement's failure is the one to tell
			r.warn("FailedComputeMetricsReplicas", err)
			return fmt.Errorf("failed to compute desired number of replicas based on listed metrics: %w", err)
		}
		d = r.settle(current, least, best)
	}
	if d.desired == current {
		r.status(current, current, statuses)
		return r.save(ctx, incomplete)
	}
	if err := r.rescale(ctx, at, scale, d); err != nil {
		r.c.events.Eventf(r.h, corev1.EventTypeWarning, "FailedRescale", "New size: %d; reason: %s; error: %v", d.desired, d.reason, err)
		r.set(autoscalingv2.AbleToScale, corev1.ConditionFalse, "FailedUpdateScale", fmt.Sprintf("the HPA controller was unable to update the target scale: %v", err))
		r.status(current, r.h.Status.DesiredReplicas, statuses)
		return r.save(ctx, fmt.Errorf("failed to rescale: %w", err))
	}
	r.wanted = d.desired
	if !r.stops(current, d) {
		r.set(autoscalingv2.ScaledToZero, corev1.ConditionFalse, "NotScaledToZero", "the HPA controller did not scale the workload to zero")
	}
	r.set(autoscalingv2.AbleToScale, corev1.ConditionTrue, "SucceededRescale", fmt.Sprintf("the HPA controller was able to update the target scale to %d", d.desired))
	r.c.events.Eventf(r.h, corev1.EventTypeNormal, "SuccessfulRescale", "New size: %d; reason: %s", d.desired, d.reason)
	if r.h.Spec.Behavior != nil {
		r.mem.scaled(current, d.desired, r.now)
	}
	r.status(current, d.desired, statuses)
	last := metav1.NewTime(r.now)
	r.h.Status.LastScaleTime = &last
	return r.save(ctx, incomplete)
}

// save writes the status; cause is told when nothing worse happens.
func (r *round) save(ctx context.Context, cause error) error {
	made, err := r.c.write(ctx, r.had, r.h)
	if err != nil {
		return err
	}
	r.had = made
	return cause
}

// stops says whether a decision stops a workload that may be woken again.
func (r *round) stops(current int32, d decision) bool {
	return current > 0 && d.desired == 0 && least(r.h) == 0 && elsewhere(r.h)
}

// settle makes of what the metrics ask for what is allowed now.
func (r *round) settle(current, least int32, best *proposal) decision {
	d := decision{desired: max(best.replicas, 0)}
	metric := ""
	if best.replicas > 0 {
		metric = best.metric
	}
	switch {
	case d.desired > current:
		d.reason = metric + " above target"
	case d.desired < current:
		d.reason = "All metrics below target"
	}
	n := normalize(r.h, r.mem, request{current: current, desired: d.desired, least: least, most: r.h.Spec.MaxReplicas}, r.now)
	r.set(autoscalingv2.AbleToScale, corev1.ConditionTrue, n.stable.reason, n.stable.message)
	limited := corev1.ConditionFalse
	if n.limited {
		limited = corev1.ConditionTrue
	}
	r.set(autoscalingv2.ScalingLimited, limited, n.limit.reason, n.limit.message)
	d.desired = n.desired
	if current == 0 && least != 0 && scaledToZero(r.h) && d.desired < least {
		d.desired = least
		if d.reason == "" {
			d.reason = belowLeast
		}
	}
	return d
}

// rescale sets the number. That it was this controller who went to zero is
// written down first: at zero, nothing else would tell, and a workload that a
// person stopped must stay stopped.
func (r *round) rescale(ctx context.Context, at target.Target, scale *autoscalingv1.Scale, d decision) error {
	if r.stops(scale.Spec.Replicas, d) {
		r.set(autoscalingv2.ScaledToZero, corev1.ConditionTrue, "ScaledToZero", "the HPA controller scaled the workload to zero")
		if err := r.save(ctx, nil); err != nil {
			return err
		}
	}
	for try := 1; ; try++ {
		next := scale.DeepCopy()
		next.Spec.Replicas = d.desired
		_, err := r.c.transport.Update(ctx, at, next, metav1.UpdateOptions{})
		if !apierrors.IsConflict(err) || try == maxRetries {
			return err
		}
		if live, gerr := r.c.getScale(ctx, at); gerr == nil {
			scale = live
		}
	}
}

// scale finds the target's scale and where it is.
func (r *round) scale(ctx context.Context) (*autoscalingv1.Scale, target.Target, error) {
	ref := r.h.Spec.ScaleTargetRef
	gv, err := schema.ParseGroupVersion(ref.APIVersion)
	if err != nil {
		r.blame = measure.SpecError
		return nil, target.Target{}, err
	}
	kind, ok := r.c.kinds.Find(gv.WithKind(ref.Kind))
	if !ok {
		return nil, target.Target{}, fmt.Errorf("no matches for kind %q in group %q", ref.Kind, gv.Group)
	}
	at := target.Of(kind.GroupVersionResource, r.h.Namespace).Object(ref.Name).Sub("scale")
	scale, err := r.c.getScale(ctx, at)
	return scale, at, err
}

func (c *Controller) getScale(ctx context.Context, at target.Target) (*autoscalingv1.Scale, error) {
	obj, err := c.transport.Get(ctx, at, metav1.GetOptions{})
	if err != nil {
		return nil, err
	}
	scale, ok := obj.(*autoscalingv1.Scale)
	if !ok {
		return nil, fmt.Errorf("the scale of %s is a %T", at, obj)
	}
	return scale, nil
}

// selector reads the target's selector and makes sure that nobody else sizes the
// same pods.
func (r *round) selector(text string) (labels.Selector, error) {
	if text == "" {
		err := fmt.Errorf("selector is required")
		r.warn("SelectorRequired", err)
		r.set(autoscalingv2.ScalingActive, corev1.ConditionFalse, "InvalidSelector", "the HPA target's scale is missing a selector")
		return nil, err
	}
	s, err := labels.Parse(text)
	if err != nil {
		err = fmt.Errorf("couldn't convert selector into a corresponding internal selector object: %w", err)
		r.warn("InvalidSelector", err)
		r.set(autoscalingv2.ScalingActive, corev1.ConditionFalse, "InvalidSelector", err.Error())
		return nil, err
	}
	if rivals := r.c.sizing(r.key, s); len(rivals) > 1 {
		err := fmt.Errorf("pods by selector %v are controlled by more than one HPA (e.g. %v)", text, rivals)
		r.warn("AmbiguousSelector", err)
		r.set(autoscalingv2.ScalingActive, corev1.ConditionFalse, "AmbiguousSelector", err.Error())
		return nil, err
	}
	return s, nil
}

// sizing notes whose pods an autoscaler sizes, and names those that size them: two
// at most, since more say no more.
func (c *Controller) sizing(key reconcile.Key, s labels.Selector) []named {
	pods := controller.InNamespace(c.pods, key.Namespace, s)
	c.mu.Lock()
	defer c.mu.Unlock()
	c.selectors[key] = s
	var found []named
	for other, theirs := range c.selectors {
		if other.Namespace != key.Namespace {
			continue
		}
		if slices.ContainsFunc(pods, func(p *corev1.Pod) bool { return theirs.Matches(labels.Set(p.Labels)) }) {
			found = append(found, named{other.Name, other.Namespace})
		}
	}
	slices.SortFunc(found, named.compare)
	return found[:min(len(found), 2)]
}

// warn tells of a failure.
func (r *round) warn(reason string, err error) {
	r.c.events.Event(r.h, corev1.EventTypeWarning, reason, err.Error())
}

// set puts a condition into the status.
func (r *round) set(kind autoscalingv2.HorizontalPodAutoscalerConditionType, status corev1.ConditionStatus, reason, message string) {
	all := &r.h.Status.Conditions
	i := slices.IndexFunc(*all, func(c autoscalingv2.HorizontalPodAutoscalerCondition) bool { return c.Type == kind })
	if i < 0 {
		i = len(*all)
		*all = append(*all, autoscalingv2.HorizontalPodAutoscalerCondition{Type: kind})
	}
	c := &(*all)[i]
	if c.Status != status {
		c.LastTransitionTime = metav1.NewTime(r.now)
	}
	c.Status, c.Reason, c.Message = status, reason, message
}

// status is what was seen and is wanted; conditions and the last time stay.
func (r *round) status(current, desired int32, metrics []autoscalingv2.MetricStatus) {
	s := &r.h.Status
	generation := r.h.Generation
	s.ObservedGeneration, s.CurrentReplicas, s.DesiredReplicas, s.CurrentMetrics = &generation, current, desired, metrics
}
