package resource

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/util/managedfields"

	"github.com/sampan-dev/sampan/internal/identity"
	"github.com/sampan-dev/sampan/internal/target"
	"github.com/sampan-dev/sampan/kinds"
)

// Access is the question an Authorizer answers: may this user do this to that?
type Access struct {
	User identity.Identity
	// Verb is upstream's: get, list, watch, create, update, patch, delete,
	// deletecollection.
	Verb   string
	Target target.Target
	// LabelSelector and FieldSelector are those of a list, watch or
	// deletecollection.
	LabelSelector, FieldSelector string
}

// Authorizer decides. The reason is told to the user when the answer is no; an
// error means that no answer could be found, which also refuses.
type Authorizer interface {
	Authorize(ctx context.Context, a Access) (allowed bool, reason string, err error)
}

// Admission is the last word on a write before it is validated (Admit, which may
// change Attributes.Object) and before it is stored (Validate, which may not).
// Errors that are no API status become 403 Forbidden.
type Admission interface {
	Admit(ctx context.Context, a *Attributes) error
	Validate(ctx context.Context, a *Attributes) error
}

// Operation is what admission is told a write does.
type Operation string

// The operations, in upstream's words.
const (
	OpCreate  Operation = "CREATE"
	OpUpdate  Operation = "UPDATE"
	OpDelete  Operation = "DELETE"
	OpConnect Operation = "CONNECT"
)

// Attributes describe one write to admission.
type Attributes struct {
	Operation Operation
	Target    target.Target
	GVK       schema.GroupVersionKind
	// Object is nil for a delete; Old is nil for a create. Old is shared: read only.
	Object, Old runtime.Object
	User        identity.Identity
	DryRun      bool
	// Options is *metav1.CreateOptions, UpdateOptions or DeleteOptions.
	Options runtime.Object
	// Warn shows the user a warning; never nil.
	Warn func(text string)
}

// Forbidden is the 403 that refuses the write. What has no name yet goes by the prefix
// of the one that it would get.
func (a *Attributes) Forbidden(err error) *apierrors.StatusError {
	name := a.Target.Name
	if obj, ok := a.Object.(metav1.Object); ok && name == "" {
		name = cmp.Or(obj.GetName(), obj.GetGenerateName())
	}
	return apierrors.NewForbidden(a.Target.Resource.GroupResource(), cmp.Or(name, "Unknown"), err)
}

type admitAll struct{}

func (admitAll) Admit(context.Context, *Attributes) error    { return nil }
func (admitAll) Validate(context.Context, *Attributes) error { return nil }

// authorize asks whether the request's user may do verb to the request's target.
func (c *call) authorize(ctx context.Context, verb string) error {
	r := c.req
	at := r.Target
	if !c.kind.Namespaced && c.gvr.Resource == "namespaces" && c.gvr.Group == "" {
		at.Namespace = at.Name // a role in a namespace may speak of the namespace itself
	}
	allowed, reason, err := c.server.cfg.Authorizer.Authorize(ctx, Access{
		User:          r.User,
		Verb:          verb,
		Target:        at,
		LabelSelector: r.List.LabelSelector,
		FieldSelector: r.List.FieldSelector,
	})
	if allowed {
		return nil
	}
	if errors.Is(err, context.DeadlineExceeded) { // nobody has said no
		return interpret(fmt.Errorf("authorize: %w", err), c.gvr.GroupResource(), r.Target.Name)
	}
	if err != nil && reason == "" {
		reason = err.Error()
	}
	return forbidden(r.User, verb, at, reason)
}

// forbidden is upstream's sentence for a refused request.
func forbidden(who identity.Identity, verb string, t target.Target, reason string) error {
	gr := t.Resource.GroupResource()
	what := gr.Resource
	if t.Subresource != "" {
		what += "/" + t.Subresource
	}
	where := "at the cluster scope"
	if t.Namespace != "" {
		where = fmt.Sprintf("in the namespace %q", t.Namespace)
	}
	text := fmt.Sprintf("User %q cannot %s resource %q in API group %q %s",
		who.Name, verb, what, gr.Group, where)
	if reason != "" {
		text += ": " + reason
	}
	return apierrors.NewForbidden(gr, t.Name, errors.New(text))
}

// attributes describe the call's write; the verb's options are added.
func (c *call) attributes(op Operation, obj, old kinds.Object) *Attributes {
	a := &Attributes{
		Operation: op,
		Target:    c.req.Target,
		GVK:       c.gvk(),
		User:      c.req.User,
		DryRun:    c.req.dryRun(),
		Options:   c.req.options(op),
		Warn:      c.req.warn,
	}
	if a.Target.Name == "" && obj != nil {
		a.Target.Name = obj.GetName()
	}
	if obj != nil {
		a.Object = obj
	}
	if old != nil {
		a.Old = old
	}
	return a
}

// admit runs the changing half of admission.
func (c *call) admit(ctx context.Context, a *Attributes) error {
	if c.trusted {
		return nil
	}
	obj, ok := a.Object.(metav1.Object)
	if !ok {
		return asForbidden(a, c.server.cfg.Admission.Admit(ctx, a))
	}
	owners := slices.Clone(obj.GetManagedFields())
	if err := c.server.cfg.Admission.Admit(ctx, a); err != nil {
		return asForbidden(a, err)
	}
	if sameOwners(obj.GetManagedFields(), owners) {
		return nil // they could be read before
	}
	if err := managedfields.ValidateManagedFields(obj.GetManagedFields()); err != nil {
		obj.SetManagedFields(owners)
		c.req.warn(fmt.Sprintf(brokenOwners, err))
	}
	return nil
}

// brokenOwners is told when admission left a record of field owners that nobody
// can read; the record from before is then kept.
const brokenOwners = ".metadata.managedFields was in an invalid state after admission; this could be caused by an outdated mutating admission controller; please fix your requests: %v"

// validate runs the judging half of admission.
func (c *call) validate(ctx context.Context, a *Attributes) error {
	if c.trusted {
		return nil
	}
	return asForbidden(a, c.server.cfg.Admission.Validate(ctx, a))
}

func asForbidden(a *Attributes, err error) error {
	if err == nil {
		return nil
	}
	var status apierrors.APIStatus
	if errors.As(err, &status) {
		return err
	}
	return a.Forbidden(err)
}
