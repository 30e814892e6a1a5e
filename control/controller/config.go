// Package controller is what the controllers share: their configuration, the
// mirrors they read from, the memory of their own writes, and the claiming of
// dependents. Each controller is a folder below and keeps one promise; they do
// not know each other and talk through objects. A controller decides in a pure
// plan, whose steps carry reasons, and then does what the plan says.
package controller

import (
	"context"
	"errors"
	"log/slog"

	"k8s.io/apimachinery/pkg/runtime/schema"

	"github.com/sampan-dev/sampan/client"
	"github.com/sampan-dev/sampan/reconcile"
)

// Controller is one of them, ready to run.
type Controller interface {
	reconcile.Owner
	// Reads lists the kinds that its decisions depend on.
	Reads() []schema.GroupVersionResource
	// Run keeps the promise until ctx ends. The mirrors are run by Mirrors.Run.
	Run(ctx context.Context) error
}

// Config is what every controller is made of.
type Config struct {
	// Transport gives a component's own connection, with upstream's user:
	// system:serviceaccount:kube-system:<component> for a component such as
	// "deployment-controller", system:kube-controller-manager for "".
	Transport func(component string) client.Transport
	// Mirrors are shared, so that each kind is mirrored once.
	Mirrors *Mirrors
	// Log defaults to slog.Default().
	Log *slog.Logger
}

// Valid reports what is missing and fills in defaults.
func (c *Config) Valid() error {
	if c.Transport == nil {
		return errors.New("controller config: no transport")
	}
	if c.Mirrors == nil {
		return errors.New("controller config: no mirrors")
	}
	if c.Log == nil {
		c.Log = slog.Default()
	}
	return nil
}
