package autoscaling

import (
	"errors"
	"fmt"

	autoscalingv2 "k8s.io/api/autoscaling/v2"
	"k8s.io/apimachinery/pkg/api/validate/content"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/apimachinery/pkg/util/validation/field"

	"github.com/sampan-dev/sampan/kinds"
	"github.com/sampan-dev/sampan/kinds/core"
	"github.com/sampan-dev/sampan/kinds/declared"
)

const (
	// longestPeriod and longestWindow bound what the controller has to remember,
	// in seconds.
	longestPeriod = 1800
	longestWindow = 3600
)

// lenience is what an update may leave as wrong as it was.
type lenience struct {
	anyTarget bool // the target's apiVersion
	anyObject bool // those of objects that metrics describe
	noGroup   bool // an apiVersion without group: only of ReplicationControllers
}

func validate(h *hpa) field.ErrorList {
	return rules(&h.Spec, nil).Behind(check(h, lenience{noGroup: h.Spec.ScaleTargetRef.Kind == "ReplicationController"}))
}

func validateUpdate(h, old *hpa) field.ErrorList {
	now, was := h.Spec.ScaleTargetRef, old.Spec.ScaleTargetRef
	l := lenience{
		anyTarget: now.APIVersion == was.APIVersion && now.Kind == was.Kind,
		noGroup:   now.Kind == "ReplicationController",
	}
	for i := range old.Spec.Metrics {
		if o := old.Spec.Metrics[i].Object; o != nil && apiVersion(o.DescribedObject.APIVersion, true) != nil {
			l.anyObject = true
		}
	}
	return rules(&h.Spec, &old.Spec).Behind(check(h, l))
}

// rules are upstream's declared rules, of both versions.
func rules(spec, old *autoscalingv2.HorizontalPodAutoscalerSpec) *declared.Rules {
	r, at := declared.For(old), kinds.NewPath("spec")
	type hpaSpec = autoscalingv2.HorizontalPodAutoscalerSpec
	atLeast := func(least, value int32, at *kinds.Path) {
		if value < least {
			r.Join(field.ErrorList{field.Invalid(at.Field(), value, fmt.Sprintf("must be greater than or equal to %d", least)).WithOrigin("minimum")})
		}
	}
	declared.Pointer(r, spec, old, at.Child("minReplicas"), func(s *hpaSpec) *int32 { return s.MinReplicas },
		func(now, _ *int32, at *kinds.Path) { atLeast(0, *now, at) })
	declared.Field(r, spec, old, at.Child("maxReplicas"), func(s *hpaSpec) int32 { return s.MaxReplicas }, func(now, _ int32, at *kinds.Path) {
		if now == 0 {
			r.Faults.Required(at, "")
			return
		}
		atLeast(1, now, at)
	})
	return r
}

func check(h *hpa, l lenience) field.ErrorList {
	var f kinds.Faults
	spec, at := &h.Spec, kinds.NewPath("spec")
	least := kinds.Deref(spec.MinReplicas)
	if least < 0 {
		f.Invalid(at.Child("minReplicas"), least, "must be greater than or equal to 0")
	}
	switch most := at.Child("maxReplicas"); {
	case spec.MaxReplicas == 0:
		f.Required(most, "must be set and greater than 0")
	case spec.MaxReplicas < 0:
		f.Invalid(most, spec.MaxReplicas, "must be greater than or equal to 1")
	}
	if spec.MinReplicas != nil && spec.MaxReplicas < least {
		f.Join(field.ErrorList{field.Invalid(at.Child("maxReplicas").Field(), spec.MaxReplicas, "must be greater than or equal to `minReplicas`").WithOrigin("minReplicas")})
	}
	checkReference(&f, spec.ScaleTargetRef, at.Child("scaleTargetRef"), l.noGroup, l.anyTarget)
	checkMetrics(&f, spec, at.Child("metrics"), l.anyObject)
	if b := spec.Behavior; b != nil {
		checkRules(&f, b.ScaleUp, at.Child("behavior").Child("scaleUp"))
		checkRules(&f, b.ScaleDown, at.Child("behavior").Child("scaleDown"))
	}
	return f.List()
}

func checkReference(f *kinds.Faults, ref autoscalingv2.CrossVersionObjectReference, at *kinds.Path, noGroup, anyVersion bool) {
	for _, part := range []struct{ name, value string }{{"kind", ref.Kind}, {"name", ref.Name}} {
		if part.value == "" {
			f.Required(at.Child(part.name), "")
			continue
		}
		f.Each(at.Child(part.name), part.value, content.IsPathSegmentName(part.value))
	}
	if anyVersion {
		return
	}
	if err := apiVersion(ref.APIVersion, noGroup); err != nil {
		f.Invalid(at.Child("apiVersion"), ref.APIVersion, err.Error())
	}
}

