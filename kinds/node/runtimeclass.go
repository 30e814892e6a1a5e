// Package node says what the kinds of the node.k8s.io group are.
package node

import (
	"time"

	nodev1 "k8s.io/api/node/v1"
	"k8s.io/apimachinery/pkg/runtime"

	"github.com/sampan-dev/sampan/kinds"
)

// Kinds lists the group's kinds.
func Kinds() []*kinds.Kind { return []*kinds.Kind{RuntimeClass()} }

// RuntimeClass is the kind that names a way of running containers.
func RuntimeClass() *kinds.Kind {
	return &kinds.Kind{
		GVK:      nodev1.SchemeGroupVersion.WithKind("RuntimeClass"),
		Resource: "runtimeclasses",
		Singular: "runtimeclass",
		Storage:  "runtimeclasses",
		New:      func() kinds.Object { return &nodev1.RuntimeClass{} },
		NewList:  func() runtime.Object { return &nodev1.RuntimeClassList{} },
		Strategy: kinds.Strategy{
			NamesOnUpdate:             true,
			AnyFinalizer:              true,
			Validate:                  kinds.Check(validate),
			ValidateUpdate:            kinds.CheckUpdate(validateUpdate),
			CreateOnUpdate:            true,
			ForbidUnconditionalUpdate: true,
		},
		Table: kinds.Table{
			Columns: kinds.Columns("Name", "Handler", "Age"),
			Row: kinds.Row(func(c *nodev1.RuntimeClass, now time.Time) []any {
				return []any{c.Name, c.Handler, kinds.Created(c, now)}
			}),
		},
	}
}
