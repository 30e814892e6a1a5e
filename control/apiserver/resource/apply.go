package resource

import (
	"errors"
	"fmt"
	"net/http"

	jsonpatch "gopkg.in/evanphx/json-patch.v4"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
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
	sub := ""
	if c.sub != nil {
		sub = c.sub.Name
	}
	m, err := c.server.fields.of(c.kind, sub)
	if err != nil {
		return nil, apierrors.NewInternalError(err)
	}
	live := kindRules{c.kind}.empty()
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

// configuration reads what the client applies.
func (c *call) configuration() (*unstructured.Unstructured, error) {
	wanted := &unstructured.Unstructured{Object: map[string]any{}}
	if err := yaml.Unmarshal(c.req.PatchData, &wanted.Object); err != nil {
		return nil, apierrors.NewBadRequest(fmt.Sprintf("error decoding patch: %v", err))
	}
	if c.strictness() == metav1.FieldValidationIgnore {
		return wanted, nil
	}
	if err := yaml.UnmarshalStrict(c.req.PatchData, &map[string]any{}); err != nil {
		if c.strictness() == metav1.FieldValidationStrict {
			return nil, apierrors.NewBadRequest(fmt.Sprintf("error strict decoding patch: %v", err))
		}
		c.req.warn(err.Error())
	}
	return wanted, nil
}

// appliedAsMerge applies a configuration to a subresource of another kind
// (scale) as a merge patch. The parent's owners are tracked as for an update.
func (c *call) appliedAsMerge(current runtime.Object) (runtime.Object, error) {
	wanted, err := c.configuration()
	if err != nil {
		return nil, err
	}
	before, err := encode(c.server.codec.json, current)
	if err != nil {
		return nil, apierrors.NewInternalError(err)
	}
	change, err := encode(c.server.codec.json, wanted)
	if err != nil {
		return nil, apierrors.NewBadRequest(err.Error())
	}
	after, err := jsonpatch.MergePatch(before, change)
	if err != nil {
		return nil, apierrors.NewBadRequest(err.Error())
	}
	into := c.newBody()
	out, _, _, err := c.server.codec.decode(after, mediaJSON, c.gvk(), into, false)
	if err != nil {
		return nil, badPatch(string(after), err)
	}
	return out, nil
}
