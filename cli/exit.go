package cli

import "fmt"

// ExitError is the end of a verb that has an exit code of its own: that of the
// command it has run, or one of those that docker has for what kept it from
// running. Err may be nil: then nothing is left to say.
type ExitError struct {
	Code int
	Err  error
}

// Exit codes of what could not be run, as shells and docker have them.
const (
	exitFailed   = 125 // we could not make the container
	exitNoStart  = 126 // its command cannot be executed
	exitNotFound = 127 // its command does not exist
	exitKilled   = 137
)

// Error is what is left to say.
func (e *ExitError) Error() string {
	if e.Err == nil {
		return fmt.Sprintf("exit code %d", e.Code)
	}
	return e.Err.Error()
}

// Unwrap is the cause.
func (e *ExitError) Unwrap() error { return e.Err }
