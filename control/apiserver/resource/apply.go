package resource

import (
	"errors"
	"fmt"
	"net/http"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"
	kjson "sigs.k8s.io/json"
	"sigs.k8s.io/yaml"

	"github.com/sampan-dev/sampan/kinds"
)

// applied is server-side apply: the fields of the configuration are the manager's
// from now on, those that it no longer names go unless others own them too, and
// fields that others own with another value are conflicts.
func (c *call) applied(old kinds.Object) (runtime.Object, error) {
	wanted, err := c.configuration()
	if err != nil {
		return nil, err
	}
	m, err := c.fieldManager()
	if err != nil {
		return nil, apierrors.NewInternalError(err)
	}
	live := c.rules().empty()
	if old != nil {
		live = old.DeepCopyObject().(kinds.Object)
	}
	force := c.req.Patch.Force != nil && *c.req.Patch.Force
	out, err := m.Apply(live, wanted, c.req.Patch.FieldManager, force)
	if err != nil {
		var known apierrors.APIStatus
		if errors.As(err, &known) {
			return nil, err
		}
		return nil, plainStatus(http.StatusInternalServerError, metav1.StatusReasonUnknown, err.Error())
	}
	return out, nil
}

// applies says that the request is a server-side apply, in either form.
func (c *call) applies() bool {
	return c.req.PatchType == types.ApplyYAMLPatchType || c.req.PatchType == types.ApplyCBORPatchType
}

// configuration reads what the client applies.
func (c *call) configuration() (*unstructured.Unstructured, error) {
	if c.req.PatchType == types.ApplyCBORPatchType {
		return configurationInCBOR(c.req.PatchData)
	}
	wanted := &unstructured.Unstructured{Object: map[string]any{}}
	data, err := yaml.YAMLToJSON(c.req.PatchData)
	if err != nil {
		return nil, apierrors.NewBadRequest(fmt.Sprintf("error decoding patch: error converting YAML to JSON: %v", err))
	}
	err = kjson.UnmarshalCaseSensitivePreserveInts(data, &wanted.Object) // whole numbers stay whole
	if err != nil {
		return nil, apierrors.NewBadRequest(fmt.Sprintf("error decoding patch: error unmarshaling JSON: while decoding JSON: %v", err))
	}
	if wanted.Object == nil {
		wanted.Object = map[string]any{}
	}
	if c.strictness() == metav1.FieldValidationIgnore {
		return wanted, nil
	}
	if err := yaml.UnmarshalStrict(c.req.PatchData, &map[string]any{}); err != nil {
		if c.strictness() == metav1.FieldValidationStrict {
			return nil, apierrors.NewBadRequest(fmt.Sprintf("error strict decoding patch: %v", err))
		}
		warnStrict(c.req, err)
	}
	return wanted, nil
}
