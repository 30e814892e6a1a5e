package spec

import (
	"fmt"

	corev1 "k8s.io/api/core/v1"
)

// AsksThroughout reports whether a mount wants, or would like, what is mounted below
// it to be read-only too.
func AsksThroughout(m *corev1.VolumeMount) bool {
	return m.RecursiveReadOnly != nil && *m.RecursiveReadOnly != corev1.RecursiveReadOnlyDisabled
}

// Throughout reports whether a mount is to be read-only all the way down, where able
// says that the engine's handler can do that. A wish that can't be met is dropped, a
// demand is an error, in upstream's words.
func Throughout(m *corev1.VolumeMount, able bool) (bool, error) {
	if !AsksThroughout(m) {
		return false, nil
	}
	fault := func(why string) (bool, error) {
		return false, fmt.Errorf("volume %q requested recursive read-only mode, but it is %s", m.Name, why)
	}
	switch mode := *m.RecursiveReadOnly; {
	case !m.ReadOnly:
		return fault("not read-only")
	case m.MountPropagation != nil && *m.MountPropagation != corev1.MountPropagationNone:
		return fault(fmt.Sprintf("not compatible with propagation %q", *m.MountPropagation))
	case mode == corev1.RecursiveReadOnlyIfPossible:
		return able, nil
	case mode != corev1.RecursiveReadOnlyEnabled:
		return false, fmt.Errorf("unknown recursive read-only mode %q", mode)
	case !able:
		return fault("not supported by the runtime")
	}
	return true, nil
}
