package cri

import "context"

// Leave says whether a container may be of an image that its pod does not name: the one
// that a checkpoint was made of, which the pod's image names instead. names are all that
// the node has for it, id is the engine's. nil is yes.
type Leave func(ctx context.Context, names []string, id string) error

type leaveKey struct{}

// WithLeave has the built-in engine ask before CreateContainer takes such an image. It
// is for calls in the same process alone: gRPC has no way back.
func WithLeave(ctx context.Context, leave Leave) context.Context {
	return context.WithValue(ctx, leaveKey{}, leave)
}

// LeaveOf is what WithLeave gave; nil where there is nobody to ask.
func LeaveOf(ctx context.Context) Leave {
	leave, _ := ctx.Value(leaveKey{}).(Leave)
	return leave
}
