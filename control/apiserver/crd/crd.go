// Package crd makes kinds of CustomResourceDefinitions: it follows the definitions
// of its own API server, says in their status what becomes of them, and puts a row
// for each version that they serve into the table of the generic handler. Custom
// resources have no handler of their own.
//
// A definition is served once its names are accepted, that is, taken by no other
// definition of its group; its Established condition follows when the rows are in
// place, so that whoever sees it can use the kind at once. A definition that is
// deleted stays, with its kinds, until its objects are gone.
//
// Facts: k8s.io/apiextensions-apiserver (conditions and their words, the order of
// pruning, defaulting and conversion, what a conversion webhook may change). Its
// schema packages (structural schemas, pruning, defaulting, validation, CEL) are
// used as published.
package crd

import (
	"context"
	"log/slog"
	"slices"
	"sync"
	"time"

	apiextensionsv1 "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/util/managedfields"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/kube-openapi/pkg/validation/spec"

	"github.com/sampan-dev/sampan/control/apiserver/webhook"
	"github.com/sampan-dev/sampan/internal/target"
	"github.com/sampan-dev/sampan/kinds"
)

// definitions is where the definitions are.
var definitions = target.Of(apiextensionsv1.SchemeGroupVersion.WithResource("customresourcedefinitions"), "")

// Objects is the API server as its own client.
type Objects interface {
	List(ctx context.Context, t target.Target, opts metav1.ListOptions) (runtime.Object, error)
	Watch(ctx context.Context, t target.Target, opts metav1.ListOptions) (watch.Interface, error)
	Update(ctx context.Context, t target.Target, obj runtime.Object, opts metav1.UpdateOptions) (runtime.Object, error)
	DeleteCollection(ctx context.Context, t target.Target, opts metav1.DeleteOptions, list metav1.ListOptions) error
}

// Table is what is served: resource.Server.
type Table interface {
	Add(k *kinds.Kind) error
	Remove(gvr schema.GroupVersionResource)
	Kinds() []*kinds.Kind
}

// Schema is one OpenAPI schema.
type Schema = spec.Schema

// Config is what Definitions are made of.
type Config struct {
	// Webhooks calls conversion webhooks.
	Webhooks *webhook.Caller
	// Metadata gives the OpenAPI v3 schemas of ObjectMeta and of what it refers
	// to, by name; called when first needed.
	Metadata func() (map[string]*Schema, error)
	// Now is the wall clock.
	Now func() time.Time
	Log *slog.Logger

	metrics *metrics
}

// Definitions are the definitions of one API server, and what they serve. All
// methods may be called concurrently; Run is called once.
type Definitions struct {
	cfg    Config
	synced chan struct{}

	mu sync.RWMutex // guards what follows; Run writes it, everybody reads it
	// versions are those served, by kind; byRow are the same, by their row.
	versions map[schema.GroupVersionKind]*version
	byRow    map[*kinds.Kind]*version
	// ending are the resources of definitions that are being deleted.
	ending map[schema.GroupResource]bool
	// parting are the rows of definitions whose objects are being deleted, as
	// discovery shows them.
	parting map[*kinds.Kind]*kinds.Kind
}

// New returns Definitions that serve nothing until Run.
func New(cfg Config) *Definitions {
	cfg.metrics = newMetrics()
	return &Definitions{
		cfg:      cfg,
		synced:   make(chan struct{}),
		versions: map[schema.GroupVersionKind]*version{},
		byRow:    map[*kinds.Kind]*version{},
		ending:   map[schema.GroupResource]bool{},
		parting:  map[*kinds.Kind]*kinds.Kind{},
	}
}

// Synced is closed once the definitions that there were at the start are served.
func (d *Definitions) Synced() <-chan struct{} { return d.synced }

// Ending says that the definition of a resource is being deleted: its objects may
// change and go, but none may be made.
func (d *Definitions) Ending(gr schema.GroupResource) bool {
	d.mu.RLock()
	defer d.mu.RUnlock()
	return d.ending[gr]
}

// Shown gives rows as discovery shows them: of a definition whose objects are being
// deleted, none should be made or changed any more. (They can still be changed: their
// finalizers have to go.)
func (d *Definitions) Shown(rows []*kinds.Kind) []*kinds.Kind {
	d.mu.RLock()
	defer d.mu.RUnlock()
	if len(d.parting) == 0 {
		return rows
	}
	out := slices.Clone(rows)
	for i, row := range rows {
		if shown := d.parting[row]; shown != nil {
			out[i] = shown
		}
	}
	return out
}

// Types gives the typed schema of a custom kind for server-side apply; nil for
// kinds that are not served, and for those whose schema cannot be used.
func (d *Definitions) Types(gvk schema.GroupVersionKind) managedfields.TypeConverter {
	d.mu.RLock()
	v := d.versions[gvk]
	d.mu.RUnlock()
	if v == nil {
		return nil
	}
	types, err := v.family.types()
	if err != nil {
		d.cfg.Log.Warn("typed schema of a custom resource", "kind", gvk, "error", err)
		return nil
	}
	return types
}

// of finds the version that a row was made of.
func (d *Definitions) of(k *kinds.Kind) *version {
	d.mu.RLock()
	defer d.mu.RUnlock()
	return d.byRow[k]
}
