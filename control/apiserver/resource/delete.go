package resource

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/validation"
	"k8s.io/apimachinery/pkg/runtime/schema"

	"github.com/sampan-dev/sampan/control/store"
	"github.com/sampan-dev/sampan/kinds"
)

// deletion is what a request to delete an object comes to.
type deletion struct {
	// next is the object as the deletion leaves or last shows it.
	next kinds.Object
	// write says that next is to be stored: the object stays for now.
	write bool
	// gone says that the object is to be removed.
	gone bool
}

// delete asks for an object's end: now, after its grace, or once its finalizers
// are gone.
func (c *call) delete(ctx context.Context) (*answer, error) {
	if errs := validation.ValidateDeleteOptions(&c.req.Delete); len(errs) > 0 {
		return nil, badOptions("DeleteOptions", errs)
	}
	if c.sub != nil {
		return nil, apierrors.NewMethodNotSupported(c.gr(), verbDelete)
	}
	if c.req.forces() {
		return c.force(ctx)
	}
	c.warnOfOrphans()
	obj, gone, err := c.remove(ctx, c.req.Target.Name)
	if err != nil {
		return nil, err
	}
	code := http.StatusOK
	if orphan := c.req.Delete.OrphanDependents; !gone && orphan != nil && !*orphan {
		code = http.StatusAccepted
	}
	return c.deleted(code, obj, gone), nil
}

// warnOfOrphans tells who does not say what becomes of the dependents.
func (c *call) warnOfOrphans() {
	o := &c.req.Delete
	if text := c.kind.Strategy.OrphanWarning; text != "" && o.PropagationPolicy == nil && o.OrphanDependents == nil {
		c.req.warn(text)
	}
}

// deleted answers a DELETE: with the object while it is still there (or always,
// for some kinds), else with what is gone.
func (c *call) deleted(code int, obj kinds.Object, gone bool) *answer {
	if !gone || c.kind.Strategy.ReturnsDeleted {
		return &answer{code: code, object: obj}
	}
	status := &metav1.Status{
		Status: metav1.StatusSuccess,
		Details: &metav1.StatusDetails{
			Name:  obj.GetName(),
			Group: c.gvr.Group,
			Kind:  c.gvr.Resource,
			UID:   obj.GetUID(),
		},
	}
	status.SetGroupVersionKind(schema.GroupVersionKind{Version: "v1", Kind: "Status"})
	return &answer{code: code, object: status}
}

// remove plans the end of the named object and carries the plan out, again when
// somebody changes the object in between.
func (c *call) remove(ctx context.Context, name string) (obj kinds.Object, gone bool, err error) {
	namespace := c.req.Target.Namespace
	for range maxEdits {
		cur, err := c.storage.read(ctx, namespace, name)
		if err != nil {
			return nil, false, interpret(err, c.gr(), name)
		}
		obj, gone, err = c.removeOnce(ctx, cur)
		if errors.Is(err, store.ErrConflict) && ctx.Err() == nil {
			continue
		}
		if err != nil {
			return nil, false, interpret(err, c.gr(), name)
		}
		return obj, gone, nil
	}
	return nil, false, interpret(store.ErrConflict, c.gr(), name)
}

func (c *call) removeOnce(ctx context.Context, cur *record) (kinds.Object, bool, error) {
	old := c.show(cur.obj)
	opts := c.req.Delete.DeepCopy()
	plan, err := planDeletion(c.kind, old, opts, c.server.now())
	if err != nil {
		return nil, false, err
	}
	a := c.attributes(OpDelete, nil, old)
	a.Target.Name = old.GetName()
	if err := c.admit(ctx, a); err != nil {
		return nil, false, err
	}
	if err := c.validate(ctx, a); err != nil {
		return nil, false, err
	}
	switch {
	case c.req.dryRun():
		return plan.next, plan.gone, nil
	case plan.gone:
		err := c.erase(ctx, cur, plan.next)
		return plan.next, true, err
	case plan.write:
		out, err := c.write(ctx, cur, plan.next, true)
		if errors.Is(err, errAgain) {
			err = store.ErrConflict
		}
		if err != nil {
			return nil, false, err
		}
		return out.object.(kinds.Object), false, nil
	}
	return plan.next, false, nil
}

