package crd

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	apiextensionsv1 "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	utilerrors "k8s.io/apimachinery/pkg/util/errors"
	"k8s.io/apimachinery/pkg/watch"

	"github.com/sampan-dev/sampan/internal/target"
	"github.com/sampan-dev/sampan/kinds"
	definition "github.com/sampan-dev/sampan/kinds/apiextensions"
)

// endWait is how long one try waits for a definition's objects to be gone: those
// with finalizers wait for others.
const endWait = time.Minute

// ending deletes a definition's objects, and lets the definition go when there are
// none left.
type ending struct {
	*keeper
	def *apiextensionsv1.CustomResourceDefinition // its own copy
	hub *kinds.Kind
}

func (e ending) run(ctx context.Context) {
	err := e.end(ctx)
	select {
	case e.ended <- outcome{e.def.Name, err}:
	case <-ctx.Done():
	}
}

func (e ending) end(ctx context.Context) error {
	e.set(e.def, terminating(apiextensionsv1.ConditionTrue, "InstanceDeletionInProgress", "CustomResource deletion is in progress"))
	def, err := e.tell(ctx, e.def)
	if def == nil || err != nil {
		return err
	}
	def = def.DeepCopy()
	switch {
	case !definition.True(def, apiextensionsv1.Established):
		e.set(def, terminating(apiextensionsv1.ConditionFalse, "NeverEstablished", "resource was never established"))
	case e.hub == nil:
		e.set(def, terminating(apiextensionsv1.ConditionFalse, "OverlappingBuiltInResource", "instances overlap with built-in resources in storage"))
	default:
		reason, err := e.deleteAll(ctx)
		if err != nil {
			e.set(def, terminating(apiextensionsv1.ConditionTrue, reason, err.Error()))
			_, told := e.tell(ctx, def)
			return errors.Join(err, told)
		}
		e.set(def, terminating(apiextensionsv1.ConditionFalse, "InstanceDeletionCompleted", "removed all instances"))
	}
	def.Finalizers = slices.DeleteFunc(def.Finalizers, func(f string) bool { return f == apiextensionsv1.CustomResourceCleanupFinalizer })
	written, err := e.tell(ctx, def)
	if err == nil && written == nil && ctx.Err() == nil {
		return fmt.Errorf("the definition changed while its objects were deleted") // tried again
	}
	return err
}

func terminating(status apiextensionsv1.ConditionStatus, reason, message string) apiextensionsv1.CustomResourceDefinitionCondition {
	return apiextensionsv1.CustomResourceDefinitionCondition{Type: apiextensionsv1.Terminating, Status: status, Reason: reason, Message: message}
}

// deleteAll deletes the objects, namespace by namespace, and waits until they are
// gone. The reason says at what it failed.
func (e ending) deleteAll(ctx context.Context) (reason string, err error) {
	everywhere := target.Of(e.hub.GVR(), "")
	left, _, err := e.left(ctx)
	if err != nil {
		return "InstanceDeletionFailed", fmt.Errorf("could not list instances: %w", err)
	}
	var failed []error
	namespaces := map[string]bool{}
	for _, at := range left {
		if namespaces[at.Namespace] {
			continue
		}
		namespaces[at.Namespace] = true
		in := everywhere
		in.Namespace = at.Namespace
		if err := e.objects.DeleteCollection(ctx, in, metav1.DeleteOptions{}, metav1.ListOptions{}); err != nil {
			failed = append(failed, err)
		}
	}
	if err := utilerrors.NewAggregate(failed); err != nil {
		return "InstanceDeletionFailed", fmt.Errorf("could not issue all deletes: %w", err)
	}
	if err := e.wait(ctx); err != nil {
		return "InstanceDeletionCheck", fmt.Errorf("could not confirm zero CustomResources remaining: %w", err)
	}
	return "", nil
}

// wait returns once there are no objects.
func (e ending) wait(ctx context.Context) error {
	ctx, cancel := context.WithTimeoutCause(ctx, endWait, errors.New("timed out waiting for the condition"))
	defer cancel()
	for {
		left, at, err := e.left(ctx)
		if err != nil || len(left) == 0 {
			return err
		}
		if err := e.oneGone(ctx, at); err != nil {
			return err
		}
	}
}

// oneGone returns when an object is deleted after a revision, or when the watch
// ends and somebody should look again.
func (e ending) oneGone(ctx context.Context, after string) error {
	w, err := e.objects.Watch(ctx, target.Of(e.hub.GVR(), ""), metav1.ListOptions{ResourceVersion: after})
	if err != nil {
		return err
	}
	defer w.Stop()
	for {
		select {
		case event, ok := <-w.ResultChan():
			if !ok || event.Type == watch.Deleted || event.Type == watch.Error {
				return context.Cause(ctx)
			}
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}

// left are the objects that there still are, and at which revision.
func (e ending) left(ctx context.Context) (found []target.Target, at string, err error) {
	list, err := e.objects.List(ctx, target.Of(e.hub.GVR(), ""), metav1.ListOptions{})
	if err != nil {
		return nil, "", err
	}
	accessor, err := meta.ListAccessor(list)
	if err != nil {
		return nil, "", err
	}
	err = meta.EachListItem(list, func(obj runtime.Object) error {
		one, err := meta.Accessor(obj)
		if err == nil {
			found = append(found, target.Of(e.hub.GVR(), one.GetNamespace()).Object(one.GetName()))
		}
		return err
	})
	return found, accessor.GetResourceVersion(), err
}
