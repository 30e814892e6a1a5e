// Package profile lists the plugins of the default scheduler, in the order in
// which they are asked.
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
)

// Filters are the rules a node must pass: the cheap and often decisive first.
func Filters() []scheduler.Filter {
	return []scheduler.Filter{
		unschedulable.Filter{}, nodename.Filter{}, taints.Filter{}, nodeaffinity.Filter{}, ports.Filter{},
		resources.Filter{}, spread.Filter{}, podaffinity.Filter{},
	}
}

// Scores are the preferences among the nodes that passed.
func Scores() []scheduler.Score {
	return []scheduler.Score{
		taints.Score{}, nodeaffinity.Score{}, spread.Score{}, podaffinity.Score{},
		resources.LeastAllocated{}, resources.Balanced{}, images.Score{},
	}
}
