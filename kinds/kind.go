// Package kinds says what each kind of object is: its names, defaults,
// validation, create and update rules, table columns, selectable fields and
// subresources. A folder below is an API group, a file there is a kind. Nothing
// here does I/O, reads a clock or knows a client: what a Pod is must be loadable
// anywhere.
package kinds

import (
	"context"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/util/validation/field"
)

// Object is what every kind's Go type is.
type Object interface {
	metav1.Object
	runtime.Object
}

// Kind is one row of the table: all that the generic handler needs to serve a
// kind. Function fields may be nil where the kind has nothing of its own to say.
// They get objects that they may change only where it says so, and are pure.
type Kind struct {
	GVK schema.GroupVersionKind
	// Resource is the plural in the URL, Singular and Short what kubectl also takes.
	Resource   string
	Singular   string
	Short      []string
	Categories []string
	Namespaced bool
	// Storage is the path below the store's prefix, as upstream lays it out:
	// "pods", "services/specs", "minions". Empty for kinds that are never stored
	// (reviews): those have only Create, answered by the API server itself.
	Storage string
	// New and NewList make empty objects of the kind and of its list.
	New     func() Object
	NewList func() runtime.Object
	// Verbs are the verbs served; nil means all of them.
	Verbs []string

	Strategy Strategy
	Table    Table
	// Fields gives the selectable fields beyond metadata.name and
	// metadata.namespace, with upstream's names.
	Fields func(obj Object) fields.Set
	// FieldLabels are the names Fields may yield: any other is refused.
	FieldLabels []string
	// FieldAliases are older names of field labels, and what they stand for.
	FieldAliases map[string]string
	// FieldRefusal is how any other label is refused, with one verb for the label;
	// empty means upstream's usual sentence.
	FieldRefusal string
	// TTL is how long an object lives after each write (Events); nil or 0: for ever.
	TTL          func(obj Object) time.Duration
	Subresources []Subresource
	// ListKind is the kind of the list; "" means the kind with "List" behind it.
	ListKind string
	// Hidden kinds are not served over HTTP and not in discovery: only the server
	// itself reaches them.
	Hidden bool
	// Warning is shown to whoever uses the kind in this version; "" for none.
	Warning string
	// Custom is set for kinds without a Go type, made of a definition.
	Custom *Custom
	// View is set for a kind that is never stored as itself but is another
	// group's view of a kind that is (events.k8s.io Event of the core Event).
	// Storage then names the stored kind's path.
	View *View
}

// View turns a kind into the one that is stored in its place, and back. The
// strategy, table and fields of the viewing kind get objects of its own type.
type View struct {
	// Stored is the kind that the store holds.
	Stored schema.GroupVersionKind
	// ToStored and FromStored make new objects and leave their argument alone.
	ToStored   func(obj Object) Object
	FromStored func(stored Object) Object
}

// GVR is the kind's resource with its group and version.
func (k *Kind) GVR() schema.GroupVersionResource {
	return k.GVK.GroupVersion().WithResource(k.Resource)
}

// Custom is what a kind without a Go type does where others have one. Each
// version of such a kind has a row of its own, and its own view of what is stored:
// its stored bytes may be those of any version.
type Custom struct {
	// Load makes objects of this version of stored bytes of any version, all or
	// none; Save the bytes that are stored for an object of this version. Both may
	// ask a conversion webhook, and fail, at the latest when ctx ends.
	Load func(ctx context.Context, data ...[]byte) ([]Object, error)
	Save func(ctx context.Context, obj Object) ([]byte, error)
	// Asks says that Load asks a webhook: once for all that it is given.
	Asks bool
	// Coerce takes from a decoded object what the schema has no place for, as
	// decoding into a Go type would, and names the unknown fields.
	Coerce func(obj Object) (unknown []string, err error)
	// Convert makes an object of another version of the same kind, for the
	// record of field owners; obj is left alone.
	Convert func(obj Object, to schema.GroupVersionKind) (Object, error)
	// Stored is the version that is stored, StoredServed whether clients may ask
	// for it.
	Stored       schema.GroupVersionKind
	StoredServed bool
}

