// Package probe asks containers whether they are well. A Judge turns single
// results into verdicts by thresholds (pure); Do carries one probe out; a Set
// runs the probes of one pod's containers on their schedules.
package probe

import (
	corev1 "k8s.io/api/core/v1"
)

// Kind is which of a container's probes it is.
type Kind string

// The three probes.
const (
	Startup   Kind = "startup"
	Liveness  Kind = "liveness"
	Readiness Kind = "readiness"
)

// Title is the kind as events begin with it.
func (k Kind) Title() string {
	switch k {
	case Startup:
		return "Startup"
	case Liveness:
		return "Liveness"
	}
	return "Readiness"
}

// Result is what one probe, or a row of them, came to.
type Result int

// The results.
const (
	Unknown Result = iota
	Success
	Failure
	// Warned is a success that somebody should look at. It is one probe's, never a
	// verdict.
	Warned
)

// Judge counts results in a row. The zero value isn't ready: use NewJudge.
type Judge struct {
	successes, failures int
	last                Result
	row                 int
	verdict             Result
}

// NewJudge starts with the kind's verdict before the first result: a container
// is taken to be alive, not ready, and not known to have started.
func NewJudge(kind Kind, p *corev1.Probe) *Judge {
	j := &Judge{successes: max(int(p.SuccessThreshold), 1), failures: max(int(p.FailureThreshold), 1)}
	switch kind {
	case Liveness:
		j.verdict = Success
	case Readiness:
		j.verdict = Failure
	}
	return j
}

// Add takes one more result in and returns the verdict, and whether this result
// decided it (again). An Unknown result decides nothing.
func (j *Judge) Add(r Result) (verdict Result, decided bool) {
	if r == Unknown {
		return j.verdict, false
	}
	if r != j.last {
		j.last, j.row = r, 0
	}
	j.row++
	need := j.successes
	if r == Failure {
		need = j.failures
	}
	if j.row < need {
		return j.verdict, false
	}
	j.verdict = r
	return r, true
}
