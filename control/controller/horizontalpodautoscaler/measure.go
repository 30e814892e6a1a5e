package horizontalpodautoscaler

import (
	"context"
	"errors"
	"fmt"
	"time"

	autoscalingv1 "k8s.io/api/autoscaling/v1"
	autoscalingv2 "k8s.io/api/autoscaling/v2"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"

	"github.com/sampan-dev/sampan/control/controller"
	"github.com/sampan-dev/sampan/control/controller/measure"
)

// proposal is how many replicas a metric asks for, and the metric's name in the
// words of events.
type proposal struct {
	replicas int32
	metric   string
	status   autoscalingv2.MetricStatus
}

// failure is why a metric cannot be told: err goes into the condition and an
// event of that reason, full is what the round tells.
type failure struct {
	reason    string
	err, full error
}

// measure asks all metrics and returns the proposal that wants most. best is nil
// when none can be told, or when some cannot and the others want fewer replicas
// than there are: what is unknown must not shrink a workload. err is told even if
// there is a best.
func (r *round) measure(ctx context.Context, scale *autoscalingv1.Scale) (best *proposal, all []autoscalingv2.MetricStatus, err error) {
	selector, err := r.selector(scale.Status.Selector)
	if err != nil {
		return nil, nil, err
	}
	s := sight{
		h: r.h, spec: scale.Spec.Replicas, status: scale.Status.Replicas, now: r.now,
		pods: controller.InNamespace(r.c.pods, r.h.Namespace, selector), tolerance: toleranceOf(r.h),
	}
	specs := r.h.Spec.Metrics
	all = make([]autoscalingv2.MetricStatus, len(specs))
	var failed *failure
	failures := 0
	for i := range specs {
		began := time.Now()
		p, f := r.one(ctx, &s, &specs[i], selector)
		r.computed(ctx, &specs[i], scale.Spec.Replicas, p, f, began)
		if f != nil {
			r.warn(f.reason, f.err)
			if failures++; failed == nil {
				failed = f
			}
			continue
		}
		all[i] = p.status
		if best == nil || best.replicas == 0 || p.replicas > best.replicas {
			best = &p
		}
	}
	if failed != nil {
		err = fmt.Errorf("invalid metrics (%v invalid out of %v), first error is: %w", failures, len(specs), failed.full)
		if best == nil || best.replicas < scale.Spec.Replicas {
			r.set(autoscalingv2.ScalingActive, corev1.ConditionFalse, failed.reason, fmt.Sprintf("the HPA was unable to compute the replica count: %v", failed.err))
			return nil, all, err
		}
	}
	r.set(autoscalingv2.ScalingActive, corev1.ConditionTrue, "ValidMetricFound", "the HPA was able to successfully calculate a replica count from "+best.metric)
	return best, all, err
}

// computed counts what came of one metric.
func (r *round) computed(ctx context.Context, spec *autoscalingv2.MetricSpec, current int32, p proposal, f *failure, began time.Time) {
	s := measure.Scaling{Current: current, Wanted: p.replicas, Blame: measure.NoError, Began: began}
	if f != nil {
		s.Wanted, s.Blame = current, measure.InternalError
		if f.reason == invalidType {
			s.Blame, r.blame = measure.SpecError, measure.SpecError
		}
	}
	measure.From(ctx).Computed(spec.Type, s)
}

// invalidType is the reason of a metric of a kind that nobody knows.
const invalidType = "InvalidMetricSourceType"

