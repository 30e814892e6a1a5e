package storage

import (
	"fmt"
	"time"

	storagev1 "k8s.io/api/storage/v1"
	apivalidation "k8s.io/apimachinery/pkg/api/validation"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/util/sets"
	"k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/apimachinery/pkg/util/validation/field"

	"github.com/sampan-dev/sampan/kinds"
	"github.com/sampan-dev/sampan/kinds/core"
)

// maxNodeID is the longest name by which a driver knows a node.
const maxNodeID = 256

// CSINode is the kind that lists the drivers of a node.
func CSINode() *kinds.Kind {
	return &kinds.Kind{
		GVK:      storagev1.SchemeGroupVersion.WithKind("CSINode"),
		Resource: "csinodes",
		Singular: "csinode",
		Storage:  "csinodes",
		New:      func() kinds.Object { return &storagev1.CSINode{} },
		NewList:  func() runtime.Object { return &storagev1.CSINodeList{} },
		Strategy: kinds.Strategy{
			ReturnsDeleted:            true,
			ForbidUnconditionalUpdate: true,
			PrepareCreate:             kinds.Each(func(n *storagev1.CSINode) { n.Status = storagev1.CSINodeStatus{} }),
			PrepareUpdate:             kinds.Pair(func(n, old *storagev1.CSINode) { n.Status = old.Status }),
			Validate:                  kinds.Check(validateCSINode),
			ValidateUpdate:            kinds.CheckUpdate(validateCSINodeUpdate),
		},
		Table: kinds.Table{
			Columns: kinds.Explained(csiNodeTexts(), "Name", "Drivers|integer", "Age"),
			Row: kinds.Row(func(n *storagev1.CSINode, now time.Time) []any {
				return []any{n.Name, int64(len(n.Spec.Drivers)), kinds.Created(n, now)}
			}),
		},
		// Health reports are an alpha feature upstream, which keeps nothing of
		// them unless it is switched on; nor do we.
		Subresources: []kinds.Subresource{
			kinds.StatusOnly[*storagev1.CSINode](func(_, _ *storagev1.CSINode) {}, nil),
		},
	}
}

func validateCSINode(n *storagev1.CSINode) field.ErrorList {
	var f kinds.Faults
	names := sets.New[string]()
	for i := range n.Spec.Drivers {
		d, at := &n.Spec.Drivers[i], kinds.NewPath("spec").Child("drivers").Index(i)
		f.Join(core.ValidateDriverName(d.Name, at.Child("name")))
		f.NonEmpty(at.Child("nodeID"), d.NodeID)
		if len(d.NodeID) > maxNodeID {
			f.Invalid(at.Child("nodeID"), d.NodeID, fmt.Sprintf("must be %d characters or less", maxNodeID))
		}
		if d.Allocatable != nil && d.Allocatable.Count != nil {
			f.Join(apivalidation.ValidateNonnegativeField(int64(*d.Allocatable.Count), at.Child("allocatable").Child("count").Field()))
		}
		if names.Has(d.Name) {
			f.Duplicate(at.Child("name"), d.Name)
		}
		names.Insert(d.Name)
		checkTopologyKeys(&f, d.TopologyKeys, at)
	}
	return f.List()
}

func checkTopologyKeys(f *kinds.Faults, keys []string, at *kinds.Path) {
	seen := sets.New[string]()
	for _, key := range keys {
		f.NonEmpty(at, key)
		if seen.Has(key) {
			f.Duplicate(at, key)
		}
		seen.Insert(key)
		f.Each(at, key, validation.IsQualifiedName(key))
	}
}

// validateCSINodeUpdate: of a driver that is there, only how many volumes it can
// attach may change.
func validateCSINodeUpdate(n, old *storagev1.CSINode) field.ErrorList {
	var f kinds.Faults
	f.Join(validateCSINode(n))
	for i := range old.Spec.Drivers {
		was := old.Spec.Drivers[i].DeepCopy()
		was.Allocatable = nil
		for j := range n.Spec.Drivers {
			if n.Spec.Drivers[j].Name != was.Name {
				continue
			}
			now := n.Spec.Drivers[j].DeepCopy()
			now.Allocatable = nil
			f.Immutable(kinds.NewPath("spec").Child("drivers"), now, was)
		}
	}
	return f.List()
}
