package profile

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/component-helpers/scheduling/corev1/nodeaffinity"
	configv1 "k8s.io/kube-scheduler/config/v1"
	"sigs.k8s.io/yaml"

	"github.com/sampan-dev/sampan/control/scheduler"
	"github.com/sampan-dev/sampan/control/scheduler/plugin/resources"
	"github.com/sampan-dev/sampan/control/scheduler/plugin/shape"
	"github.com/sampan-dev/sampan/control/scheduler/plugin/spread"
)

// take takes over one plugin's arguments.
func (s *settings) take(c configv1.PluginConfig) error {
	take, ok := map[string]func([]byte) error{
		"NodeAffinity": s.takeAffinity, "NodeResourcesFit": s.takeFit, "NodeResourcesBalancedAllocation": s.takeBalanced,
		"PodTopologySpread": s.takeSpread, "InterPodAffinity": s.takePodAffinity, "VolumeBinding": s.takeBinding,
		"DefaultPreemption": s.takePreemption, "DynamicResources": s.takeDevices,
	}[c.Name]
	if !ok {
		return errors.New("this plugin takes no arguments")
	}
	return take(c.Args.Raw)
}

func (s *settings) takeAffinity(raw []byte) error {
	var args configv1.NodeAffinityArgs
	if err := yaml.UnmarshalStrict(raw, &args); err != nil {
		return err
	}
	if args.AddedAffinity == nil {
		return nil
	}
	if required := args.AddedAffinity.RequiredDuringSchedulingIgnoredDuringExecution; required != nil {
		if _, err := nodeaffinity.NewNodeSelector(required); err != nil {
			return fmt.Errorf("addedAffinity: %w", err)
		}
	}
	if _, err := nodeaffinity.NewPreferredSchedulingTerms(args.AddedAffinity.PreferredDuringSchedulingIgnoredDuringExecution); err != nil {
		return fmt.Errorf("addedAffinity: %w", err)
	}
	s.added = args.AddedAffinity
	return nil
}

func (s *settings) takeFit(raw []byte) error {
	var args configv1.NodeResourcesFitArgs
	if err := yaml.UnmarshalStrict(raw, &args); err != nil {
		return err
	}
	for _, name := range args.IgnoredResources {
		if err := qualified(name); err != nil {
			return fmt.Errorf("ignoredResources: %w", err)
		}
	}
	for _, group := range args.IgnoredResourceGroups {
		if err := qualified(group); err != nil || strings.Contains(group, "/") {
			return fmt.Errorf("ignoredResourceGroups: %q is no name without a slash", group)
		}
	}
	s.fit.Ignored = append(s.fit.Ignored, args.IgnoredResources...)
	s.fit.IgnoredGroups = args.IgnoredResourceGroups
	if args.ScoringStrategy == nil {
		return nil
	}
	if len(args.ScoringStrategy.Resources) > 0 {
		list, err := weighed(args.ScoringStrategy.Resources)
		if err != nil {
			return fmt.Errorf("scoringStrategy: %w", err)
		}
		s.fitScore.Resources = list
	}
	switch args.ScoringStrategy.Type {
	case configv1.LeastAllocated, "":
	case configv1.MostAllocated:
		s.fitScore.Strategy = resources.Most
	case configv1.RequestedToCapacityRatio:
		s.fitScore.Strategy = resources.Ratio
		if args.ScoringStrategy.RequestedToCapacityRatio == nil {
			return errors.New("scoringStrategy: requestedToCapacityRatio is needed")
		}
		points, err := bend(args.ScoringStrategy.RequestedToCapacityRatio.Shape)
		if err != nil {
			return fmt.Errorf("scoringStrategy.requestedToCapacityRatio.shape: %w", err)
		}
		s.fitScore.Shape = points
	default:
		return fmt.Errorf("scoringStrategy: type %q is not known", args.ScoringStrategy.Type)
	}
	return nil
}

// maxPoints is the best score in a shape.
const maxPoints = 10

func bend(from []configv1.UtilizationShapePoint) (shape.Shape, error) {
	if len(from) == 0 {
		return nil, errors.New("at least one point must be specified")
	}
	var points shape.Shape
	for i, p := range from {
		if p.Utilization < 0 || p.Utilization > 100 || p.Score < 0 || p.Score > maxPoints {
			return nil, fmt.Errorf("point %d: utilization is 0 to 100, score 0 to %d", i, maxPoints)
		}
		if i > 0 && p.Utilization <= from[i-1].Utilization {
			return nil, errors.New("utilization values must be sorted in increasing order")
		}
		points = append(points, shape.Point{Utilization: int64(p.Utilization), Score: int64(p.Score) * scheduler.MaxScore / maxPoints})
	}
	return points, nil
}

