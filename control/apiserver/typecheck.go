package apiserver

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"strings"

	admissionregistrationv1 "k8s.io/api/admissionregistration/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/kube-openapi/pkg/validation/spec"

	"github.com/sampan-dev/sampan/control/apiserver/admit/follow"
	"github.com/sampan-dev/sampan/control/apiserver/cel"
	"github.com/sampan-dev/sampan/control/apiserver/resource"
	"github.com/sampan-dev/sampan/internal/identity"
	"github.com/sampan-dev/sampan/internal/target"
)

// typeChecker is who writes what is wrong with a policy's expressions into its
// status: upstream's controller of that name. It lives here since the schemas do.
var typeChecker = identity.ServiceAccount(metav1.NamespaceSystem, "validatingadmissionpolicy-status-controller", "")

// typeCheckManager owns the fields of that status.
const typeCheckManager = "validatingadmissionpolicy-status"

// maxTypesChecked bounds the kinds against which one rule of a policy is checked:
// upstream's number.
const maxTypesChecked = 10

// checkTypes looks at each generation of each validating policy once, until ctx
// ends: its expressions are compiled against the schemas of the kinds that it is
// about, and what is wrong is written into its status. It never changes what the
// policy does.
func (s *Server) checkTypes(ctx context.Context) error {
	at := target.Of(admissionregistrationv1.SchemeGroupVersion.WithResource("validatingadmissionpolicies"), "")
	if !s.served(at.Resource) {
		return nil
	}
	select {
	case <-s.ready:
	case <-ctx.Done():
		return context.Cause(ctx)
	}
	seen := follow.New[*admissionregistrationv1.ValidatingAdmissionPolicy](s.own, at, s.cfg.Log)
	as := s.resources.Local(typeChecker, typeCheckManager)
	seen.Changed = func(all []*admissionregistrationv1.ValidatingAdmissionPolicy) {
		for _, p := range all {
			if p.Generation <= p.Status.ObservedGeneration || p.DeletionTimestamp != nil {
				continue
			}
			if err := s.writeTypeCheck(ctx, as, p); err != nil && !apierrors.IsNotFound(err) && ctx.Err() == nil {
				s.cfg.Log.Warn("check the types of a policy", "policy", p.Name, "error", err)
			}
		}
	}
	return seen.Run(ctx)
}

// writeTypeCheck applies the status of one policy.
func (s *Server) writeTypeCheck(ctx context.Context, as *resource.Local, p *admissionregistrationv1.ValidatingAdmissionPolicy) error {
	apply := map[string]any{
		"apiVersion": admissionregistrationv1.SchemeGroupVersion.String(), "kind": "ValidatingAdmissionPolicy",
		"metadata": map[string]any{"name": p.Name, "uid": p.UID},
		"status": map[string]any{
			"observedGeneration": p.Generation,
			"typeChecking":       &admissionregistrationv1.TypeChecking{ExpressionWarnings: s.typeWarnings(p)},
		},
	}
	raw, err := json.Marshal(apply)
	if err != nil {
		return fmt.Errorf("encode the status of policy %q: %w", p.Name, err)
	}
	at := target.Of(admissionregistrationv1.SchemeGroupVersion.WithResource("validatingadmissionpolicies"), "").Object(p.Name).Sub("status")
	force := true
	_, err = as.Patch(ctx, at, types.ApplyPatchType, raw, metav1.PatchOptions{FieldManager: typeCheckManager, Force: &force})
	return err
}

// typedKind is a kind against which a policy is checked.
type typedKind struct {
	gvk    schema.GroupVersionKind
	typing *cel.Typing
}

// typeWarnings are upstream's: for each expression one, with a paragraph for each
// kind that it does not fit.
func (s *Server) typeWarnings(p *admissionregistrationv1.ValidatingAdmissionPolicy) (warnings []admissionregistrationv1.ExpressionWarning) {
	kinds := s.typings(p)
	check := func(field, text string) {
		var all []string
		for _, k := range kinds {
			if err := k.typing.Check(text); err != nil {
				all = append(all, fmt.Sprintf("%v: %s\n", k.gvk, err))
			}
		}
		if len(all) > 0 {
			warnings = append(warnings, admissionregistrationv1.ExpressionWarning{FieldRef: field, Warning: strings.Join(all, "\n")})
		}
	}
	for i, v := range p.Spec.Validations {
		check(fmt.Sprintf("spec.validations[%d].expression", i), v.Expression)
		if v.MessageExpression != "" {
			check(fmt.Sprintf("spec.validations[%d].messageExpression", i), v.MessageExpression)
		}
	}
	return warnings
}

// typings are the kinds that the policy names, without wildcards, and whose schemas
// are known.
func (s *Server) typings(p *admissionregistrationv1.ValidatingAdmissionPolicy) (out []typedKind) {
	var params *spec.Schema
	if k := p.Spec.ParamKind; k != nil {
		params = s.wholeSchema(schema.FromAPIVersionAndKind(k.APIVersion, k.Kind))
	}
	for _, gvk := range s.namedKinds(p) {
		object := s.wholeSchema(gvk)
		if object == nil {
			continue
		}
		typing, err := cel.NewTyping(object, params, p.Spec.ParamKind != nil, p.Spec.Variables)
		if err != nil {
			s.cfg.Log.Warn("types of a policy", "policy", p.Name, "kind", gvk, "error", err)
			continue
		}
		out = append(out, typedKind{gvk, typing})
	}
	return out
}

func (s *Server) wholeSchema(gvk schema.GroupVersionKind) *spec.Schema {
	k, ok := s.resources.KindOf(gvk)
	if !ok {
		return nil
	}
	whole, err := s.schemas.Whole(k)
	if err != nil {
		s.cfg.Log.Warn("schema for type checks", "kind", gvk, "error", err)
	}
	return whole
}

func (s *Server) namedKinds(p *admissionregistrationv1.ValidatingAdmissionPolicy) (out []schema.GroupVersionKind) {
	if p.Spec.MatchConstraints == nil {
		return nil
	}
	for _, rule := range p.Spec.MatchConstraints.ResourceRules {
		count := 0
		for _, gvr := range resourcesOf(&rule.Rule) {
			k, ok := s.resources.Kind(gvr)
			if !ok {
				continue
			}
			if !slices.Contains(out, k.GVK) {
				out = append(out, k.GVK)
			}
			if count++; count == maxTypesChecked {
				break
			}
		}
	}
	slices.SortFunc(out, func(a, b schema.GroupVersionKind) int {
		return strings.Compare(a.Group+"\x00"+a.Version+"\x00"+a.Kind, b.Group+"\x00"+b.Version+"\x00"+b.Kind)
	})
	return out
}

// resourcesOf are those that a rule names; none when a group or version is a
// wildcard. Wildcards and subresources among the resources are left out.
func resourcesOf(rule *admissionregistrationv1.Rule) (out []schema.GroupVersionResource) {
	wild := func(s string) bool { return strings.Contains(s, "*") }
	if slices.ContainsFunc(rule.APIGroups, wild) || slices.ContainsFunc(rule.APIVersions, wild) {
		return nil
	}
	for _, group := range slices.Sorted(slices.Values(rule.APIGroups)) {
		for _, version := range slices.Sorted(slices.Values(rule.APIVersions)) {
			for _, res := range slices.Sorted(slices.Values(rule.Resources)) {
				if !strings.ContainsAny(res, "*/") {
					out = append(out, schema.GroupVersionResource{Group: group, Version: version, Resource: res})
				}
			}
		}
	}
	return out
}