// erase removes what is stored at cur's revision; obj is what watchers' last
// sight of it is told as.
func (c *call) erase(ctx context.Context, cur *record, obj kinds.Object) error {
	revision, err := c.server.cfg.Store.Delete(ctx, c.storage.key(obj.GetNamespace(), obj.GetName()), cur.revision)
	if err != nil {
		return err
	}
	setRevision(obj, revision)
	if after := c.hook().AfterDelete; after != nil {
		after(obj, false)
	}
	return nil
}

// released says that an update takes the last thing away that held a deleted
// object: it then goes instead of being written.
func released(k *kinds.Kind, next, old kinds.Object) bool {
	if len(next.GetFinalizers()) > 0 || old.GetDeletionTimestamp() == nil {
		return false
	}
	if k.Strategy.Holds != nil && k.Strategy.Holds(next) {
		return false
	}
	grace := old.GetDeletionGracePeriodSeconds()
	return grace == nil || *grace == 0
}

// release removes an object whose last finalizer an update took away.
func (c *call) release(ctx context.Context, cur *record, next kinds.Object) (*answer, error) {
	if !c.req.dryRun() {
		err := c.erase(ctx, cur, next)
		if errors.Is(err, store.ErrConflict) {
			return nil, errAgain
		}
		if err != nil && !missing(err) {
			return nil, err
		}
	}
	return c.done(http.StatusOK, next), nil
}

// planDeletion decides what deleting old comes to. It changes opts, not old.
func planDeletion(k *kinds.Kind, old kinds.Object, opts *metav1.DeleteOptions, now metav1.Time) (deletion, error) {
	if err := checkPreconditions(k, old, opts.Preconditions); err != nil {
		return deletion{}, err
	}
	if opts.GracePeriodSeconds != nil && *opts.GracePeriodSeconds < 0 {
		opts.GracePeriodSeconds = new(int64(1))
	}
	next := old.DeepCopyObject().(kinds.Object)
	graceful, pending := planGrace(k, next, opts, now)
	if pending {
		return deletion{next: next}, nil
	}
	next.SetFinalizers(finalizersFor(k, next, opts))
	held := len(next.GetFinalizers()) > 0 || k.Strategy.Holds != nil && k.Strategy.Holds(next)
	if old.GetDeletionTimestamp() == nil && k.Strategy.Deleting != nil && (held || graceful) {
		if !graceful {
			markDeleting(k, next, now) // so that the kind knows when
		}
		k.Strategy.Deleting(next)
	}
	switch {
	case graceful && (held || *opts.GracePeriodSeconds > 0):
		return deletion{next: next, write: true}, nil
	case held:
		markDeleting(k, next, now)
		return deletion{next: next, write: true}, nil
	}
	return deletion{next: next, gone: true}, nil
}

func checkPreconditions(k *kinds.Kind, old kinds.Object, want *metav1.Preconditions) error {
	if want == nil {
		return nil
	}
	gr := schema.GroupResource{Group: k.GVK.Group, Resource: k.GVK.Kind}
	if want.UID != nil && *want.UID != old.GetUID() {
		return apierrors.NewConflict(gr, old.GetName(), fmt.Errorf("the UID in the precondition (%s) does not match the UID in record (%s). The object might have been deleted and then recreated", *want.UID, old.GetUID()))
	}
	if want.ResourceVersion != nil && *want.ResourceVersion != old.GetResourceVersion() {
		return apierrors.NewConflict(gr, old.GetName(), fmt.Errorf("the ResourceVersion in the precondition (%s) does not match the ResourceVersion in record (%s). The object might have been modified", *want.ResourceVersion, old.GetResourceVersion()))
	}
	return nil
}

// planGrace sets next's deletion time and grace where the kind has one. pending
// says that the object is already on its way and not to be hurried.
func planGrace(k *kinds.Kind, next kinds.Object, opts *metav1.DeleteOptions, now metav1.Time) (graceful, pending bool) {
	if k.Strategy.Grace == nil {
		return false, false
	}
	if next.GetDeletionTimestamp() != nil {
		return hurry(next, opts, now)
	}
	seconds, ok := k.Strategy.Grace(next, opts)
	if !ok {
		return false, false
	}
	opts.GracePeriodSeconds = &seconds
	end := metav1.NewTime(now.Add(time.Duration(seconds) * time.Second))
	next.SetDeletionTimestamp(&end)
	next.SetDeletionGracePeriodSeconds(&seconds)
	if next.GetGeneration() > 0 {
		next.SetGeneration(next.GetGeneration() + 1)
	}
	return true, false
}