func weighed(from []configv1.ResourceSpec) ([]resources.Weighed, error) {
	var list []resources.Weighed
	for _, r := range from {
		w := r.Weight
		if w == 0 {
			w = 1
		}
		if w < 1 || w > 100 {
			return nil, fmt.Errorf("weight of resource %q is %d, not 1 to 100", r.Name, w)
		}
		list = append(list, resources.Weighed{Name: corev1.ResourceName(r.Name), Weight: w})
	}
	return list, nil
}

func (s *settings) takeBalanced(raw []byte) error {
	var args configv1.NodeResourcesBalancedAllocationArgs
	if err := yaml.UnmarshalStrict(raw, &args); err != nil {
		return err
	}
	if len(args.Resources) == 0 {
		return nil
	}
	list, err := weighed(args.Resources)
	for i, w := range list {
		if w.Weight != 1 {
			return fmt.Errorf("weight of resource %q is %d, it must be 1", w.Name, w.Weight)
		}
		if slices.Contains(list[:i], w) {
			return fmt.Errorf("resource %q is given twice", w.Name)
		}
	}
	s.balanced = list
	return err
}

func (s *settings) takeSpread(raw []byte) error {
	var args configv1.PodTopologySpreadArgs
	if err := yaml.UnmarshalStrict(raw, &args); err != nil {
		return err
	}
	switch args.DefaultingType {
	case configv1.SystemDefaulting, "":
		if len(args.DefaultConstraints) > 0 {
			return errors.New("defaultConstraints: they need defaultingType List")
		}
		return nil
	case configv1.ListDefaulting:
	default:
		return fmt.Errorf("defaultingType %q is not known", args.DefaultingType)
	}
	if err := checkConstraints(args.DefaultConstraints); err != nil {
		return fmt.Errorf("defaultConstraints: %w", err)
	}
	s.spread = spread.Plugin{Defaults: args.DefaultConstraints}
	return nil
}

func (s *settings) takePodAffinity(raw []byte) error {
	var args configv1.InterPodAffinityArgs
	if err := yaml.UnmarshalStrict(raw, &args); err != nil {
		return err
	}
	if w := args.HardPodAffinityWeight; w != nil {
		if *w < 0 || *w > 100 {
			return fmt.Errorf("hardPodAffinityWeight: %d is not in the range 0-100", *w)
		}
		s.affinity.HardWeight = int64(*w)
	}
	s.affinity.IgnorePreferred = args.IgnorePreferredTermsOfExistingPods
	return nil
}

func (s *settings) takeBinding(raw []byte) error {
	var args configv1.VolumeBindingArgs
	if err := yaml.UnmarshalStrict(raw, &args); err != nil {
		return err
	}
	if t := args.BindTimeoutSeconds; t != nil {
		if *t < 0 {
			return fmt.Errorf("bindTimeoutSeconds: %d is negative", *t)
		}
		s.bindTimeout = time.Duration(*t) * time.Second
	}
	if len(args.Shape) == 0 {
		return nil
	}
	points, err := bend(args.Shape)
	if err != nil {
		return fmt.Errorf("shape: %w", err)
	}
	s.storage = points
	return nil
}

func (s *settings) takePreemption(raw []byte) error {
	var args configv1.DefaultPreemptionArgs
	if err := yaml.UnmarshalStrict(raw, &args); err != nil {
		return err
	}
	s.percent, s.absolute = 10, 100 // upstream's
	if args.MinCandidateNodesPercentage != nil {
		s.percent = *args.MinCandidateNodesPercentage
	}
	if args.MinCandidateNodesAbsolute != nil {
		s.absolute = *args.MinCandidateNodesAbsolute
	}
	if s.percent < 0 || s.percent > 100 || s.absolute < 0 || s.percent == 0 && s.absolute == 0 {
		return errors.New("minCandidateNodesPercentage and minCandidateNodesAbsolute: not both zero, and the first at most 100")
	}
	return nil
}

func (s *settings) takeDevices(raw []byte) error {
	var args configv1.DynamicResourcesArgs
	if err := yaml.UnmarshalStrict(raw, &args); err != nil {
		return err
	}
	if t := args.FilterTimeout; t != nil {
		if t.Duration < 0 {
			return fmt.Errorf("filterTimeout: %s is negative", t.Duration)
		}
		if s.deviceSearch = t.Duration; s.deviceSearch == 0 {
			s.deviceSearch = -1 // none
		}
	}
	if t := args.BindingTimeout; t != nil {
		if t.Duration < time.Second {
			return fmt.Errorf("bindingTimeout: %s is less than 1s", t.Duration)
		}
		s.deviceBinding = t.Duration
	}
	return nil
}
