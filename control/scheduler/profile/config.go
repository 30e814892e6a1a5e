package profile

import (
	"errors"
	"fmt"
	"slices"
	"time"

	configv1 "k8s.io/kube-scheduler/config/v1"
	"sigs.k8s.io/yaml"

	"github.com/sampan-dev/sampan/control/scheduler"
	"github.com/sampan-dev/sampan/control/scheduler/extender"
)

// Parse reads a KubeSchedulerConfiguration (kubescheduler.config.k8s.io/v1), YAML or
// JSON, and returns the part of a scheduler.Config that it describes. Fields about
// leader election, client connection, parallelism and debugging are accepted and have
// no effect: one program holds all components.
func Parse(raw []byte) (scheduler.Config, error) {
	var file configv1.KubeSchedulerConfiguration
	if err := yaml.UnmarshalStrict(raw, &file); err != nil {
		return scheduler.Config{}, err
	}
	if file.APIVersion != configv1.SchemeGroupVersion.String() || file.Kind != "KubeSchedulerConfiguration" {
		return scheduler.Config{}, fmt.Errorf("want a KubeSchedulerConfiguration of %s, not %s of %q", configv1.SchemeGroupVersion, file.Kind, file.APIVersion)
	}
	var cfg scheduler.Config
	if err := backoff(&file, &cfg); err != nil {
		return cfg, err
	}
	if file.Parallelism != nil && *file.Parallelism <= 0 {
		return cfg, fmt.Errorf("parallelism: %d is not greater than zero", *file.Parallelism)
	}
	if err := checkExtenders(file.Extenders); err != nil {
		return cfg, err
	}
	var ignored []string
	for _, e := range file.Extenders {
		made, err := extender.New(e)
		if err != nil {
			return cfg, err
		}
		cfg.Extenders = append(cfg.Extenders, made)
		for _, m := range e.ManagedResources {
			if m.IgnoredByScheduler {
				ignored = append(ignored, m.Name)
			}
		}
	}
	if len(file.Profiles) == 0 {
		file.Profiles = []configv1.KubeSchedulerProfile{{}}
	}
	for i := range file.Profiles {
		p, err := one(&file.Profiles[i], ignored, len(file.Profiles) == 1)
		if err != nil {
			return cfg, fmt.Errorf("profiles[%d]: %w", i, err)
		}
		if p.PercentageOfNodesToScore == 0 && file.PercentageOfNodesToScore != nil {
			p.PercentageOfNodesToScore = *file.PercentageOfNodesToScore
		}
		if n := p.PercentageOfNodesToScore; n < 0 || n > 100 {
			return cfg, fmt.Errorf("profiles[%d]: percentageOfNodesToScore: %d is not in the range 0-100", i, n)
		}
		cfg.Profiles = append(cfg.Profiles, p)
	}
	return cfg, nil
}

func backoff(file *configv1.KubeSchedulerConfiguration, cfg *scheduler.Config) error {
	initial, most := int64(1), int64(10)
	if file.PodInitialBackoffSeconds != nil {
		initial = *file.PodInitialBackoffSeconds
	}
	if file.PodMaxBackoffSeconds != nil {
		most = *file.PodMaxBackoffSeconds
	}
	if initial <= 0 {
		return fmt.Errorf("podInitialBackoffSeconds: %d must be greater than 0", initial)
	}
	if most < initial {
		return fmt.Errorf("podMaxBackoffSeconds: %d must be greater than or equal to podInitialBackoffSeconds", most)
	}
	cfg.InitialBackoff, cfg.MaxBackoff = time.Duration(initial)*time.Second, time.Duration(most)*time.Second
	return nil
}

// one makes one profile.
func one(from *configv1.KubeSchedulerProfile, ignored []string, alone bool) (scheduler.Profile, error) {
	p := scheduler.Profile{Name: scheduler.DefaultName}
	switch {
	case from.SchedulerName != nil && *from.SchedulerName != "":
		p.Name = *from.SchedulerName
	case !alone:
		return p, errors.New("schedulerName: needed when there are several profiles")
	}
	if from.PercentageOfNodesToScore != nil {
		p.PercentageOfNodesToScore = *from.PercentageOfNodesToScore
	}
	s := usual()
	s.fit.Ignored = append(s.fit.Ignored, ignored...)
	for i, c := range from.PluginConfig {
		if slices.ContainsFunc(from.PluginConfig[:i], func(o configv1.PluginConfig) bool { return o.Name == c.Name }) {
			return p, fmt.Errorf("pluginConfig %q: given twice", c.Name)
		}
		if err := s.take(c); err != nil {
			return p, fmt.Errorf("pluginConfig %q: %w", c.Name, err)
		}
	}
	p.MinCandidateNodesPercentage, p.MinCandidateNodesAbsolute = s.percent, s.absolute
	all := s.plugins()
	chosen := &configv1.Plugins{}
	if from.Plugins != nil {
		chosen = from.Plugins
	}
	if err := check(chosen, all); err != nil {
		return p, err
	}
	everywhere := choose(names(all), chosen.MultiPoint)
	for _, e := range choose(everywhere, chosen.Filter) {
		if f := find(all, e.Name).filter; f != nil {
			p.Filters = append(p.Filters, f)
		}
	}
	for _, e := range choose(everywhere, chosen.Score) {
		score := find(all, e.Name).score
		if score == nil {
			continue
		}
		if e.Weight != nil && *e.Weight != 0 {
			score = weighted{score, int64(*e.Weight)}
		}
		p.Scores = append(p.Scores, score)
	}
	p.NoPreemption = !slices.ContainsFunc(choose(everywhere, chosen.PostFilter), named("DefaultPreemption"))
	return p, nil
}

// weighted is a score with a weight of the configuration's.
type weighted struct {
	scheduler.Score
	weight int64
}

// Weight implements scheduler.Score.
func (w weighted) Weight() int64 { return w.weight }

func names(all []plugin) []configv1.Plugin {
	list := make([]configv1.Plugin, len(all))
	for i, p := range all {
		list[i].Name = p.name
	}
	return list
}

func find(all []plugin, name string) plugin {
	return all[slices.IndexFunc(all, func(p plugin) bool { return p.name == name })]
}

func named(name string) func(configv1.Plugin) bool {
	return func(p configv1.Plugin) bool { return p.Name == name }
}

// choose takes the disabled plugins out of a list and puts the enabled ones in:
// those that are there keep their place, others follow.
func choose(from []configv1.Plugin, set configv1.PluginSet) []configv1.Plugin {
	all := slices.ContainsFunc(set.Disabled, named("*"))
	var list []configv1.Plugin
	for _, p := range from {
		at := slices.IndexFunc(set.Enabled, named(p.Name))
		switch {
		case at >= 0 && !all:
			list = append(list, set.Enabled[at])
		case !all && !slices.ContainsFunc(set.Disabled, named(p.Name)):
			list = append(list, p)
		}
	}
	for _, p := range set.Enabled {
		if !slices.ContainsFunc(list, named(p.Name)) {
			list = append(list, p)
		}
	}
	return list
}
