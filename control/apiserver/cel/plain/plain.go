// Package plain compiles and runs expressions over plain values: the claims of a
// token, a question to an authorizer. Its environment is Kubernetes' own, with the
// variables of the caller, made when an expression is first compiled.
package plain

import (
	"context"
	"errors"
	"fmt"
	"reflect"

	celgo "github.com/google/cel-go/cel"
	"k8s.io/apimachinery/pkg/util/version"
	celconfig "k8s.io/apiserver/pkg/apis/cel"
	"k8s.io/apiserver/pkg/cel/environment"
)

// MaxText bounds an expression, in bytes.
const MaxText = 16 << 10

// Expression is a compiled text. It is read-only and safe for concurrent use.
type Expression struct {
	Text    string
	program celgo.Program
}

// Compile compiles text, in which the named variables may be any value.
func Compile(text string, variables ...string) (*Expression, error) {
	if len(text) > MaxText {
		return nil, fmt.Errorf("expression has more than %d bytes", MaxText)
	}
	options := make([]celgo.EnvOption, 0, len(variables))
	for _, name := range variables {
		options = append(options, celgo.Variable(name, celgo.DynType))
	}
	set, err := environment.MustBaseEnvSet(environment.DefaultCompatibilityVersion()).Extend(
		environment.VersionedOptions{IntroducedVersion: version.MajorMinor(1, 0), EnvOptions: options}, environment.StrictCostOpt)
	if err != nil {
		return nil, fmt.Errorf("declare variables %q: %w", variables, err)
	}
	env, err := set.Env(environment.StoredExpressions)
	if err != nil {
		return nil, fmt.Errorf("declare variables %q: %w", variables, err)
	}
	ast, issues := env.Compile(text)
	if issues != nil && issues.Err() != nil {
		return nil, fmt.Errorf("compilation failed: %w", issues.Err())
	}
	program, err := env.Program(ast, celgo.InterruptCheckFrequency(celconfig.CheckFrequency), celgo.CostLimit(celconfig.PerCallLimit))
	if err != nil {
		return nil, fmt.Errorf("program instantiation failed: %w", err)
	}
	return &Expression{Text: text, program: program}, nil
}

// errType is what an expression of another type comes to.
var errType = errors.New("expression comes to another type")

func (e *Expression) eval(ctx context.Context, values map[string]any, want reflect.Type) (any, error) {
	out, _, err := e.program.ContextEval(ctx, values)
	if err != nil {
		return nil, fmt.Errorf("expression %q: %w", e.Text, err)
	}
	native, err := out.ConvertToNative(want)
	if err != nil {
		return nil, fmt.Errorf("expression %q: %w: %w", e.Text, errType, err)
	}
	return native, nil
}

// Bool runs an expression that comes to true or false.
func (e *Expression) Bool(ctx context.Context, values map[string]any) (bool, error) {
	out, err := e.eval(ctx, values, reflect.TypeFor[bool]())
	if err != nil {
		return false, err
	}
	return out.(bool), nil
}

// String runs an expression that comes to a string.
func (e *Expression) String(ctx context.Context, values map[string]any) (string, error) {
	out, err := e.eval(ctx, values, reflect.TypeFor[string]())
	if err != nil {
		return "", err
	}
	return out.(string), nil
}

// Strings runs an expression that comes to a string, to null or to a list of
// strings; "" and null are no string.
func (e *Expression) Strings(ctx context.Context, values map[string]any) ([]string, error) {
	out, _, err := e.program.ContextEval(ctx, values)
	if err != nil {
		return nil, fmt.Errorf("expression %q: %w", e.Text, err)
	}
	switch v := out.Value().(type) {
	case string:
		if v == "" {
			return nil, nil
		}
		return []string{v}, nil
	case nil:
		return nil, nil
	}
	if out.Type().TypeName() == "null_type" {
		return nil, nil
	}
	native, err := out.ConvertToNative(reflect.TypeFor[[]string]())
	if err != nil {
		return nil, fmt.Errorf("expression %q: %w: %w", e.Text, errType, err)
	}
	return native.([]string), nil
}
