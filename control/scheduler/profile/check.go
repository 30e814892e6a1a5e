package profile

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/util/validation"
	configv1 "k8s.io/kube-scheduler/config/v1"
)

// check refuses plugins that are not known, or are none of the kind, and choices that
// cannot be made here. What is disabled may be any name: others have plugins that are
// none here.
func check(chosen *configv1.Plugins, all []plugin) error {
	for _, point := range []struct {
		name string
		set  configv1.PluginSet
		part bool // plugins cannot be disabled at this point alone
	}{
		{"multiPoint", chosen.MultiPoint, false}, {"filter", chosen.Filter, false}, {"score", chosen.Score, false},
		{"postFilter", chosen.PostFilter, false}, {"preEnqueue", chosen.PreEnqueue, true}, {"queueSort", chosen.QueueSort, true},
		{"preFilter", chosen.PreFilter, true}, {"preScore", chosen.PreScore, true}, {"reserve", chosen.Reserve, true},
		{"permit", chosen.Permit, true}, {"preBind", chosen.PreBind, true}, {"bind", chosen.Bind, true}, {"postBind", chosen.PostBind, true},
	} {
		if err := checkEnabled(point.name, point.set.Enabled, all); err != nil {
			return fmt.Errorf("plugins.%s: %w", point.name, err)
		}
		if point.part && len(point.set.Disabled) > 0 && len(point.set.Enabled) == 0 {
			return fmt.Errorf("plugins.%s: plugins cannot be disabled at this point alone; use multiPoint, filter or score", point.name)
		}
	}
	everywhere := choose(names(all), chosen.MultiPoint)
	for name, set := range map[string]configv1.PluginSet{"PrioritySort": chosen.QueueSort, "DefaultBinder": chosen.Bind} {
		if !slices.ContainsFunc(choose(everywhere, set), named(name)) {
			return fmt.Errorf("plugins: %s cannot be disabled, nothing else does what it does", name)
		}
	}
	return nil
}

// checkEnabled looks at the plugins that are enabled at one point.
func checkEnabled(point string, enabled []configv1.Plugin, all []plugin) error {
	for i, p := range enabled {
		at := slices.IndexFunc(all, func(known plugin) bool { return known.name == p.Name })
		switch {
		case at < 0:
			return fmt.Errorf("plugin %q is not known", p.Name)
		case point == "filter" && all[at].filter == nil, point == "score" && all[at].score == nil:
			return fmt.Errorf("plugin %q does not %s", p.Name, point)
		case slices.ContainsFunc(enabled[:i], named(p.Name)):
			return fmt.Errorf("plugin %q is enabled twice", p.Name)
		case p.Weight != nil && *p.Weight < 0:
			return fmt.Errorf("plugin %q: weight %d is negative", p.Name, *p.Weight)
		}
	}
	return nil
}

// qualified says what is wrong with a name that may have a prefix before a slash.
func qualified(name string) error {
	if wrong := validation.IsQualifiedName(name); len(wrong) > 0 {
		return fmt.Errorf("%q: %s", name, strings.Join(wrong, "; "))
	}
	return nil
}

// checkConstraints looks at the default constraints for spreading.
func checkConstraints(list []corev1.TopologySpreadConstraint) error {
	for i, c := range list {
		if c.MaxSkew <= 0 {
			return fmt.Errorf("maxSkew: %d is not greater than zero", c.MaxSkew)
		}
		if err := qualified(c.TopologyKey); err != nil {
			return fmt.Errorf("topologyKey: %w", err)
		}
		if when := c.WhenUnsatisfiable; when != corev1.DoNotSchedule && when != corev1.ScheduleAnyway {
			return fmt.Errorf("whenUnsatisfiable: %q is neither DoNotSchedule nor ScheduleAnyway", when)
		}
		if c.LabelSelector != nil {
			return errors.New("constraint must not define a selector, as they deduced for each pod")
		}
		if slices.ContainsFunc(list[:i], func(o corev1.TopologySpreadConstraint) bool {
			return o.TopologyKey == c.TopologyKey && o.WhenUnsatisfiable == c.WhenUnsatisfiable
		}) {
			return fmt.Errorf("{%s, %s} is given twice", c.TopologyKey, c.WhenUnsatisfiable)
		}
	}
	return nil
}

// checkExtenders looks at what extenders have in common.
func checkExtenders(list []configv1.Extender) error {
	binds := 0
	seen := map[string]bool{}
	for i, e := range list {
		if e.PrioritizeVerb != "" && e.Weight <= 0 {
			return fmt.Errorf("extenders[%d].weight: %d is not positive", i, e.Weight)
		}
		if e.BindVerb != "" {
			binds++
		}
		for _, r := range e.ManagedResources {
			if err := qualified(r.Name); err != nil {
				return fmt.Errorf("extenders[%d].managedResources: %w", i, err)
			}
			prefix, _, extended := strings.Cut(r.Name, "/")
			if !extended || prefix == "kubernetes.io" || strings.HasSuffix(prefix, ".kubernetes.io") || strings.HasPrefix(r.Name, corev1.DefaultResourceRequestsPrefix) {
				return fmt.Errorf("extenders[%d].managedResources: %q is no extended resource", i, r.Name)
			}
			if seen[r.Name] {
				return fmt.Errorf("extenders[%d].managedResources: %q is given twice", i, r.Name)
			}
			seen[r.Name] = true
		}
	}
	if binds > 1 {
		return fmt.Errorf("extenders: %d of them bind, only one can", binds)
	}
	return nil
}