// apiVersion is what is wrong with one, nil if nothing.
func apiVersion(text string, noGroup bool) error {
	gv, err := schema.ParseGroupVersion(text)
	if err != nil {
		return err //nolint:wrapcheck // the message is the API's
	}
	if gv.Group == "" && !noGroup {
		return errors.New("apiVersion must specify API group")
	}
	return nil
}

func checkMetrics(f *kinds.Faults, spec *autoscalingv2.HorizontalPodAutoscalerSpec, at *kinds.Path, anyObject bool) {
	wakes := false // there is a metric of what waits though nothing runs
	for i := range spec.Metrics {
		m := &spec.Metrics[i]
		checkMetric(f, m, at.Index(i), anyObject)
		wakes = wakes || m.Type == autoscalingv2.ObjectMetricSourceType || m.Type == autoscalingv2.ExternalMetricSourceType
	}
	if spec.MinReplicas != nil && *spec.MinReplicas == 0 && !wakes {
		f.Forbidden(at, "must specify at least one Object or External metric to support scaling to zero replicas")
	}
}

// source is one of the five that a metric may have.
type source struct {
	kind  autoscalingv2.MetricSourceType
	field string
	set   bool
	check func(at *kinds.Path)
}

func checkMetric(f *kinds.Faults, m *autoscalingv2.MetricSpec, at *kinds.Path, anyObject bool) {
	sources := []source{
		{autoscalingv2.ObjectMetricSourceType, "object", m.Object != nil, func(at *kinds.Path) { checkObject(f, m.Object, at, anyObject) }},
		{autoscalingv2.ExternalMetricSourceType, "external", m.External != nil, func(at *kinds.Path) { checkExternal(f, m.External, at) }},
		{autoscalingv2.PodsMetricSourceType, "pods", m.Pods != nil, func(at *kinds.Path) { checkPods(f, m.Pods, at) }},
		{autoscalingv2.ResourceMetricSourceType, "resource", m.Resource != nil, func(at *kinds.Path) {
			if m.Resource.Name == "" {
				f.Required(at.Child("name"), "must specify a resource name")
			}
			checkResource(f, m.Resource.Target, at)
		}},
		{autoscalingv2.ContainerResourceMetricSourceType, "containerResource", m.ContainerResource != nil, func(at *kinds.Path) {
			checkContainer(f, m.ContainerResource, at)
		}},
	}
	if m.Type == "" {
		f.Required(at.Child("type"), "must specify a metric source type")
	}
	kinds.OneOf(f, at.Child("type"), m.Type, autoscalingv2.ContainerResourceMetricSourceType, autoscalingv2.ExternalMetricSourceType,
		autoscalingv2.ObjectMetricSourceType, autoscalingv2.PodsMetricSourceType, autoscalingv2.ResourceMetricSourceType)
	set := 0
	for _, s := range sources {
		if s.set {
			if set++; set == 1 {
				s.check(at.Child(s.field))
			}
		}
	}
	for _, s := range sources {
		switch {
		case s.kind == m.Type && !s.set:
			f.Required(at.Child(s.field), "must populate information for the given metric source")
		case s.kind != m.Type && s.set && set != 1:
			f.Forbidden(at.Child(s.field), "must populate the given metric source only")
		}
	}
}

func checkObject(f *kinds.Faults, o *autoscalingv2.ObjectMetricSource, at *kinds.Path, anyVersion bool) {
	checkReference(f, o.DescribedObject, at.Child("describedObject"), true, anyVersion)
	checkIdentifier(f, o.Metric, at.Child("metric"))
	checkTarget(f, o.Target, at.Child("target"))
	if o.Target.Value == nil && o.Target.AverageValue == nil {
		f.Required(at.Child("target").Child("averageValue"), "must set either a target value or averageValue")
	}
}

func checkExternal(f *kinds.Faults, e *autoscalingv2.ExternalMetricSource, at *kinds.Path) {
	checkIdentifier(f, e.Metric, at.Child("metric"))
	checkTarget(f, e.Target, at.Child("target"))
	switch {
	case e.Target.Value == nil && e.Target.AverageValue == nil:
		f.Required(at.Child("target").Child("averageValue"), "must set either a target value for metric or a per-pod target")
	case e.Target.Value != nil && e.Target.AverageValue != nil:
		f.Forbidden(at.Child("target").Child("value"), "may not set both a target value for metric and a per-pod target")
	}
}

func checkPods(f *kinds.Faults, p *autoscalingv2.PodsMetricSource, at *kinds.Path) {
	checkIdentifier(f, p.Metric, at.Child("metric"))
	checkTarget(f, p.Target, at.Child("target"))
	if p.Target.AverageValue == nil {
		f.Required(at.Child("target").Child("averageValue"), "must specify a positive target averageValue")
	}
}

