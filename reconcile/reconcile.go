// Package reconcile is the loop that every controller, agent and scheduler runs:
// keys in, one Reconcile per key at a time, back-off after an error, another
// look when asked for. A key is the whole message: what happened to the object
// is read from a mirror, never carried along, so a lost event is only a delay.
package reconcile

import (
	"context"
	"errors"
	"fmt"
	"time"

	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
)

// Key names an object; the namespace is empty for cluster-scoped kinds.
type Key = types.NamespacedName

// Parts of an object that a Reconciler may own. A reconciler that writes a
// smaller piece names it by its path ("status.conditions[Ready]").
const (
	// Create and Delete are shared: several reconcilers may bring objects of one
	// kind into being or remove them, because the server arbitrates.
	Create = "create"
	Delete = "delete"
	// Spec and Status, and every other part, have one owner.
	Spec   = "spec"
	Status = "status"
	// Metadata is labels, annotations, owner references and finalizers.
	Metadata = "metadata"
)

// Write is a part of a kind that a Reconciler changes.
type Write struct {
	Resource schema.GroupVersionResource
	// Part is one of the constants above or a path; "" is the whole object.
	Part string
}

// Owner is what CheckOwnership needs to know of a reconciler.
type Owner interface {
	Name() string
	Writes() []Write
}

// Reconciler brings one object towards what is wanted of it.
type Reconciler interface {
	// Name is unique in the process: "deployment".
	Name() string
	// Reads lists the kinds that decisions depend on.
	Reads() []schema.GroupVersionResource
	// Writes lists what it changes; CheckOwnership refuses a second owner.
	Writes() []Write
	// Reconcile looks at the object named by key, which may be gone, and makes
	// at most one round of changes. again > 0 asks for another look after that
	// time. After an error it is called again with growing delays. It is never
	// called twice at the same time for one key.
	Reconcile(ctx context.Context, key Key) (again time.Duration, err error)
}

// CheckOwnership reports every part of a kind that two reconcilers claim, and
// every name used twice. An owner of "" claims all parts but Create and Delete.
func CheckOwnership(all ...Owner) error {
	var errs []error
	names := map[string]bool{}
	owners := map[schema.GroupVersionResource]map[string]string{}
	for _, r := range all {
		if names[r.Name()] {
			errs = append(errs, fmt.Errorf("reconciler %q: name used twice", r.Name()))
		}
		names[r.Name()] = true
		for _, w := range r.Writes() {
			if w.Part == Create || w.Part == Delete {
				continue
			}
			parts := owners[w.Resource]
			if parts == nil {
				parts = map[string]string{}
				owners[w.Resource] = parts
			}
			if other, ok := conflict(parts, w.Part, r.Name()); ok {
				errs = append(errs, fmt.Errorf("part %q of %s: written by both %q and %q",
					w.Part, w.Resource.GroupResource(), other, r.Name()))
				continue
			}
			parts[w.Part] = r.Name()
		}
	}
	return errors.Join(errs...)
}

// conflict finds another owner of part, or of the whole object.
func conflict(parts map[string]string, part, name string) (string, bool) {
	if part == "" {
		for _, other := range parts {
			if other != name {
				return other, true
			}
		}
		return "", false
	}
	for _, p := range []string{part, ""} {
		if other, ok := parts[p]; ok && other != name {
			return other, true
		}
	}
	return "", false
}
