// Package cel compiles and runs the expressions of admission: match conditions of
// webhooks, validations, mutations, messages and audit annotations of policies.
//
// An environment costs tens of milliseconds to make. Each of the few that there
// are is made when it is first needed, once for the whole process, and kept; an
// expression is compiled once for each version of the object that has it. At start
// nothing happens.
//
// Facts: Kubernetes v1.37's CEL environment, which is the published
// k8s.io/apiserver/pkg/cel; the variables that admission declares, their types and
// the cost limits.
package cel

import (
	"fmt"
	"sync"

	celgo "github.com/google/cel-go/cel"
	"github.com/google/cel-go/common/types"
	"github.com/google/cel-go/common/types/ref"
	"k8s.io/apimachinery/pkg/util/version"
	celconfig "k8s.io/apiserver/pkg/apis/cel"
	apiservercel "k8s.io/apiserver/pkg/cel"
	"k8s.io/apiserver/pkg/cel/common"
	"k8s.io/apiserver/pkg/cel/environment"
	"k8s.io/apiserver/pkg/cel/library"
	"k8s.io/apiserver/pkg/cel/mutation"
)

// Upstream's cost limits: what all expressions of one binding, and what all match
// conditions of one webhook or policy, may cost for one request.
const (
	Budget           = int64(celconfig.RuntimeCELCostBudget)
	ConditionsBudget = int64(celconfig.RuntimeCELCostBudgetMatchConditions)
	// MaxMessage bounds the text that a message expression makes, in bytes.
	MaxMessage = celconfig.MaxEvaluatedMessageExpressionSizeBytes
)

// The names that expressions may speak of.
const (
	varObject     = "object"
	varOld        = "oldObject"
	varParams     = "params"
	varRequest    = "request"
	varNamespace  = "namespaceObject"
	varAuthorizer = "authorizer"
	varResource   = "authorizer.requestResource"
	varVariables  = "variables"
)

// Names says which of the names that not every expression knows are declared.
type Names struct {
	// Params, Authorizer declare the variables of these names.
	Params, Authorizer bool
	// Patches declares the types Object… and JSONPatch.
	Patches bool
}

// since is the version of options that have no earlier one.
var since = version.MajorMinor(1, 0)

// base is Kubernetes' environment, without variables.
func base() *environment.EnvSet {
	return environment.MustBaseEnvSet(environment.DefaultCompatibilityVersion())
}

// environments are those without variables of a policy's own, by what they declare.
var environments sync.Map // Names -> func() (*environment.EnvSet, error)

// environmentFor returns the shared environment that declares names.
func environmentFor(names Names) (*environment.EnvSet, error) {
	made, ok := environments.Load(names)
	if !ok {
		made, _ = environments.LoadOrStore(names, sync.OnceValues(func() (*environment.EnvSet, error) {
			return declare(base(), names)
		}))
	}
	return made.(func() (*environment.EnvSet, error))()
}

// declare extends an environment by admission's variables.
func declare(env *environment.EnvSet, names Names) (*environment.EnvSet, error) {
	request, namespace := requestType(), namespaceType()
	options := []celgo.EnvOption{
		celgo.Variable(varObject, celgo.DynType),
		celgo.Variable(varOld, celgo.DynType),
		celgo.Variable(varNamespace, namespace.CelType()),
		celgo.Variable(varRequest, request.CelType()),
	}
	if names.Params {
		options = append(options, celgo.Variable(varParams, celgo.DynType))
	}
	if names.Authorizer {
		options = append(options, celgo.Variable(varAuthorizer, library.AuthorizerType),
			celgo.Variable(varResource, library.ResourceCheckType))
	}
	extended, err := env.Extend(environment.VersionedOptions{IntroducedVersion: since, EnvOptions: options,
		DeclTypes: []*apiservercel.DeclType{namespace, request}}, environment.StrictCostOpt)
	if err == nil && names.Patches {
		// A step of its own: the resolver asks the types declared so far.
		extended, err = extended.Extend(environment.VersionedOptions{IntroducedVersion: since,
			EnvOptions: []celgo.EnvOption{common.ResolverEnvOption(&mutation.DynamicTypeResolver{}), library.JSONPatch()}})
	}
	if err != nil {
		return nil, fmt.Errorf("expressions: extend the environment: %w", err)
	}
	return extended, nil
}

// Result is a type that an expression may come to.
type Result = *celgo.Type

// The results that admission's expressions have.
var (
	Bool   = celgo.BoolType
	String = celgo.StringType
	Null   = celgo.NullType
	Any    = celgo.AnyType
	Object = types.NewObjectType(mutation.ObjectTypeName)
	Patch  = celgo.ListType(types.NewObjectType(mutation.JSONPatchTypeName))
)

// Expression is a compiled text, or the reason why it could not be compiled. It is
// read-only and safe for concurrent use.
type Expression struct {
	Text string
	// Err says why it cannot run; nil when it can.
	Err *apiservercel.Error

	program celgo.Program
	output  *celgo.Type
}

// compile compiles text in env; it must come to one of results.
func compile(env *celgo.Env, text string, results []Result) *Expression {
	ast, issues := env.Compile(text)
	if issues != nil {
		return broken(text, apiservercel.ErrorTypeInvalid, "compilation failed: "+issues.String(), apiservercel.NewCompilationError(issues))
	}
	got := ast.OutputType()
	if !fits(got, results) {
		return broken(text, apiservercel.ErrorTypeInvalid, unfit(got, results), nil)
	}
	program, err := env.Program(ast, celgo.InterruptCheckFrequency(celconfig.CheckFrequency))
	if err != nil {
		return broken(text, apiservercel.ErrorTypeInternal, "program instantiation failed: "+err.Error(), nil)
	}
	return &Expression{Text: text, program: program, output: got}
}

func fits(got *celgo.Type, results []Result) bool {
	for _, want := range results {
		if got.IsExactType(want) || Any.IsExactType(want) {
			return true
		}
	}
	return false
}

func unfit(got *celgo.Type, results []Result) string {
	if len(results) == 1 {
		return fmt.Sprintf("must evaluate to %v but got %v", results[0], got)
	}
	return fmt.Sprintf("must evaluate to one of %v but got %v", results, got)
}

func broken(text string, kind apiservercel.ErrorType, detail string, cause error) *Expression {
	return &Expression{Text: text, Err: &apiservercel.Error{Type: kind, Detail: detail, Cause: cause}}
}

// Value is what an expression comes to.
type Value = ref.Val
