package admissionregistration

import (
	"slices"
	"strings"

	admissionv1 "k8s.io/api/admissionregistration/v1"
	"k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/apimachinery/pkg/util/validation/field"

	"github.com/sampan-dev/sampan/kinds"
)

// Use is where an expression stands: it decides what the expression may speak of
// and what it must come to.
type Use int

// The uses of expressions.
const (
	UseCondition Use = iota
	UseVariable
	UseValidation
	UseMessage
	UseAnnotation
	UseApplyConfiguration
	UseJSONPatch
)

// Compiler checks the expressions of one object after the other.
type Compiler interface {
	// Policy begins an object: params says that its expressions may speak of
	// params, variables that they may speak of the variables checked before them.
	Policy(params, variables bool) Scope
}

// Scope checks the expressions of one object.
type Scope interface {
	// Variable checks a variable and makes it known to what follows.
	Variable(at *kinds.Path, name, text string, stored bool) *field.Error
	// Check tells what is wrong with an expression, nil if nothing is. stored
	// says that the object had this very expression before.
	Check(at *kinds.Path, use Use, text string, stored bool) *field.Error
}

// maxConditions bounds the match conditions of one webhook or policy.
const maxConditions = 64

// texts are expressions that an object had before.
type texts map[string]bool

// expressions is the validation of one object's expressions.
type expressions struct {
	*kinds.Faults
	compiler Compiler
	// plain has no variables, full has.
	plain, full Scope
}

// newExpressions begins an object's expressions; without a compiler only their
// presence is checked.
func newExpressions(f *kinds.Faults, compiler Compiler, params, variables bool) *expressions {
	e := &expressions{Faults: f, compiler: compiler}
	if compiler != nil {
		e.plain = compiler.Policy(params, false)
		e.full = e.plain
		if variables {
			e.full = compiler.Policy(params, true)
		}
	}
	return e
}

func (e *expressions) add(err *field.Error) {
	if err != nil {
		e.Join(field.ErrorList{err})
	}
}

// check compiles an expression that may speak of variables.
func (e *expressions) check(at *kinds.Path, use Use, text string, stored bool) {
	if e.full != nil {
		e.add(e.full.Check(at, use, text, stored))
	}
}

// conditions checks match conditions, which know no variables.
func (e *expressions) conditions(at *kinds.Path, all []admissionv1.MatchCondition, had texts) {
	if len(all) > maxConditions {
		e.TooMany(at, len(all), maxConditions)
	}
	names := map[string]bool{}
	for i, c := range all {
		here := at.Index(i)
		text := strings.TrimSpace(c.Expression)
		switch {
		case text == "":
			e.Required(here.Child("expression"), "")
		case e.plain != nil:
			e.add(e.plain.Check(here.Child("expression"), UseCondition, text, had[text]))
		}
		if !e.NonEmpty(here.Child("name"), c.Name) {
			continue
		}
		e.Each(here.Child("name"), c.Name, validation.IsQualifiedName(c.Name))
		if names[c.Name] {
			e.Duplicate(here.Child("name"), c.Name)
		}
		names[c.Name] = true
	}
}

// variables checks a policy's variables in their order.
func (e *expressions) variables(at *kinds.Path, all []admissionv1.Variable, had texts) {
	for i, v := range all {
		here := at.Index(i)
		switch {
		case strings.TrimSpace(v.Name) == "":
			e.Required(here.Child("name"), "name is not specified")
		case !isIdentifier(v.Name):
			e.Invalid(here.Child("name"), v.Name, "must be a valid CEL identifier")
		}
		switch {
		case strings.TrimSpace(v.Expression) == "":
			e.Required(here.Child("expression"), "expression is not specified")
		case e.full != nil:
			e.add(e.full.Variable(here.Child("expression"), v.Name, v.Expression, had[v.Expression]))
		}
	}
}

// reserved are the words of CEL.
var reserved = strings.Fields("true false null in as break const continue else for function if import let " +
	"loop package namespace return var void while")

func isIdentifier(name string) bool {
	for i, c := range []byte(name) {
		letter := c == '_' || c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z'
		if !letter && (i == 0 || c < '0' || c > '9') {
			return false
		}
	}
	return name != "" && !slices.Contains(reserved, name)
}

// conditionTexts are the expressions of match conditions.
func conditionTexts(into texts, all []admissionv1.MatchCondition) texts {
	for _, c := range all {
		into[c.Expression] = true
	}
	return into
}
