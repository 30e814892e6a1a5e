// Package profile makes profiles: upstream's default one, and those that a
// KubeSchedulerConfiguration describes.
package profile

import (
	"time"

	corev1 "k8s.io/api/core/v1"

	"github.com/sampan-dev/sampan/control/scheduler"
	"github.com/sampan-dev/sampan/control/scheduler/plugin/devices"
	"github.com/sampan-dev/sampan/control/scheduler/plugin/features"
	"github.com/sampan-dev/sampan/control/scheduler/plugin/images"
	"github.com/sampan-dev/sampan/control/scheduler/plugin/nodeaffinity"
	"github.com/sampan-dev/sampan/control/scheduler/plugin/nodename"
	"github.com/sampan-dev/sampan/control/scheduler/plugin/podaffinity"
	"github.com/sampan-dev/sampan/control/scheduler/plugin/ports"
	"github.com/sampan-dev/sampan/control/scheduler/plugin/resources"
	"github.com/sampan-dev/sampan/control/scheduler/plugin/shape"
	"github.com/sampan-dev/sampan/control/scheduler/plugin/spread"
	"github.com/sampan-dev/sampan/control/scheduler/plugin/taints"
	"github.com/sampan-dev/sampan/control/scheduler/plugin/unschedulable"
	"github.com/sampan-dev/sampan/control/scheduler/plugin/volumes"
)

// Default is upstream's default scheduler.
func Default() []scheduler.Profile {
	p := scheduler.Profile{Name: scheduler.DefaultName}
	for _, plugin := range usual().plugins() {
		if plugin.filter != nil {
			p.Filters = append(p.Filters, plugin.filter)
		}
		if plugin.score != nil {
			p.Scores = append(p.Scores, plugin.score)
		}
	}
	return []scheduler.Profile{p}
}

// settings are the arguments of the plugins.
type settings struct {
	added       *corev1.NodeAffinity
	fit         resources.Filter
	fitScore    resources.Score
	balanced    []resources.Weighed
	spread      spread.Plugin
	affinity    podaffinity.Score
	bindTimeout time.Duration
	// storage is how VolumeBinding likes volumes filled.
	storage shape.Shape
	// percent and absolute are DefaultPreemption's.
	percent, absolute int32
	// deviceSearch and deviceBinding are DynamicResources's timeouts.
	deviceSearch, deviceBinding time.Duration
}

// usual are upstream's defaults.
func usual() settings {
	return settings{
		fitScore: resources.Score{Resources: resources.Usual()}, balanced: resources.Usual(),
		spread: spread.System(), affinity: podaffinity.Score{HardWeight: 1},
		storage: shape.Shape{{Score: scheduler.MaxScore}, {Utilization: 100}},
	}
}

// plugin is one with what it does; either may be nil.
type plugin struct {
	name   string
	filter scheduler.Filter
	score  scheduler.Score
}

// plugins are all there are, in upstream's order: the cheap and often decisive
// first. What has neither filter nor score here is part of the scheduler itself.
func (s settings) plugins() []plugin {
	node := nodeaffinity.Plugin{Added: s.added}
	dynamic, binding := devices.New(s.deviceSearch, s.deviceBinding), volumes.NewBinding(s.bindTimeout)
	return []plugin{
		{name: "SchedulingGates"}, {name: "PrioritySort"}, {name: "DefaultPreemption"}, {name: "DefaultBinder"},
		{name: "NodeName", filter: nodename.Filter{}},
		{name: "NodeUnschedulable", filter: unschedulable.Filter{}},
		{name: "TaintToleration", filter: taints.Filter{}, score: taints.Score{}},
		{name: "NodeAffinity", filter: nodeaffinity.Filter{Plugin: node}, score: nodeaffinity.Score{Plugin: node}},
		{name: "NodePorts", filter: ports.Filter{}},
		{name: "NodeResourcesFit", filter: s.fit, score: s.fitScore},
		{name: "VolumeRestrictions", filter: volumes.Restrictions{}},
		{name: "NodeVolumeLimits", filter: volumes.Limits{}},
		{name: "VolumeBinding", filter: binding, score: volumes.Score{Binding: binding, Shape: s.storage}},
		{name: "VolumeZone", filter: volumes.Zone{}},
		{name: "PodTopologySpread", filter: spread.Filter{Plugin: s.spread}, score: spread.Score{Plugin: s.spread}},
		{name: "InterPodAffinity", filter: podaffinity.Filter{}, score: s.affinity},
		{name: "DynamicResources", filter: dynamic, score: devices.Score{Plugin: dynamic}},
		{name: "NodeResourcesBalancedAllocation", score: resources.Balanced{Resources: s.balanced}},
		{name: "ImageLocality", score: images.Score{}},
		{name: "NodeDeclaredFeatures", filter: features.Filter{}},
	}
}