// one reads a metric and judges it.
func (r *round) one(ctx context.Context, s *sight, spec *autoscalingv2.MetricSpec, selector labels.Selector) (proposal, *failure) {
	switch spec.Type {
	case autoscalingv2.ResourceMetricSourceType:
		m := spec.Resource
		p, err := r.resource(ctx, s, wantedUse{m.Name, "", m.Target}, selector)
		if err != nil {
			return p, &failure{"FailedGetResourceMetric", err, fmt.Errorf("failed to get %s resource metric value: %w", m.Name, err)}
		}
		p.status = autoscalingv2.MetricStatus{Type: spec.Type, Resource: &autoscalingv2.ResourceMetricStatus{Name: m.Name, Current: p.status.Resource.Current}}
		return p, nil
	case autoscalingv2.ContainerResourceMetricSourceType:
		m := spec.ContainerResource
		p, err := r.resource(ctx, s, wantedUse{m.Name, m.Container, m.Target}, selector)
		if err != nil {
			return p, &failure{"FailedGetContainerResourceMetric", err, fmt.Errorf("failed to get %s container metric value: %w", m.Container, err)}
		}
		p.status = autoscalingv2.MetricStatus{Type: spec.Type, ContainerResource: &autoscalingv2.ContainerResourceMetricStatus{
			Name: m.Name, Container: m.Container, Current: p.status.Resource.Current}}
		return p, nil
	case autoscalingv2.PodsMetricSourceType:
		p, err := r.podsMetric(ctx, s, spec.Pods, selector)
		if err != nil {
			return p, &failure{"FailedGetPodsMetric", err, fmt.Errorf("failed to get pods metric value: %w", err)}
		}
		return p, nil
	case autoscalingv2.ObjectMetricSourceType:
		return r.object(ctx, s, spec.Object)
	case autoscalingv2.ExternalMetricSourceType:
		return r.external(ctx, s, spec.External)
	}
	err := fmt.Errorf("unknown metric source type %q", string(spec.Type))
	return proposal{}, &failure{invalidType, err, err}
}

// wantedUse is what is asked of pods' use of a resource; container "" means all.
type wantedUse struct {
	name      corev1.ResourceName
	container string
	target    autoscalingv2.MetricTarget
}

// what is what a metric of it is called.
func (w wantedUse) what() string {
	if w.container != "" {
		return "container resource"
	}
	return "resource"
}

// resource judges the use of a resource.
func (r *round) resource(ctx context.Context, s *sight, w wantedUse, selector labels.Selector) (proposal, error) {
	if w.target.AverageValue == nil && w.target.AverageUtilization == nil {
		return proposal{}, errors.New("invalid resource metric source: neither an average utilization target nor an average value (usage) target was set")
	}
	use, err := r.c.use(ctx, r.h.Namespace, selector, w)
	if err != nil {
		err = fmt.Errorf("unable to get metrics for resource %s: %w", w.name, err)
	}
	var p proposal
	p.status.Resource = &autoscalingv2.ResourceMetricStatus{}
	now := &p.status.Resource.Current
	var average int64
	if w.target.AverageValue != nil {
		if err == nil {
			p.replicas, average, err = s.byValue(use, w.target.AverageValue.MilliValue(), w.name)
		}
		if err != nil {
			return p, fmt.Errorf("failed to get %s usage: %w", w.name, err)
		}
		p.metric = fmt.Sprintf("%s resource", w.name)
	} else {
		var percent int32
		if err == nil {
			p.replicas, percent, average, err = s.byUtilization(use, w)
		}
		if err != nil {
			return p, fmt.Errorf("failed to get %s utilization: %w", w.name, err)
		}
		p.metric = fmt.Sprintf("%s %s utilization (percentage of request)", w.name, w.what())
		now.AverageUtilization = &percent
	}
	format := resource.DecimalSI
	if w.name == corev1.ResourceMemory {
		format = resource.BinarySI
	}
	now.AverageValue = resource.NewMilliQuantity(average, format)
	return p, nil
}

func (r *round) podsMetric(ctx context.Context, s *sight, m *autoscalingv2.PodsMetricSource, selector labels.Selector) (proposal, error) {
	picked, err := metav1.LabelSelectorAsSelector(m.Metric.Selector)
	if err != nil {
		return proposal{}, err
	}
	use, err := r.c.podsMetric(ctx, r.h.Namespace, m.Metric.Name, selector, picked)
	if err != nil {
		return proposal{}, fmt.Errorf("unable to get metric %s: %w", m.Metric.Name, err)
	}
	p := proposal{metric: "pods metric " + m.Metric.Name}
	var average int64
	if p.replicas, average, err = s.byValue(use, m.Target.AverageValue.MilliValue(), ""); err != nil {
		return p, err
	}
	p.status = autoscalingv2.MetricStatus{Type: autoscalingv2.PodsMetricSourceType, Pods: &autoscalingv2.PodsMetricStatus{
		Metric: m.Metric, Current: autoscalingv2.MetricValueStatus{AverageValue: milli(average)}}}
	return p, nil
}

