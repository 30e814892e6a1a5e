package node

import (
	corev1 "k8s.io/api/core/v1"
	nodev1 "k8s.io/api/node/v1"
	apivalidate "k8s.io/apimachinery/pkg/api/validate"
	metavalidation "k8s.io/apimachinery/pkg/apis/meta/v1/validation"
	"k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/apimachinery/pkg/util/validation/field"

	"github.com/sampan-dev/sampan/kinds"
	"github.com/sampan-dev/sampan/kinds/core"
	"github.com/sampan-dev/sampan/kinds/declared"
)

func validate(c *nodev1.RuntimeClass) field.ErrorList {
	r := declared.Create()
	declared.Required(r, c, nil, kinds.NewPath("handler"), handler, apivalidate.ShortName[string])
	return r.Behind(check(c))
}

func handler(c *nodev1.RuntimeClass) string { return c.Handler }

func check(c *nodev1.RuntimeClass) field.ErrorList {
	var f kinds.Faults
	if c.Overhead != nil {
		f.Join(core.ValidateOverhead(c.Overhead.PodFixed, kinds.NewPath("overhead")))
	}
	if c.Scheduling == nil {
		return f.List()
	}
	at := kinds.NewPath("scheduling")
	f.Join(metavalidation.ValidateLabels(c.Scheduling.NodeSelector, at.Child("nodeSelector").Field()))
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
	r := declared.Update()
	declared.Field(r, c, old, kinds.NewPath("handler"), handler, func(now, _ string, at *kinds.Path) {
		r.Immutable(at)
		r.NonEmpty(at, now)
	})
	var f kinds.Faults
	if c.Handler == "" {
		f.Required(kinds.NewPath("handler"), "")
	} else {
		f.Each(kinds.NewPath("handler"), c.Handler, validation.IsDNS1123Label(c.Handler))
	}
	f.Join(check(c))
	return r.Behind(f.List())
}
