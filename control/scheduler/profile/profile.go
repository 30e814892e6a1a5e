// Package profile makes profiles: upstream's default one, and those that a
// KubeSchedulerConfiguration describes.
package profile

import (
	"github.com/sampan-dev/sampan/control/scheduler"
	"github.com/sampan-dev/sampan/control/scheduler/plugin/images"
	"github.com/sampan-dev/sampan/control/scheduler/plugin/nodeaffinity"
	"github.com/sampan-dev/sampan/control/scheduler/plugin/nodename"
	"github.com/sampan-dev/sampan/control/scheduler/plugin/podaffinity"
	"github.com/sampan-dev/sampan/control/scheduler/plugin/ports"
	"github.com/sampan-dev/sampan/control/scheduler/plugin/resources"
	"github.com/sampan-dev/sampan/control/scheduler/plugin/spread"
	"github.com/sampan-dev/sampan/control/scheduler/plugin/taints"
	"github.com/sampan-dev/sampan/control/scheduler/plugin/unschedulable"
	"github.com/sampan-dev/sampan/control/scheduler/plugin/volumes"
)

// Default is upstream's default scheduler.
func Default() []scheduler.Profile {
	return []scheduler.Profile{{Name: scheduler.DefaultName, Filters: filters(), Scores: scores()}}
}

// filters are the rules a node must pass, in upstream's order: the cheap and often
// decisive first.
func filters() []scheduler.Filter {
	return []scheduler.Filter{
		nodename.Filter{}, unschedulable.Filter{}, taints.Filter{}, nodeaffinity.Filter{}, ports.Filter{},
		resources.Filter{}, volumes.Restrictions{}, volumes.Limits{}, volumes.NewBinding(0), volumes.Zone{},
		spread.Filter{Plugin: spread.System()}, podaffinity.Filter{},
	}
}

// scores are the preferences among the nodes that passed.
func scores() []scheduler.Score {
	return []scheduler.Score{
		taints.Score{}, nodeaffinity.Score{}, resources.Score{Resources: resources.Usual()},
		spread.Score{Plugin: spread.System()}, podaffinity.Score{HardWeight: 1},
		resources.Balanced{Resources: resources.Usual()}, images.Score{},
	}
}