func (r *round) object(ctx context.Context, s *sight, m *autoscalingv2.ObjectMetricSource) (proposal, *failure) {
	fail := func(err, full error) (proposal, *failure) {
		return proposal{}, &failure{"FailedGetObjectMetric", err, fmt.Errorf("failed to get object metric value: %w", full)}
	}
	picked, err := metav1.LabelSelectorAsSelector(m.Metric.Selector)
	if err != nil {
		return fail(err, err)
	}
	total := m.Target.Type == autoscalingv2.ValueMetricType && m.Target.Value != nil
	if !total && (m.Target.Type != autoscalingv2.AverageValueMetricType || m.Target.AverageValue == nil) {
		err := errors.New("invalid object metric source: neither a value target nor an average value target was set")
		return fail(err, err)
	}
	value, err := r.c.objectMetric(ctx, r.h.Namespace, m, picked)
	if err != nil {
		err = fmt.Errorf("unable to get metric %s on %s %s/%s: %w", m.Metric.Name, m.DescribedObject.Kind, r.h.Namespace, m.DescribedObject.Name, err)
	}
	status := &autoscalingv2.ObjectMetricStatus{DescribedObject: m.DescribedObject, Metric: m.Metric}
	p := proposal{status: autoscalingv2.MetricStatus{Type: autoscalingv2.ObjectMetricSourceType, Object: status}}
	if total {
		if err == nil {
			p.replicas, err = s.byTotal(value, m.Target.Value.MilliValue())
		}
		if err != nil {
			return fail(err, err)
		}
		p.metric = fmt.Sprintf("%s metric %s", m.DescribedObject.Kind, m.Metric.Name)
		status.Current.Value = milli(value)
		return p, nil
	}
	if err != nil {
		return fail(err, fmt.Errorf("failed to get %s object metric: %w", m.Metric.Name, err))
	}
	var each int64
	p.replicas, each = s.byShare(value, m.Target.AverageValue.MilliValue())
	p.metric = fmt.Sprintf("external metric %s(%+v)", m.Metric.Name, m.Metric.Selector) // upstream's word
	status.Current.AverageValue = milli(each)
	return p, nil
}

func (r *round) external(ctx context.Context, s *sight, m *autoscalingv2.ExternalMetricSource) (proposal, *failure) {
	fail := func(err, full error) (proposal, *failure) {
		return proposal{}, &failure{"FailedGetExternalMetric", err, fmt.Errorf("failed to get %s external metric value: %w", m.Metric.Name, full)}
	}
	if m.Target.AverageValue == nil && m.Target.Value == nil {
		err := errors.New("invalid external metric source: neither a value target nor an average value target was set")
		return fail(err, err)
	}
	picked, err := metav1.LabelSelectorAsSelector(m.Metric.Selector)
	var value int64
	if err == nil {
		if value, err = r.c.externalMetric(ctx, r.h.Namespace, m.Metric.Name, picked); err != nil {
			err = fmt.Errorf("unable to get external metric %s/%s/%+v: %w", r.h.Namespace, m.Metric.Name, m.Metric.Selector, err)
		}
	}
	status := &autoscalingv2.ExternalMetricStatus{Metric: m.Metric}
	p := proposal{metric: fmt.Sprintf("external metric %s(%+v)", m.Metric.Name, m.Metric.Selector),
		status: autoscalingv2.MetricStatus{Type: autoscalingv2.ExternalMetricSourceType, External: status}}
	if m.Target.AverageValue != nil {
		if err != nil {
			return fail(err, fmt.Errorf("failed to get %s external metric: %w", m.Metric.Name, err))
		}
		var each int64
		p.replicas, each = s.byShare(value, m.Target.AverageValue.MilliValue())
		status.Current.AverageValue = milli(each)
		return p, nil
	}
	if err == nil {
		p.replicas, err = s.byTotal(value, m.Target.Value.MilliValue())
	}
	if err != nil {
		return fail(err, fmt.Errorf("failed to get external metric %s: %w", m.Metric.Name, err))
	}
	status.Current.Value = milli(value)
	return p, nil
}

func milli(n int64) *resource.Quantity { return resource.NewMilliQuantity(n, resource.DecimalSI) }
