package cel

import (
	"errors"

	apiservercel "k8s.io/apiserver/pkg/cel"
)

// Class is what upstream's metrics call an error of an expression: "no_error",
// "compile_error", "out_of_budget" or "invalid_error".
func Class(err error) string {
	switch {
	case err == nil:
		return "no_error"
	case errors.Is(err, apiservercel.ErrCompilation):
		return "compile_error"
	case errors.Is(err, apiservercel.ErrOutOfBudget):
		return "out_of_budget"
	}
	return "invalid_error"
}