// Strategy is what happens to an object between decoding and storing. The
// generic handler has already checked and set the metadata that all kinds share
// (name, generateName, uid, creationTimestamp, labels, owner references,
// finalizers, managed fields), and calls, on create: Default, (changing
// admission), Default again, PrepareCreate, Validate, (judging admission); on
// update: Default, (changing admission), Default again, PrepareUpdate or the
// subresource's Copy, ValidateUpdate, (judging admission).
type Strategy struct {
	// Default fills what the client left out. It must be idempotent.
	Default func(obj Object)
	// Loaded completes an object that comes out of the store, before anybody sees
	// it: what no stored bytes can tell, or what was not known when they were
	// written. It is called once for each decoding, and must be cheap.
	Loaded func(obj Object)
	// PrepareCreate drops what a client may not set on create (status) and sets
	// what the kind starts with (generation 1 for kinds that have one).
	PrepareCreate func(obj Object)
	// PrepareUpdate puts back what a client may not change through the main
	// resource (status) and raises metadata.generation when the spec changed.
	PrepareUpdate func(obj, old Object)
	// Validate reports everything wrong at once. Paths start at the object's
	// root ("spec.containers[0].name"). Metadata is validated by the handler,
	// except for the name, for which ValidateName is used.
	Validate       func(obj Object) field.ErrorList
	ValidateUpdate func(obj, old Object) field.ErrorList
	// Ratchet are the fields, as for Ratchet, in which an update may keep what was
	// wrong before: where upstream derives its rules from the old object.
	Ratchet []string
	// ValidateName checks metadata.name (prefix: it is a generateName). Nil
	// means a DNS-1123 subdomain.
	ValidateName func(name string, prefix bool) []string
	// NamesOnUpdate says that an update, too, is held against ValidateName, though a
	// name cannot change: the prefix of a generated one can.
	NamesOnUpdate bool
	// AnyFinalizer lets finalizers have names without a domain. Kinds that are not
	// custom otherwise take only the standard ones without.
	AnyFinalizer bool
	// Warnings are the deprecation and mistake warnings clients show; old is nil
	// on create.
	Warnings func(obj, old Object) []string
	// CreateOnUpdate allows PUT to create (leases, events, endpoints …).
	CreateOnUpdate bool
	// ForbidUnconditionalUpdate makes PUT without a resourceVersion a 409/422
	// as upstream does for the kind.
	ForbidUnconditionalUpdate bool
	// Generation says that metadata.generation is kept for the kind.
	Generation bool
	// Grace decides graceful deletion: the seconds the object stays with its
	// deletionTimestamp set before it may be removed. ok=false means the kind
	// is removed at once. Only pods have one.
	Grace func(obj Object, opts *metav1.DeleteOptions) (seconds int64, ok bool)
	// Deleting changes an object whose deletion begins, in the same write that
	// sets its deletionTimestamp (a namespace's phase becomes Terminating).
	Deleting func(obj Object)
	// DatedOnly says that a deletion sets the deletionTimestamp alone: neither a
	// grace period nor a new generation tells of it, where upstream deletes the kind
	// by code of its own (namespaces, definitions).
	DatedOnly bool
	// Holds says that a deleted object must stay although its
	// metadata.finalizers are empty (a namespace with spec.finalizers).
	Holds func(obj Object) bool
	// ReturnsDeleted makes DELETE answer with the object that is gone instead of
	// a Status, as upstream does for some kinds (pods, persistent volumes …).
	ReturnsDeleted bool
	// OrphansDependents makes orphaning the default for DELETE without a
	// propagation policy (jobs, replication controllers).
	OrphansDependents bool
	// OrphanWarning is told to whoever deletes without a propagation policy.
	OrphanWarning string
	// NoDependents keeps the garbage collector's finalizers away (events).
	NoDependents bool
	// Reset are the fields ("status", "metadata.labels") that a write through the
	// main resource cannot set, so that nobody comes to own them by it. Nil means
	// the status, for kinds that have that subresource.
	Reset []string
}

// Table is how kubectl get shows the kind.
type Table struct {
	// Columns includes Name first; priority 1 columns show with -o wide.
	Columns []metav1.TableColumnDefinition
	// Row gives the cells of one object; now is for ages.
	Row func(obj Object, now time.Time) []any
	// Order is how the rows are sorted; nil leaves them as they are listed.
	Order func(a, b Object) int
}

// Subresource is a part of an object with its own path. Those with a Copy are
// served by the generic handler: get, update and patch of the same stored object
// of which only a part may change (status, scale, ephemeralcontainers, resize).
// The others (binding, eviction, log, exec, token …) have a handler of their own
// in the API server, found by name.
type Subresource struct {
	Name string
	// GVK is the kind in the request and the answer; zero: the parent's.
	GVK   schema.GroupVersionKind
	Verbs []string
	// Alike are other versions of GVK that a body may be of, with the same fields.
	Alike []schema.GroupVersionKind
	// New makes the object of a body; nil: the parent's.
	New func() runtime.Object
	// Default fills what was left out of a body of another kind than the parent's
	// that is posted; nil fills nothing.
	Default func(obj Object)
	// Show gives what GET answers: nil means the stored object itself.
	Show func(obj Object) runtime.Object
	// Copy takes over into next, a deep copy of what is stored, the part of the
	// request's body that this subresource may change, and raises
	// metadata.generation where that part counts (scale). Neither Default of a
	// body that is not the parent's kind nor PrepareUpdate is called for it.
	Copy func(next Object, body runtime.Object) error
	// ValidateUpdate checks the result; nil means Strategy.ValidateUpdate.
	ValidateUpdate func(obj, old Object) field.ErrorList
	// Reset is Strategy.Reset for writes through the subresource. Nil means the
	// spec for status, and for others what the main resource has.
	Reset []string
	// Replicas is the field of the parent that the spec.replicas of a scale
	// stands for; empty: spec.replicas too.
	Replicas string
}
