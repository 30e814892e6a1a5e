package cri

import (
	"context"

	rt "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// As is what a command may have of its own where the CRI's Exec gives it what its
// container has. The zero value asks for nothing.
type As struct {
	// User is "user", "user:group" or numbers; names are looked up in the container.
	User string `json:",omitempty"`
	// Cwd is the absolute path of the directory to start in.
	Cwd string `json:",omitempty"`
	// Env are NAME=VALUE that go before the container's.
	Env []string `json:",omitempty"`
	// Detach: the command goes on without streams when it has been started, until it ends
	// by itself or with its container.
	Detach bool `json:",omitempty"`
}

// Zero says that nothing is asked for.
func (a As) Zero() bool { return a.User == "" && a.Cwd == "" && len(a.Env) == 0 && !a.Detach }

// execer is an engine that can do more than the CRI's Exec.
type execer interface {
	ExecAs(ctx context.Context, r *rt.ExecRequest, as As) (*rt.ExecResponse, error)
}

// ExecAs is Exec of a command with a user, directory or environment of its own. The
// CRI has no words for that: what is not the built-in engine in this process says
// Unimplemented, unless as is zero.
func ExecAs(ctx context.Context, e Engine, r *rt.ExecRequest, as As) (*rt.ExecResponse, error) {
	if as.Zero() {
		return e.Exec(ctx, r)
	}
	if x, ok := e.(execer); ok {
		return x.ExecAs(ctx, r, as)
	}
	return nil, Unimplemented("the container engine of this node can't run a command as another user, in another directory, with variables of its own or without streams")
}

// ExecAs implements execer as far as the engine does.
func (o *observed) ExecAs(ctx context.Context, r *rt.ExecRequest, as As) (*rt.ExecResponse, error) {
	return watch(ctx, o, "exec", func(ctx context.Context, r *rt.ExecRequest) (*rt.ExecResponse, error) {
		return ExecAs(ctx, o.Engine, r, as)
	}, r)
}
