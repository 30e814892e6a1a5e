package controller

import (
	"slices"
	"sync"

	"k8s.io/apimachinery/pkg/runtime/schema"
)

// Kind is a kind that the API server serves and stores, as the wiring tells it.
type Kind struct {
	schema.GroupVersionResource
	Kind       string
	Namespaced bool
}

// Kinds is the changing list of all kinds: built in, and of custom resources as
// they come and go. Whoever looks after all objects (the collector, the end of a
// namespace) works from it. It may be used from any goroutine.
type Kinds struct {
	mu      sync.Mutex
	kinds   []Kind
	changed chan struct{}
}

// NewKinds starts with the given kinds: one version of each.
func NewKinds(kinds ...Kind) *Kinds {
	return &Kinds{kinds: slices.Clone(kinds), changed: make(chan struct{})}
}

// Set replaces the list.
func (k *Kinds) Set(kinds []Kind) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.kinds = slices.Clone(kinds)
	close(k.changed)
	k.changed = make(chan struct{})
}

// List returns the kinds and a channel that closes when they are others. The
// slice is shared and read-only.
func (k *Kinds) List() ([]Kind, <-chan struct{}) {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.kinds, k.changed
}

// Find returns the kind of an owner reference: in any version, since all show
// the same objects.
func (k *Kinds) Find(gvk schema.GroupVersionKind) (Kind, bool) {
	kinds, _ := k.List()
	for _, kind := range kinds {
		if kind.Group == gvk.Group && kind.Kind == gvk.Kind {
			return kind, true
		}
	}
	return Kind{}, false
}
