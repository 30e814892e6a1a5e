package resource

import (
	"fmt"
	"slices"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/labels"

	"github.com/sampan-dev/sampan/kinds"
)

// selector is which objects of a collection a list or watch is about.
type selector struct {
	kind   *kinds.Kind
	labels labels.Selector
	fields fields.Selector
}

// selector reads the request's label and field selectors. A name in the target
// is one more condition.
func (c *call) selector() (selector, error) {
	sel := selector{kind: c.kind, labels: labels.Everything(), fields: fields.Everything()}
	var err error
	if text := c.req.List.LabelSelector; text != "" {
		if sel.labels, err = labels.Parse(text); err != nil {
			return sel, apierrors.NewBadRequest(err.Error())
		}
	}
	if text := c.req.List.FieldSelector; text != "" {
		if sel.fields, err = fields.ParseSelector(text); err != nil {
			return sel, apierrors.NewBadRequest(err.Error())
		}
		if sel.fields, err = sel.fields.Transform(c.knownField); err != nil {
			return sel, apierrors.NewBadRequest(err.Error())
		}
	}
	name := c.req.Target.Name
	if name == "" {
		return sel, nil
	}
	if asked, ok := sel.fields.RequiresExactMatch("metadata.name"); ok && asked != name {
		return sel, apierrors.NewBadRequest("fieldSelector metadata.name doesn't match requested name")
	}
	sel.fields = fields.AndSelectors(sel.fields, fields.OneTermEqualSelector("metadata.name", name))
	return sel, nil
}

// knownField refuses labels that the kind does not have, and gives those that go
// by an older name their own.
func (c *call) knownField(label, value string) (string, string, error) {
	if own, ok := c.kind.FieldAliases[label]; ok {
		return own, value, nil
	}
	plain := c.kind.Fields == nil
	switch {
	case label == "metadata.name", label == "metadata.namespace" && (c.kind.Namespaced || plain):
		return label, value, nil
	case slices.Contains(c.kind.FieldLabels, label):
		return label, value, nil
	case plain:
		return "", "", fmt.Errorf("%q is not a known field selector: only \"metadata.name\", \"metadata.namespace\"", label)
	case c.kind.FieldRefusal != "":
		return "", "", fmt.Errorf(c.kind.FieldRefusal, label)
	}
	return "", "", fmt.Errorf("field label not supported: %s", label)
}

// all says that every object is selected.
func (s selector) all() bool { return s.labels.Empty() && s.fields.Empty() }

func (s selector) matches(obj kinds.Object) bool {
	return s.matchesSets(obj.GetLabels(), fieldSet(s.kind, obj))
}

func (s selector) matchesSets(l labels.Set, f fields.Set) bool {
	return (s.labels.Empty() || s.labels.Matches(l)) && (s.fields.Empty() || s.fields.Matches(f))
}
