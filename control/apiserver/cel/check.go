package cel

import (
	celgo "github.com/google/cel-go/cel"
	"k8s.io/apimachinery/pkg/util/validation/field"
	apiservercel "k8s.io/apiserver/pkg/cel"

	"github.com/sampan-dev/sampan/kinds"
	"github.com/sampan-dev/sampan/kinds/admissionregistration"
)

// Checker compiles expressions to tell what is wrong with them, for the validation
// of the objects that have them. The zero value is ready.
type Checker struct{}

// Policy begins an object.
func (Checker) Policy(params, variables bool) admissionregistration.Scope {
	return &checkScope{params: params, scope: NewScope(variables)}
}

type checkScope struct {
	params bool
	scope  *Scope
}

// Variable checks a variable and makes it known to what follows.
func (s *checkScope) Variable(at *kinds.Path, name, text string, stored bool) *field.Error {
	return s.tell(at, s.scope.Variable(name, text, Names{Params: s.params, Authorizer: true}, stored))
}

// Check tells what is wrong with an expression.
func (s *checkScope) Check(at *kinds.Path, use admissionregistration.Use, text string, stored bool) *field.Error {
	names := Names{Params: s.params, Authorizer: true}
	var results []*celgo.Type
	switch use {
	case admissionregistration.UseCondition, admissionregistration.UseValidation:
		results = []*celgo.Type{Bool}
	case admissionregistration.UseMessage:
		names.Authorizer, results = false, []*celgo.Type{String}
	case admissionregistration.UseAnnotation:
		results = []*celgo.Type{String, Null}
	case admissionregistration.UseApplyConfiguration:
		names.Patches, results = true, []*celgo.Type{Object}
	case admissionregistration.UseJSONPatch:
		names.Patches, results = true, []*celgo.Type{Patch}
	}
	return s.tell(at, s.scope.Compile(text, names, stored, results...))
}

func (s *checkScope) tell(at *kinds.Path, e *Expression) *field.Error {
	if e.Err == nil {
		return nil
	}
	switch e.Err.Type {
	case apiservercel.ErrorTypeRequired:
		return field.Required(at.Field(), e.Err.Detail)
	case apiservercel.ErrorTypeInvalid:
		return field.Invalid(at.Field(), e.Text, e.Err.Detail)
	}
	return field.InternalError(at.Field(), e.Err)
}
