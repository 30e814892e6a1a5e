package aggregate

import (
	"k8s.io/apimachinery/pkg/runtime/schema"
)

// rank is the place of a group version: groups of higher priority come first, and
// within a group the versions of higher priority.
type rank struct{ group, version int32 }

// groupRanks are the priorities of the built-in groups, upstream's. What is
// missing here is no APIService: the group of the APIServices themselves.
var groupRanks = map[string]int32{
	"": 18000, "apps": 17800, "events.k8s.io": 17750, "authentication.k8s.io": 17700, "authorization.k8s.io": 17600,
	"autoscaling": 17500, "batch": 17400, "certificates.k8s.io": 17300, "networking.k8s.io": 17200, "policy": 17100,
	"rbac.authorization.k8s.io": 17000, "storage.k8s.io": 16800, "apiextensions.k8s.io": 16700, "admissionregistration.k8s.io": 16700,
	"scheduling.k8s.io": 16600, "coordination.k8s.io": 16500, "node.k8s.io": 16300, "discovery.k8s.io": 16200,
	"resource.k8s.io": 16200, "flowcontrol.apiserver.k8s.io": 16100, "storagemigration.k8s.io": 15800,
}

// versionRanks are those of the versions that have not the usual one.
var versionRanks = map[schema.GroupVersion]int32{
	{Group: "", Version: "v1"}:                             1,
	{Group: "autoscaling", Version: "v2"}:                  30,
	{Group: "resource.k8s.io", Version: "v1"}:              21,
	{Group: "flowcontrol.apiserver.k8s.io", Version: "v1"}: 21,
}

// The ranks of everything else.
const (
	usualVersion  = 15
	customGroup   = 1000
	customVersion = 100
	// ownGroup is that of the APIServices, which comes before all.
	ownGroup = 20000
)

// builtInRank is the place of a built-in group version; ok is false for those
// that get no APIService.
func builtInRank(gv schema.GroupVersion) (r rank, ok bool) {
	group, ok := groupRanks[gv.Group]
	if !ok {
		return rank{}, false
	}
	if v, special := versionRanks[gv]; special {
		return rank{group, v}, true
	}
	return rank{group, usualVersion}, true
}
