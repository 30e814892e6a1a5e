package apps

import (
	"encoding/json"
	"fmt"

	appsv1 "k8s.io/api/apps/v1"
	"k8s.io/apimachinery/pkg/util/validation/field"

	"github.com/sampan-dev/sampan/kinds"
)

// validateControllerRevision wants data that is a JSON object.
func validateControllerRevision(r *appsv1.ControllerRevision) field.ErrorList {
	var f kinds.Faults
	f.NonNegative(kinds.NewPath("revision"), r.Revision)
	at := kinds.NewPath("data")
	raw := r.Data.Raw
	if raw == nil && r.Data.Object == nil {
		f.Required(at, "data is mandatory")
		return f.List()
	}
	if raw == nil {
		return f.List()
	}
	var value any
	if err := json.Unmarshal(raw, &value); err != nil {
		f.Invalid(at, "<value omitted>", fmt.Sprintf("error parsing data: %v", err))
		return f.List()
	}
	switch value.(type) {
	case nil:
		f.Required(at, "data is mandatory")
	case map[string]any:
	default:
		f.Required(at, "data must be a valid JSON object")
	}
	return f.List()
}

func validateControllerRevisionUpdate(r, old *appsv1.ControllerRevision) field.ErrorList {
	var f kinds.Faults
	f.NonNegative(kinds.NewPath("revision"), r.Revision)
	f.Immutable(kinds.NewPath("data"), r.Data, old.Data)
	return f.List()
}
