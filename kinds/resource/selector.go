package resource

import (
	"errors"

	resourcev1 "k8s.io/api/resource/v1"
	"k8s.io/apimachinery/pkg/util/validation/field"
	apiservercel "k8s.io/apiserver/pkg/cel"
	"k8s.io/apiserver/pkg/cel/environment"
	"k8s.io/dynamic-resource-allocation/cel"

	"github.com/sampan-dev/sampan/kinds"
)

// selectors must compile, as expressions about one device, and cost no more in the
// worst case than the scheduler spends on one.
// Those that were stored before are not compiled again.
func selectors(f *kinds.Faults, all []resourcev1.DeviceSelector, at *kinds.Path, stored bool) {
	few(f, all, resourcev1.DeviceSelectorsMaxSize, at, func(s *resourcev1.DeviceSelector, here *kinds.Path) {
		if s.CEL == nil {
			f.Required(here.Child("cel"), "")
			return
		}
		if stored {
			return
		}
		expression(f, s.CEL.Expression, here.Child("cel").Child("expression"))
	})
}

// expression is compiled in the environment of new expressions. The environment is
// made on first use and kept for the process by the library.
func expression(f *kinds.Faults, text string, at *kinds.Path) {
	if len(text) > resourcev1.CELSelectorExpressionMaxLength {
		f.TooLong(at, resourcev1.CELSelectorExpressionMaxLength)
		return
	}
	where := environment.NewExpressions
	got := cel.GetCompiler(cel.Features{EnableConsumableCapacity: true}).CompileCELExpression(text, cel.Options{EnvType: &where})
	if got.Error == nil {
		if got.MaxCost > resourcev1.CELSelectorExpressionMaxCost {
			f.Forbidden(at, "too complex, exceeds cost limit")
		}
		return
	}
	switch got.Error.Type {
	case apiservercel.ErrorTypeRequired:
		f.Required(at, got.Error.Detail)
	case apiservercel.ErrorTypeInvalid:
		f.Invalid(at, text, got.Error.Detail)
	default:
		f.Join(field.ErrorList{field.InternalError(at.Field(), errors.New(got.Error.Detail))})
	}
}