// hurry shortens the grace of an object that is already being deleted; it can
// never be made longer.
func hurry(next kinds.Object, opts *metav1.DeleteOptions, now metav1.Time) (graceful, pending bool) {
	granted := next.GetDeletionGracePeriodSeconds()
	if granted == nil || *granted == 0 {
		return false, false
	}
	if opts.GracePeriodSeconds == nil || *opts.GracePeriodSeconds >= *granted {
		return false, true
	}
	seconds := *opts.GracePeriodSeconds
	began := next.GetDeletionTimestamp().Add(-time.Duration(*granted) * time.Second)
	end := metav1.NewTime(began.Add(time.Duration(seconds) * time.Second))
	if end.Before(&now) {
		end = now
		seconds = min(seconds, 1)
	}
	next.SetDeletionTimestamp(&end)
	next.SetDeletionGracePeriodSeconds(&seconds)
	return true, false
}

// markDeleting starts the wait for finalizers.
func markDeleting(k *kinds.Kind, obj kinds.Object, now metav1.Time) {
	at := obj.GetDeletionTimestamp()
	if at == nil || at.After(now.Time) {
		obj.SetDeletionTimestamp(&now)
	}
	if k.Strategy.DatedOnly {
		return
	}
	if at == nil && obj.GetGeneration() > 0 {
		obj.SetGeneration(obj.GetGeneration() + 1)
	}
	obj.SetDeletionGracePeriodSeconds(new(int64(0)))
}

// finalizersFor gives the object's finalizers with the garbage collector's two
// added or taken away as the options, the object or the kind want it.
func finalizersFor(k *kinds.Kind, obj kinds.Object, opts *metav1.DeleteOptions) []string {
	if k.Strategy.NoDependents {
		return obj.GetFinalizers()
	}
	had := obj.GetFinalizers()
	keep := slices.DeleteFunc(slices.Clone(had), func(f string) bool {
		return f == metav1.FinalizerOrphanDependents || f == metav1.FinalizerDeleteDependents
	})
	orphan, foreground := propagation(k, had, opts)
	if orphan {
		keep = append(keep, metav1.FinalizerOrphanDependents)
	}
	if foreground {
		keep = append(keep, metav1.FinalizerDeleteDependents)
	}
	if len(keep) == len(had) && !slices.ContainsFunc(keep, func(f string) bool { return !slices.Contains(had, f) }) {
		return had
	}
	return keep
}

// propagation says what becomes of the dependents: the options decide, else the
// object's own finalizers, else the kind.
func propagation(k *kinds.Kind, had []string, opts *metav1.DeleteOptions) (orphan, foreground bool) {
	switch {
	case opts.OrphanDependents != nil:
		return *opts.OrphanDependents, false
	case opts.PropagationPolicy != nil:
		p := *opts.PropagationPolicy
		return p == metav1.DeletePropagationOrphan, p == metav1.DeletePropagationForeground
	}
	for _, f := range had {
		switch f {
		case metav1.FinalizerOrphanDependents:
			return true, false
		case metav1.FinalizerDeleteDependents:
			return false, true
		}
	}
	return k.Strategy.OrphansDependents, false
}

// deleteCollection deletes what a list with the same options shows, and answers
// with that list.
func (c *call) deleteCollection(ctx context.Context) (*answer, error) {
	if errs := validation.ValidateDeleteOptions(&c.req.Delete); len(errs) > 0 {
		return nil, badOptions("DeleteOptions", errs)
	}
	if c.req.forces() {
		return nil, noForce()
	}
	c.warnOfOrphans()
	found, err := c.list(ctx)
	if err != nil {
		return nil, err
	}
	for _, it := range found.page.items {
		obj := it.object(c.collection)
		each := *c.req
		each.Target.Name, each.Target.Namespace = obj.GetName(), obj.GetNamespace()
		one := &call{collection: c.collection, req: &each}
		if _, _, err := one.remove(ctx, obj.GetName()); err != nil && !apierrors.IsNotFound(err) {
			return nil, err
		}
	}
	return found, nil
}