func checkContainer(f *kinds.Faults, c *autoscalingv2.ContainerResourceMetricSource, at *kinds.Path) {
	if c.Name == "" {
		f.Required(at.Child("name"), "must specify a resource name")
	} else {
		f.Join(core.ContainerResourceName(c.Name, at.Child("name")))
	}
	if c.Container == "" {
		f.Required(at.Child("container"), "must specify a container")
	} else {
		f.Each(at.Child("container"), c.Container, validation.IsDNS1123Label(c.Container))
	}
	checkResource(f, c.Target, at)
}

func checkResource(f *kinds.Faults, t autoscalingv2.MetricTarget, at *kinds.Path) {
	checkTarget(f, t, at.Child("target"))
	switch {
	case t.AverageUtilization == nil && t.AverageValue == nil:
		f.Required(at.Child("target").Child("averageUtilization"), "must set either a target raw value or a target utilization")
	case t.AverageUtilization != nil && t.AverageValue != nil:
		f.Forbidden(at.Child("target").Child("averageValue"), "may not set both a target raw value and a target utilization")
	}
}

func checkTarget(f *kinds.Faults, t autoscalingv2.MetricTarget, at *kinds.Path) {
	if t.Type == "" {
		f.Required(at.Child("type"), "must specify a metric target type")
	}
	if t.Type != autoscalingv2.UtilizationMetricType && t.Type != autoscalingv2.ValueMetricType && t.Type != autoscalingv2.AverageValueMetricType {
		f.Invalid(at.Child("type"), t.Type, "must be either Utilization, Value, or AverageValue")
	}
	if t.Value != nil && t.Value.Sign() != 1 {
		f.Invalid(at.Child("value"), t.Value, "must be positive")
	}
	if t.AverageValue != nil && t.AverageValue.Sign() != 1 {
		f.Invalid(at.Child("averageValue"), t.AverageValue, "must be positive")
	}
	if t.AverageUtilization != nil && *t.AverageUtilization < 1 {
		f.Invalid(at.Child("averageUtilization"), *t.AverageUtilization, "must be greater than 0")
	}
}

func checkIdentifier(f *kinds.Faults, id autoscalingv2.MetricIdentifier, at *kinds.Path) {
	if id.Name == "" {
		f.Required(at.Child("name"), "must specify a metric name")
		return
	}
	f.Each(at.Child("name"), id.Name, content.IsPathSegmentName(id.Name))
}

func checkRules(f *kinds.Faults, rules *autoscalingv2.HPAScalingRules, at *kinds.Path) {
	if rules == nil {
		return
	}
	if w := rules.StabilizationWindowSeconds; w != nil {
		switch window := at.Child("stabilizationWindowSeconds"); {
		case *w < 0:
			f.Invalid(window, *w, "must be greater than or equal to zero")
		case *w > longestWindow:
			f.Invalid(window, *w, fmt.Sprintf("must be less than or equal to %v", longestWindow))
		}
	}
	if rules.SelectPolicy != nil {
		kinds.OneOf(f, at.Child("selectPolicy"), *rules.SelectPolicy,
			autoscalingv2.DisabledPolicySelect, autoscalingv2.MaxChangePolicySelect, autoscalingv2.MinChangePolicySelect)
	}
	if len(rules.Policies) == 0 {
		f.Required(at.Child("policies"), "must specify at least one Policy")
	}
	for i, p := range rules.Policies {
		here := at.Child("policies").Index(i)
		kinds.OneOf(f, here.Child("type"), p.Type, autoscalingv2.PercentScalingPolicy, autoscalingv2.PodsScalingPolicy)
		if p.Value <= 0 {
			f.Invalid(here.Child("value"), p.Value, "must be greater than zero")
		}
		if p.PeriodSeconds <= 0 {
			f.Invalid(here.Child("periodSeconds"), p.PeriodSeconds, "must be greater than zero")
		}
		if p.PeriodSeconds > longestPeriod {
			f.Invalid(here.Child("periodSeconds"), p.PeriodSeconds, fmt.Sprintf("must be less than or equal to %v", longestPeriod))
		}
	}
	if rules.Tolerance != nil && rules.Tolerance.Sign() < 0 {
		f.Invalid(at.Child("tolerance"), rules.Tolerance.String(), "must be greater than or equal to 0")
	}
}

func validateStatus(h, _ *hpa) field.ErrorList {
	var f kinds.Faults
	at := kinds.NewPath("status")
	for i, c := range h.Status.Conditions {
		if c.ObservedGeneration != nil {
			f.NonNegative(at.Child("conditions").Index(i).Child("observedGeneration"), *c.ObservedGeneration)
		}
	}
	f.NonNegative(at.Child("currentReplicas"), int64(h.Status.CurrentReplicas))
	f.NonNegative(at.Child("desiredReplicas"), int64(h.Status.DesiredReplicas))
	return f.List()
}
