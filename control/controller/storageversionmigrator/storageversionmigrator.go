// Package storageversionmigrator keeps a promise: what a StorageVersionMigration
// names is written again, so that it lies in the store as it would be stored today
// (version, encryption). Of one resource one migration runs at a time, the oldest
// first; a definition of custom resources says that it is being migrated, and
// forgets the versions in which nothing is stored any more. It follows upstream's
// pkg/controller/storageversionmigrator, but lists for itself what upstream takes
// from the garbage collector's mirrors.
package storageversionmigrator

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strconv"
	"time"

	storagemigrationv1 "k8s.io/api/storagemigration/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"

	"github.com/sampan-dev/sampan/client"
	"github.com/sampan-dev/sampan/client/informer"
	"github.com/sampan-dev/sampan/control/controller"
	"github.com/sampan-dev/sampan/internal/target"
	"github.com/sampan-dev/sampan/reconcile"
)

const (
	component = "storage-version-migrator-controller"
	// page is how many objects are listed at once.
	page = 500
	// patience is how long a migration waits for a resource that is not served;
	// lookAgain is how often it looks.
	patience  = time.Minute
	lookAgain = 10 * time.Second
)

type migration = storagemigrationv1.StorageVersionMigration

// Controller migrates. Its keys are StorageVersionMigrations.
type Controller struct {
	transport  client.Transport
	loop       *reconcile.Loop
	migrations *informer.Informer[*migration]
	kinds      *controller.Kinds
}

// New makes the controller; kinds are what is served.
func New(cfg controller.Config, kinds *controller.Kinds) (*Controller, error) {
	if err := cfg.Valid(); err != nil {
		return nil, err
	}
	c := &Controller{transport: cfg.Transport(component), kinds: kinds,
		migrations: controller.Mirror(cfg.Mirrors, client.StorageVersionMigrations)}
	c.loop = reconcile.NewLoop(c, reconcile.Config{Log: cfg.Log, Synced: cfg.Mirrors.Synced(c.Reads()...)})
	c.migrations.Subscribe(func(e informer.Event[*migration]) {
		c.loop.Enqueue(controller.KeyOf(e.Object()))
		for _, other := range c.of(e.Object().Spec.Resource) { // one of them may be next
			c.loop.Enqueue(controller.KeyOf(other))
		}
	})
	return c, nil
}

// Name implements reconcile.Reconciler.
func (*Controller) Name() string { return "storageversionmigrator" }

// Reads implements reconcile.Reconciler.
func (*Controller) Reads() []schema.GroupVersionResource {
	return []schema.GroupVersionResource{client.StorageVersionMigrations.GroupVersionResource}
}

// Everywhere implements controller.Everywhere: it reads all objects of what is to be
// migrated, and writes each as it is, which changes its version at most.
func (*Controller) Everywhere() (reads bool, writes []string) {
	return true, []string{"metadata.resourceVersion"}
}

// Writes implements reconcile.Reconciler. The objects it migrates it does not change.
func (*Controller) Writes() []reconcile.Write {
	return []reconcile.Write{
		{Resource: client.StorageVersionMigrations.GroupVersionResource, Part: "status"},
		{Resource: definitions.GroupVersionResource, Part: "status.conditions[StorageMigrating]"},
		{Resource: definitions.GroupVersionResource, Part: "status.storedVersions"},
	}
}

// Run implements controller.Controller.
func (c *Controller) Run(ctx context.Context) error { return c.loop.Run(ctx) }

// Reconcile implements reconcile.Reconciler: one step of one migration.
func (c *Controller) Reconcile(ctx context.Context, key reconcile.Key) (time.Duration, error) {
	have, ok := c.migrations.Get("", key.Name)
	if !ok {
		return 0, nil
	}
	m := have.DeepCopy()
	switch running := is(m, storagemigrationv1.MigrationRunning); {
	case over(m) && running:
		return 0, c.finish(ctx, m)
	case over(m):
		return 0, nil
	case !running && c.next(m.Spec.Resource) != have:
		return 0, nil // another's end brings us back
	case !running:
		return 0, c.promote(ctx, m)
	}
	kind, served := c.find(m.Spec.Resource)
	if !served {
		if time.Since(m.CreationTimestamp.Time) < patience {
			return lookAgain, nil
		}
		return 0, c.fail(ctx, m, "resource does not exist in discovery")
	}
	if m.Status.ResourceVersion == "" {
		return 0, c.start(ctx, m, kind)
	}
	return 0, c.migrate(ctx, m, kind)
}

func is(m *migration, condition storagemigrationv1.MigrationConditionType) bool {
	return meta.IsStatusConditionTrue(m.Status.Conditions, string(condition))
}

func (c *Controller) find(r metav1.GroupResource) (controller.Kind, bool) {
	kinds, _ := c.kinds.List()
	for _, k := range kinds {
		if k.Group == r.Group && k.Resource == r.Resource {
			return k, true
		}
	}
	return controller.Kind{}, false
}

