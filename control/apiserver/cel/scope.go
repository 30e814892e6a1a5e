package cel

import (
	celgo "github.com/google/cel-go/cel"
	"github.com/google/cel-go/common/types/traits"
	apiservercel "k8s.io/apiserver/pkg/cel"
	"k8s.io/apiserver/pkg/cel/environment"
)

const variablesType = "kubernetes.variables"

// Scope compiles the expressions of one object, which may share variables: named
// expressions that each run at most once for a request, and only when somebody
// asks for them. A Scope is for one goroutine; what it compiled is not.
type Scope struct {
	fields   *apiservercel.DeclType // of the variables; nil when there are none
	names    []string
	compiled map[string]*Expression
	sets     map[Names]*environment.EnvSet
}

// NewScope returns a Scope; with variables, Variable may be called.
func NewScope(variables bool) *Scope {
	s := &Scope{compiled: map[string]*Expression{}, sets: map[Names]*environment.EnvSet{}}
	if variables {
		s.fields = apiservercel.NewObjectType(variablesType, map[string]*apiservercel.DeclField{})
	}
	return s
}

// Variable compiles a variable and makes it known to what is compiled later.
func (s *Scope) Variable(name, text string, names Names, stored bool) *Expression {
	e := s.Compile(text, names, stored, Any, celgo.DynType)
	s.fields.Fields[name] = apiservercel.NewDeclField(name, declared(e.output), true, nil, nil)
	if _, again := s.compiled[name]; !again {
		s.names = append(s.names, name)
	}
	s.compiled[name] = e
	return e
}

// Compile compiles text, which must come to one of results. stored says that the
// text was accepted before: it may then use all that this version knows, otherwise
// only what the version before it knew too, so that a cluster can go back.
func (s *Scope) Compile(text string, names Names, stored bool, results ...Result) *Expression {
	mode := environment.NewExpressions
	if stored {
		mode = environment.StoredExpressions
	}
	set, err := s.environment(names)
	if err == nil {
		var env *celgo.Env
		if env, err = set.Env(mode); err == nil {
			return compile(env, text, results)
		}
	}
	return broken(text, apiservercel.ErrorTypeInternal, "unexpected error loading CEL environment: "+err.Error(), nil)
}

// environment returns the environment that declares names, and the variables when
// there are any.
func (s *Scope) environment(names Names) (*environment.EnvSet, error) {
	if s.fields == nil {
		return environmentFor(names)
	}
	if set, ok := s.sets[names]; ok {
		return set, nil
	}
	// The variables come first: what declares the patches' types must come last.
	set, err := base().Extend(environment.VersionedOptions{
		IntroducedVersion: since,
		EnvOptions:        []celgo.EnvOption{celgo.Variable(varVariables, s.fields.CelType())},
		DeclTypes:         []*apiservercel.DeclType{s.fields},
	})
	if err != nil {
		return nil, err
	}
	set, err = declare(set, names)
	if err == nil {
		s.sets[names] = set
	}
	return set, err
}

// scalars are the types whose declaration is their own.
var scalars = map[*celgo.Type]*apiservercel.DeclType{
	celgo.AnyType: apiservercel.AnyType, celgo.BoolType: apiservercel.BoolType, celgo.BytesType: apiservercel.BytesType,
	celgo.DoubleType: apiservercel.DoubleType, celgo.DurationType: apiservercel.DurationType, celgo.IntType: apiservercel.IntType,
	celgo.NullType: apiservercel.NullType, celgo.StringType: apiservercel.StringType,
	celgo.TimestampType: apiservercel.TimestampType, celgo.UintType: apiservercel.UintType,
}

// declared is the declaration of a variable whose expression comes to t; nil: of
// one that could not be compiled.
func declared(t *celgo.Type) *apiservercel.DeclType {
	if t == nil {
		return apiservercel.DynType
	}
	if d, ok := scalars[t]; ok {
		return d
	}
	if !t.HasTrait(traits.ContainerType) || !t.HasTrait(traits.IndexerType) {
		return apiservercel.DynType
	}
	switch p := t.Parameters(); len(p) {
	case 1:
		return apiservercel.NewListType(declared(p[0]), -1)
	case 2:
		return apiservercel.NewMapType(declared(p[0]), declared(p[1]), -1)
	}
	return apiservercel.DynType
}
