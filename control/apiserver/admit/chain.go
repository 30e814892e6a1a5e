package admit

import (
	"context"
	"fmt"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/managedfields"

	"github.com/sampan-dev/sampan/control/apiserver/admit/match"
	"github.com/sampan-dev/sampan/control/apiserver/resource"
)

// Rule is one admission rule. One that only changes, or only judges, embeds Changing or
// Judging; one that does more than is wanted of it is wrapped in Changes or Judges.
type Rule interface {
	Admit(ctx context.Context, a *resource.Attributes) error
	Validate(ctx context.Context, a *resource.Attributes) error
}

// half is what a rule is, too, that speaks in one half of admission only. As upstream,
// it is neither asked nor measured in the other.
type half interface{ only() (step int) }

// Changing is the other half of a rule that only changes: it refuses nothing.
type Changing struct{}

// Validate does nothing.
func (Changing) Validate(context.Context, *resource.Attributes) error { return nil }

func (Changing) only() int { return stepAdmit }

// Judging is the other half of a rule that only judges: it changes nothing.
type Judging struct{}

// Admit does nothing.
func (Judging) Admit(context.Context, *resource.Attributes) error { return nil }

func (Judging) only() int { return stepValidate }

// Changes is the half of a rule that changes.
type Changes struct{ Rule }

// Validate does nothing.
func (Changes) Validate(context.Context, *resource.Attributes) error { return nil }

func (Changes) only() int { return stepAdmit }

// Judges is the half of a rule that judges.
type Judges struct{ Rule }

// Admit does nothing.
func (Judges) Admit(context.Context, *resource.Attributes) error { return nil }

func (Judges) only() int { return stepValidate }

// Plugin is a rule under upstream's name, by which it is switched.
type Plugin struct {
	// Name is "" for what is no plugin upstream, but a part of its storage: it
	// cannot be switched off.
	Name string
	Rule
}

// Chain is an ordered list of rules; the first that refuses ends it.
type Chain []Plugin

// Admit lets every rule change the object in turn, and once more if a webhook or
// policy changed what the rules before it had seen. A record of field owners that
// somebody broke on the way is as it was before, with a warning.
func (c Chain) Admit(ctx context.Context, a *resource.Attributes) error {
	return c.change(ctx, a, func(ctx context.Context) error { return c.admit(ctx, a) })
}

// change is Admit with each round of the rules left to round.
func (c Chain) change(ctx context.Context, a *resource.Attributes, round func(context.Context) error) error {
	ctx, rounds := match.WithRounds(ctx)
	obj, tracked := a.Object.(metav1.Object)
	var before []metav1.ManagedFieldsEntry
	if tracked {
		before = obj.GetManagedFields()
	}
	err := round(ctx)
	if err == nil && rounds.Again() {
		err = round(ctx)
	}
	if err != nil || !tracked || !rounds.Touched() {
		return err
	}
	if broken := managedfields.ValidateManagedFields(obj.GetManagedFields()); broken != nil {
		obj.SetManagedFields(before)
		a.Warn(fmt.Sprintf(".metadata.managedFields was in an invalid state after admission; this could be caused by an outdated mutating admission controller; please fix your requests: %v", broken))
	}
	return nil
}

func (c Chain) admit(ctx context.Context, a *resource.Attributes) error {
	for _, rule := range c {
		if err := rule.Admit(ctx, a); err != nil {
			return err
		}
	}
	return nil
}

// Validate lets every rule judge the object as it will be stored.
func (c Chain) Validate(ctx context.Context, a *resource.Attributes) error {
	for _, rule := range c {
		if err := rule.Validate(ctx, a); err != nil {
			return err
		}
	}
	return nil
}
