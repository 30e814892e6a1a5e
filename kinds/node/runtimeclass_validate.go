package node

import (
	nodev1 "k8s.io/api/node/v1"
	metavalidation "k8s.io/apimachinery/pkg/apis/meta/v1/validation"
	"k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/apimachinery/pkg/util/validation/field"

	corev1 "k8s.io/api/core/v1"

	"github.com/sampan-dev/sampan/kinds"
	"github.com/sampan-dev/sampan/kinds/core"
)

func validate(c *nodev1.RuntimeClass) field.ErrorList {
	var f kinds.Faults
	if f.NonEmpty(field.NewPath("handler"), c.Handler) {
		f.Each(field.NewPath("handler"), c.Handler, validation.IsDNS1123Label(c.Handler))
	}
	if c.Overhead != nil {
		f.Join(core.ValidateOverhead(c.Overhead.PodFixed, field.NewPath("overhead")))
	}
	if c.Scheduling == nil {
		return f.List()
	}
	at := field.NewPath("scheduling")
	f.Join(metavalidation.ValidateLabels(c.Scheduling.NodeSelector, at.Child("nodeSelector")))
	f.Join(core.ValidateTolerations(c.Scheduling.Tolerations, at.Child("tolerations")))
	seen := map[corev1.Toleration]bool{}
	for i, t := range c.Scheduling.Tolerations {
		key := corev1.Toleration{Key: t.Key, Operator: t.Operator, Value: t.Value, Effect: t.Effect}
		if seen[key] {
			f.Duplicate(at.Child("tolerations").Index(i), t)
		}
		seen[key] = true
	}
	return f.List()
}

func validateUpdate(c, old *nodev1.RuntimeClass) field.ErrorList {
	return append(validate(c), kinds.Immutable(c.Handler, old.Handler, field.NewPath("handler"))...)
}
