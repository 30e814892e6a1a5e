package resource

import (
	"context"
	"errors"
	"fmt"
	"net/http"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/util/validation/field"

	"github.com/sampan-dev/sampan/control/apiserver/audit"
	"github.com/sampan-dev/sampan/control/store"
	"github.com/sampan-dev/sampan/kinds"
)

// What is stored and cannot be read (sealed with a key that is lost, of a version
// that nobody knows) can be taken out by those who have that right of its own:
// nothing asks for its finalizers, and nobody is told what it was. Upstream's delete
// option ignoreStoreReadErrorWithClusterBreakingPotential, on by default from v1.37.

// verbForce is the right to do so.
const verbForce = "unsafe-delete-ignore-read-errors"

// forces says that the request wants that.
func (r *Request) forces() bool {
	return kinds.Deref(r.Delete.IgnoreStoreReadErrorWithClusterBreakingPotential)
}

// force removes the named object if it cannot be read.
func (c *call) force(ctx context.Context) (*answer, error) {
	audit.Annotate(ctx, "apiserver.k8s.io/unsafe-delete-ignore-read-error", "")
	name := c.req.Target.Name
	if err := c.authorize(ctx, verbForce); err != nil {
		return nil, apierrors.NewForbidden(c.gr(), name, fmt.Errorf("not permitted to do %q, reason: %w", verbForce, err))
	}
	key := c.storage.key(c.req.Target.Namespace, name)
	for range maxEdits {
		e, _, err := c.server.cfg.Store.Get(ctx, key)
		if err != nil {
			return nil, c.failed(err)
		}
		if _, err := c.storage.recordOf(ctx, e); err == nil {
			return nil, apierrors.NewConflict(c.gr(), name, c.unstorable(name, "unsafe deletion is not allowed because the object is decodable from storage"))
		}
		if ctx.Err() != nil {
			return nil, c.failed(context.Cause(ctx)) // out of time is not unreadable
		}
		if !c.req.dryRun() {
			_, err = c.server.cfg.Store.Delete(ctx, key, e.Revision)
		}
		if errors.Is(err, store.ErrConflict) {
			continue
		}
		if err != nil {
			return nil, c.failed(err)
		}
		status := &metav1.Status{Status: metav1.StatusSuccess, Code: http.StatusOK,
			Details: &metav1.StatusDetails{Name: name, Kind: c.kind.GVK.Kind}}
		status.SetGroupVersionKind(schema.GroupVersionKind{Version: "v1", Kind: "Status"})
		return &answer{code: http.StatusOK, object: status}, nil
	}
	return nil, c.failed(store.ErrConflict)
}

// noForce refuses that wish for a whole collection.
func noForce() error {
	return badOptions("DeleteOptions", field.ErrorList{field.Invalid(field.NewPath("ignoreStoreReadErrorWithClusterBreakingPotential"), true,
		"is not allowed with DELETECOLLECTION, try again after removing the option")})
}

// unreadable is what a list that holds something unreadable comes to.
func (c *collection) unreadable(err error) error {
	var told apierrors.APIStatus
	if errors.As(err, &told) {
		return err
	}
	gr := c.gvr.GroupResource()
	return &apierrors.StatusError{ErrStatus: metav1.Status{
		Status: metav1.StatusFailure, Code: http.StatusInternalServerError, Reason: metav1.StatusReasonStoreReadError,
		Message: fmt.Sprintf("failed to read one or more %s from the storage: %v", gr, err),
		Details: &metav1.StatusDetails{Group: gr.Group, Kind: gr.Resource, Causes: []metav1.StatusCause{
			{Type: metav1.CauseTypeUnexpectedServerResponse, Message: err.Error()}}}}}
}
