package admit

import (
	"context"
	"time"

	resourcev1 "k8s.io/api/resource/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/sampan-dev/sampan/control/apiserver/resource"
)

// deviceTaints writes into the taints of devices since when they are there: pods
// tolerate them for a time that begins then. When the effect of a rule's taint
// becomes another the time begins anew, unless its writer says otherwise; upstream
// does that in its defaults and its storage.
type deviceTaints struct {
	Changing
	now func() time.Time
}

// Admit implements resource.Admission.
func (r deviceTaints) Admit(_ context.Context, a *resource.Attributes) error {
	if a.Operation != resource.OpCreate && a.Operation != resource.OpUpdate || a.Target.Subresource != "" {
		return nil
	}
	switch now := a.Object.(type) {
	case *resourcev1.DeviceTaintRule:
		t := &now.Spec.Taint
		r.date(t)
		if old, ok := a.Old.(*resourcev1.DeviceTaintRule); ok && old != nil && t.Effect != old.Spec.Taint.Effect && t.TimeAdded.Equal(old.Spec.Taint.TimeAdded) {
			t.TimeAdded = nil
			r.date(t)
		}
	case *resourcev1.ResourceSlice:
		for i := range now.Spec.Devices {
			for j := range now.Spec.Devices[i].Taints {
				r.date(&now.Spec.Devices[i].Taints[j])
			}
		}
	}
	return nil
}

// date dates a taint that has no date, in whole seconds as it is stored.
func (r deviceTaints) date(t *resourcev1.DeviceTaint) {
	if t.TimeAdded == nil {
		at := metav1.NewTime(r.now().Truncate(time.Second))
		t.TimeAdded = &at
	}
}
