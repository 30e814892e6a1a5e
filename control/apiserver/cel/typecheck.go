package cel

import (
	"fmt"

	celgo "github.com/google/cel-go/cel"
	admissionregistrationv1 "k8s.io/api/admissionregistration/v1"
	apiservercel "k8s.io/apiserver/pkg/cel"
	"k8s.io/apiserver/pkg/cel/common"
	"k8s.io/apiserver/pkg/cel/environment"
	"k8s.io/apiserver/pkg/cel/library"
	"k8s.io/apiserver/pkg/cel/openapi"
	"k8s.io/kube-openapi/pkg/validation/spec"
)

// Typing compiles the expressions of one policy against the schema of one kind of
// object. It is for one goroutine.
type Typing struct{ env *environment.EnvSet }

// NewTyping takes the schema of the objects, references put in, and that of the
// params, nil where it is not known; hasParams says that the policy has params. A
// variable that does not compile is of any type: whoever uses it is not blamed.
func NewTyping(object, params *spec.Schema, hasParams bool, variables []admissionregistrationv1.Variable) (*Typing, error) {
	request, namespace := requestType(), namespaceType()
	objectType, paramsType := typeOf(object, "Object"), typeOf(params, "Params")
	fields := apiservercel.NewObjectType(variablesType, map[string]*apiservercel.DeclField{})
	types := []*apiservercel.DeclType{namespace, request, fields}
	options := []celgo.EnvOption{
		celgo.Variable(varNamespace, namespace.CelType()), celgo.Variable(varRequest, request.CelType()),
		celgo.Variable(varObject, celTypeOf(objectType)), celgo.Variable(varOld, celTypeOf(objectType)),
		celgo.Variable(varAuthorizer, library.AuthorizerType), celgo.Variable(varVariables, fields.CelType()),
	}
	if objectType != nil {
		types = append(types, objectType)
	}
	if hasParams {
		options = append(options, celgo.Variable(varParams, celTypeOf(paramsType)))
		if paramsType != nil {
			types = append(types, paramsType)
		}
	}
	env, err := base().Extend(environment.VersionedOptions{IntroducedVersion: since, EnvOptions: options, DeclTypes: types})
	if err != nil {
		return nil, fmt.Errorf("expressions: extend the environment by types: %w", err)
	}
	t := &Typing{env}
	for _, v := range variables {
		output := apiservercel.DynType
		if out, err := t.compile(v.Expression); err == nil {
			output = declared(out)
		}
		fields.Fields[v.Name] = apiservercel.NewDeclField(v.Name, output, true, nil, nil)
	}
	return t, nil
}

// Check tells what is wrong with an expression; nil when nothing is.
func (t *Typing) Check(text string) error {
	_, err := t.compile(text)
	return err
}

func (t *Typing) compile(text string) (*celgo.Type, error) {
	env, err := t.env.Env(environment.StoredExpressions)
	if err != nil {
		return nil, fmt.Errorf("type checking error: fail to build env: %w", err)
	}
	ast, issues := env.Compile(text)
	if issues != nil {
		return nil, issues.Err()
	}
	return ast.OutputType(), nil
}

// typeOf declares a schema; nil when it says nothing.
func typeOf(s *spec.Schema, name string) *apiservercel.DeclType {
	if s == nil {
		return nil
	}
	t := common.SchemaDeclType(&openapi.Schema{Schema: s}, true)
	if t == nil {
		return nil
	}
	return t.MaybeAssignTypeName(name)
}

func celTypeOf(t *apiservercel.DeclType) *celgo.Type {
	if t == nil {
		return celgo.DynType
	}
	return t.CelType()
}