// start notes the revision up to which objects are to be written again.
func (c *Controller) start(ctx context.Context, m *migration, kind controller.Kind) error {
	list, err := c.transport.List(ctx, target.Of(kind.GroupVersionResource, ""), metav1.ListOptions{Limit: 1})
	if err != nil {
		return fmt.Errorf("list %s: %w", kind.GroupResource(), err)
	}
	at, err := meta.ListAccessor(list)
	if err != nil {
		return err
	}
	m.Status.ResourceVersion = at.GetResourceVersion()
	return c.write(ctx, m)
}

// migrate writes every object again that nobody has written since.
func (c *Controller) migrate(ctx context.Context, m *migration, kind controller.Kind) error {
	until, err := strconv.ParseInt(m.Status.ResourceVersion, 10, 64)
	if err != nil {
		return c.fail(ctx, m, unhandled(err))
	}
	p, opts := progress{}, metav1.ListOptions{Limit: page}
	for {
		list, err := c.transport.List(ctx, target.Of(kind.GroupVersionResource, ""), opts)
		if apierrors.IsResourceExpired(err) && opts.Continue != "" {
			p, opts.Continue = progress{}, "" // the list has taken too long: begin anew
			continue
		}
		if err != nil {
			return fmt.Errorf("list %s: %w", kind.GroupResource(), err)
		}
		at, err := meta.ListAccessor(list)
		if err != nil {
			return err
		}
		p.total = p.done + meta.LenList(list)
		if rest := at.GetRemainingItemCount(); rest != nil {
			p.total += int(*rest)
		}
		if err := c.migratePage(ctx, kind, list, until, &p); err != nil {
			running := p.sentence()
			if transient(err) {
				running += "; transient error: " + err.Error()
				set(m, storagemigrationv1.MigrationRunning, "MigrationRunning", running)
				return errors.Join(err, c.write(ctx, m))
			}
			set(m, storagemigrationv1.MigrationRunning, "MigrationRunning", running)
			return c.fail(ctx, m, fmt.Sprintf("%d/%d not yet migrated. %s", p.total-p.done, p.total, unhandled(err)))
		}
		if opts.Continue = at.GetContinue(); opts.Continue == "" {
			break
		}
	}
	set(m, storagemigrationv1.MigrationRunning, "MigrationRunning", p.sentence())
	set(m, storagemigrationv1.MigrationSucceeded, "StorageVersionMigrationSucceeded", "Migration completed")
	return c.write(ctx, m)
}

// progress is how many objects there are, and how many are as they should be.
type progress struct{ done, total int }

func (p progress) sentence() string {
	const running = "The migration is running"
	switch left := p.total - p.done; {
	case p.total == 0:
		return running
	case left > 0:
		return fmt.Sprintf("%s, %d/%d objects not yet migrated", running, left, p.total)
	}
	return fmt.Sprintf("%s, %d objects verified migrated", running, p.total)
}

func (c *Controller) migratePage(ctx context.Context, kind controller.Kind, list runtime.Object, until int64, p *progress) error {
	return meta.EachListItem(list, func(obj runtime.Object) error {
		one, err := meta.Accessor(obj)
		if err != nil {
			return err
		}
		rv, err := strconv.ParseInt(one.GetResourceVersion(), 10, 64)
		if err != nil || rv <= until {
			if err := c.rewrite(ctx, kind, one); err != nil {
				return err
			}
		}
		p.done++
		return nil
	})
}

func unhandled(err error) string { return "migration encountered unhandled error: " + err.Error() }

// rewrite changes nothing of an object. One that is gone or was written meanwhile
// has no need of it.
func (c *Controller) rewrite(ctx context.Context, kind controller.Kind, obj metav1.Object) error {
	body, err := json.Marshal(map[string]any{
		"apiVersion": kind.GroupVersion().String(), "kind": kind.Kind,
		"metadata": map[string]string{"uid": string(obj.GetUID()), "resourceVersion": obj.GetResourceVersion()}})
	if err != nil {
		return err
	}
	at := target.Of(kind.GroupVersionResource, obj.GetNamespace()).Object(obj.GetName())
	_, err = c.transport.Patch(ctx, at, types.MergePatchType, body, metav1.PatchOptions{FieldManager: component})
	if apierrors.IsConflict(err) || apierrors.IsNotFound(err) {
		return nil
	}
	return err
}

// transient failures are tried again; all others end the migration.
func transient(err error) bool {
	return apierrors.IsServerTimeout(err) || apierrors.IsTooManyRequests(err) || apierrors.IsServiceUnavailable(err) ||
		apierrors.IsInternalError(err) || apierrors.IsTimeout(err) || apierrors.ReasonForError(err) == metav1.StatusReasonUnknown
}

func (c *Controller) fail(ctx context.Context, m *migration, why string) error {
	set(m, storagemigrationv1.MigrationFailed, "StorageVersionMigrationFailed", why)
	return c.write(ctx, m)
}

func set(m *migration, condition storagemigrationv1.MigrationConditionType, reason, message string) {
	meta.SetStatusCondition(&m.Status.Conditions, metav1.Condition{Type: string(condition), Status: metav1.ConditionTrue,
		Reason: reason, Message: message})
}

// write writes the status.
func (c *Controller) write(ctx context.Context, m *migration) error {
	_, err := client.StorageVersionMigrations.UpdateStatus(ctx, c.transport, m)
	if apierrors.IsNotFound(err) {
		return nil
	}
	return err
}
