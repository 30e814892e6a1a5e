package storage

import (
	"strings"
	"time"

	storagev1 "k8s.io/api/storage/v1"
	"k8s.io/apimachinery/pkg/runtime"

	"github.com/sampan-dev/sampan/kinds"
)

// CSIDriver is the kind by which a driver says how it wants to be treated.
func CSIDriver() *kinds.Kind {
	return &kinds.Kind{
		GVK:      storagev1.SchemeGroupVersion.WithKind("CSIDriver"),
		Resource: "csidrivers",
		Singular: "csidriver",
		Storage:  "csidrivers",
		New:      func() kinds.Object { return &storagev1.CSIDriver{} },
		NewList:  func() runtime.Object { return &storagev1.CSIDriverList{} },
		Strategy: kinds.Strategy{
			ReturnsDeleted:            true,
			ForbidUnconditionalUpdate: true,
			Default:                   kinds.Each(defaultCSIDriver),
			PrepareUpdate: kinds.Pair(func(d, old *storagev1.CSIDriver) {
				kinds.NextGeneration(d, old, !kinds.Same(d.Spec, old.Spec))
			}),
			Validate:       kinds.Check(validateCSIDriver),
			ValidateUpdate: kinds.CheckUpdate(validateCSIDriverUpdate),
			Warnings:       kinds.Warn(warnCSIDriver),
		},
		Table: kinds.Table{
			Columns: kinds.Explained(csiDriverTexts(), "Name", "AttachRequired|boolean", "PodInfoOnMount|boolean", "StorageCapacity|boolean",
				"TokenRequests", "RequiresRepublish|boolean", "Modes", "Age"),
			Row: kinds.Row(csiDriverRow),
		},
	}
}

func defaultCSIDriver(d *storagev1.CSIDriver) {
	s := &d.Spec
	for _, flag := range []struct {
		at    **bool
		value bool
	}{
		{&s.AttachRequired, true}, {&s.PodInfoOnMount, false}, {&s.StorageCapacity, false},
		{&s.RequiresRepublish, false}, {&s.SELinuxMount, false}, {&s.PreventPodSchedulingIfMissing, false},
	} {
		if *flag.at == nil {
			*flag.at = &flag.value
		}
	}
	if s.FSGroupPolicy == nil {
		policy := storagev1.ReadWriteOnceWithFSTypeFSGroupPolicy
		s.FSGroupPolicy = &policy
	}
	if len(s.VolumeLifecycleModes) == 0 {
		s.VolumeLifecycleModes = []storagev1.VolumeLifecycleMode{storagev1.VolumeLifecyclePersistent}
	}
}

func csiDriverRow(d *storagev1.CSIDriver, now time.Time) []any {
	modes := make([]string, 0, len(d.Spec.VolumeLifecycleModes))
	for _, mode := range d.Spec.VolumeLifecycleModes {
		modes = append(modes, string(mode))
	}
	shown := strings.Join(modes, ",")
	if shown == "" {
		shown = kinds.None
	}
	tokens := kinds.Unset
	if d.Spec.TokenRequests != nil {
		audiences := make([]string, 0, len(d.Spec.TokenRequests))
		for _, t := range d.Spec.TokenRequests {
			audiences = append(audiences, t.Audience)
		}
		tokens = strings.Join(audiences, ",")
	}
	attach := d.Spec.AttachRequired == nil || *d.Spec.AttachRequired
	return []any{d.Name, attach, kinds.Deref(d.Spec.PodInfoOnMount), kinds.Deref(d.Spec.StorageCapacity),
		tokens, kinds.Deref(d.Spec.RequiresRepublish), shown, kinds.Created(d, now)}
}
