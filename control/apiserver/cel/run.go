package cel

import (
	"context"
	"fmt"
	"math"

	celgo "github.com/google/cel-go/cel"
	"github.com/google/cel-go/common/types"
	"github.com/google/cel-go/common/types/ref"
	"github.com/google/cel-go/interpreter"
	admissionv1 "k8s.io/api/admission/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	apiservercel "k8s.io/apiserver/pkg/cel"
	"k8s.io/apiserver/pkg/cel/common"
	"k8s.io/apiserver/pkg/cel/lazy"
	"k8s.io/apiserver/pkg/cel/library"
)

// Input is what the expressions of one evaluation speak of. Objects are read, not
// changed.
type Input struct {
	// Object, Old and Params are nil where there is none: null in CEL.
	Object, Old, Params runtime.Object
	Request             *admissionv1.AdmissionRequest
	// Namespace is that of the object; nil for what has none.
	Namespace *corev1.Namespace
	// Authority answers what the request's user may; nil leaves it undefined.
	Authority *Authority
	// Plain shows Object and Old as plain maps, parts of which may be taken over
	// into what an expression makes.
	Plain bool
}

// Run is one evaluation: its variables are computed once, its budget is shared by
// all that it evaluates. It is for one goroutine.
type Run struct {
	values map[string]any
	// Left is what may still be spent.
	Left int64
	// spent is what variables cost since the last expression began.
	spent int64
	ctx   context.Context //nolint:containedctx // variables are evaluated from within an expression
}

// Start begins an evaluation of expressions that scope compiled, with budget.
func (s *Scope) Start(ctx context.Context, in Input, budget int64) *Run {
	r := &Run{Left: budget, ctx: ctx, values: map[string]any{
		varObject:    value(in.Object, in.Plain),
		varOld:       value(in.Old, in.Plain),
		varParams:    value(in.Params, false),
		varRequest:   common.SchemalessTypedToVal(in.Request),
		varNamespace: common.SchemalessTypedToVal(visible(in.Namespace)),
	}}
	if a := in.Authority; a != nil {
		r.values[varAuthorizer] = library.NewAuthorizerVal(a.user(), a)
		r.values[varResource] = library.NewResourceAuthorizerVal(a.user(), a, a)
	}
	if s != nil && s.fields != nil {
		r.values[varVariables] = s.lazy(r)
	}
	return r
}

// value is an object as expressions see it.
func value(obj runtime.Object, plain bool) any {
	if obj == nil {
		return types.NullValue
	}
	if !plain {
		return common.SchemalessTypedToVal(obj)
	}
	all, err := runtime.DefaultUnstructuredConverter.ToUnstructured(obj)
	if err != nil {
		return types.WrapErr(err)
	}
	return all
}

// visible is the part of a namespace that expressions may see.
func visible(ns *corev1.Namespace) *corev1.Namespace {
	if ns == nil {
		return nil
	}
	return &corev1.Namespace{
		Spec: ns.Spec, Status: ns.Status,
		ObjectMeta: metav1.ObjectMeta{
			Name: ns.Name, GenerateName: ns.GenerateName, Namespace: ns.Namespace, UID: ns.UID,
			ResourceVersion: ns.ResourceVersion, Generation: ns.Generation,
			CreationTimestamp: ns.CreationTimestamp, DeletionTimestamp: ns.DeletionTimestamp,
			DeletionGracePeriodSeconds: ns.DeletionGracePeriodSeconds,
			Labels:                     ns.Labels, Annotations: ns.Annotations, Finalizers: ns.Finalizers,
		},
	}
}

// lazy is the map of variables: each is evaluated when it is first asked for.
func (s *Scope) lazy(r *Run) ref.Val {
	all := lazy.NewMapValue(s.fields)
	for _, name := range s.names {
		e := s.compiled[name]
		all.Append(name, func(*lazy.MapValue) ref.Val { return r.variable(name, e) })
	}
	return all
}

func (r *Run) variable(name string, e *Expression) ref.Val {
	if e.Err != nil {
		return types.NewErr("composited variable %q fails to compile: %v", name, e.Err)
	}
	v, details, err := e.program.ContextEval(r.ctx, r)
	cost, ok := costOf(details)
	if !ok {
		return types.NewErr("unable to calculate cost of variable %q", name)
	}
	r.spent = saturate(r.spent, cost)
	if err != nil {
		return types.NewErr("composited variable %q fails to evaluate: %v", name, err)
	}
	return v
}

// ResolveName makes a Run what programs take their variables from.
func (r *Run) ResolveName(name string) (any, bool) {
	v, ok := r.values[name]
	return v, ok
}

// Parent says that a Run stands alone.
func (r *Run) Parent() interpreter.Activation { return nil }

const (
	outOfBudget = "validation failed due to running out of cost budget, no further validation rules will be run"
	noCost      = "runtime cost could not be calculated for expression: %v, no further expression will be run"
)

// Evaluate runs an expression. err is what is wrong with this expression alone;
// fatal ends the whole evaluation: the budget is spent.
func (r *Run) Evaluate(e *Expression) (v ref.Val, err, fatal *apiservercel.Error) {
	if e.Err != nil {
		return nil, &apiservercel.Error{Type: apiservercel.ErrorTypeInvalid,
			Detail: fmt.Sprintf("compilation error: %v", e.Err), Cause: e.Err}, nil
	}
	v, details, failure := e.program.ContextEval(r.ctx, r)
	variables := r.spent
	r.spent = 0
	if variables > r.Left {
		return nil, nil, r.bankrupt()
	}
	r.Left -= variables
	if details == nil {
		r.Left = -1
		return nil, nil, &apiservercel.Error{Type: apiservercel.ErrorTypeInternal, Detail: fmt.Sprintf(noCost, e.Text)}
	}
	cost, ok := costOf(details)
	if !ok {
		r.Left = -1
		return nil, nil, &apiservercel.Error{Type: apiservercel.ErrorTypeInvalid, Detail: fmt.Sprintf(noCost, e.Text), Cause: apiservercel.ErrOutOfBudget}
	}
	if cost > r.Left {
		return nil, nil, r.bankrupt()
	}
	r.Left -= cost
	if failure != nil {
		return nil, &apiservercel.Error{Type: apiservercel.ErrorTypeInvalid,
			Detail: fmt.Sprintf("expression '%v' resulted in error: %v", e.Text, failure)}, nil
	}
	return v, nil, nil
}

func (r *Run) bankrupt() *apiservercel.Error {
	r.Left = -1
	return &apiservercel.Error{Type: apiservercel.ErrorTypeInvalid, Detail: outOfBudget, Cause: apiservercel.ErrOutOfBudget}
}

func costOf(details *celgo.EvalDetails) (int64, bool) {
	if details == nil || details.ActualCost() == nil {
		return 0, false
	}
	return int64(min(*details.ActualCost(), math.MaxInt64)), true //nolint:gosec // bounded
}

func saturate(a, b int64) int64 {
	if a > math.MaxInt64-b {
		return math.MaxInt64
	}
	return a + b
}
