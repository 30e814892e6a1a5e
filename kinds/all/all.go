// Package all is the table of every kind that Sampan serves.
package all

import (
	"github.com/sampan-dev/sampan/kinds"
	"github.com/sampan-dev/sampan/kinds/admissionregistration"
	"github.com/sampan-dev/sampan/kinds/apiextensions"
	"github.com/sampan-dev/sampan/kinds/apiregistration"
	"github.com/sampan-dev/sampan/kinds/apps"
	"github.com/sampan-dev/sampan/kinds/authentication"
	"github.com/sampan-dev/sampan/kinds/authorization"
	"github.com/sampan-dev/sampan/kinds/autoscaling"
	"github.com/sampan-dev/sampan/kinds/batch"
	"github.com/sampan-dev/sampan/kinds/certificates"
	"github.com/sampan-dev/sampan/kinds/coordination"
	"github.com/sampan-dev/sampan/kinds/core"
	"github.com/sampan-dev/sampan/kinds/discovery"
	"github.com/sampan-dev/sampan/kinds/events"
	"github.com/sampan-dev/sampan/kinds/flowcontrol"
	"github.com/sampan-dev/sampan/kinds/networking"
	"github.com/sampan-dev/sampan/kinds/node"
	"github.com/sampan-dev/sampan/kinds/policy"
	"github.com/sampan-dev/sampan/kinds/rbac"
	"github.com/sampan-dev/sampan/kinds/resource"
	"github.com/sampan-dev/sampan/kinds/scheduling"
	"github.com/sampan-dev/sampan/kinds/storage"
	"github.com/sampan-dev/sampan/kinds/storagemigration"
)

// Kinds makes the table: the core group first, then the groups in the order in
// which upstream's discovery lists them. Each call makes new rows.
func Kinds() []*kinds.Kind {
	var table []*kinds.Kind
	for _, group := range [][]*kinds.Kind{
		core.Kinds(),
		apiregistration.Kinds(),
		apiextensions.Kinds(),
		apps.Kinds(),
		events.Kinds(),
		authentication.Kinds(),
		authorization.Kinds(),
		autoscaling.Kinds(),
		batch.Kinds(),
		certificates.Kinds(),
		networking.Kinds(),
		policy.Kinds(),
		rbac.Kinds(),
		storage.Kinds(),
		admissionregistration.Kinds(),
		scheduling.Kinds(),
		coordination.Kinds(),
		node.Kinds(),
		discovery.Kinds(),
		resource.Kinds(),
		flowcontrol.Kinds(),
		storagemigration.Kinds(),
	} {
		table = append(table, group...)
	}
	return table
}

// With makes the table with what feature gates add to it.
func With(gates map[string]bool) []*kinds.Kind {
	table := Kinds()
	if gates[scheduling.GroupGate] {
		table = append(table, scheduling.GroupKinds()...)
	}
	return table
}
