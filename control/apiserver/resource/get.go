package resource

import (
	"context"
	"net/http"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
)

// get answers with one object: as the store has it, or from the cache when the
// client says that an older version will do.
func (c *call) get(ctx context.Context) (*answer, error) {
	if c.storage == nil || c.sub != nil && c.sub.Copy == nil && c.sub.Show == nil {
		return nil, apierrors.NewMethodNotSupported(c.gr(), verbGet)
	}
	r, err := c.find(ctx)
	if err != nil {
		return nil, c.failed(err)
	}
	out := c.done(http.StatusOK, c.show(r.obj))
	if c.kind.View == nil && (c.sub == nil || c.sub.Show == nil) {
		out.entry = r.entry
	}
	return out, nil
}

func (c *call) find(ctx context.Context) (*record, error) {
	if c.storage.computed != nil {
		return c.computedRecord(ctx)
	}
	t := c.req.Target
	revision, err := parseRevision(c.req.Get.ResourceVersion)
	if err != nil {
		return nil, err
	}
	if c.req.Get.ResourceVersion == "" {
		return c.storage.read(ctx, t.Namespace, t.Name)
	}
	mirror, err := c.storage.live(ctx)
	if err != nil {
		return nil, err
	}
	if err := waitFor(ctx, mirror, revision); err != nil {
		return nil, err
	}
	if r, err := c.storage.peek(ctx, t.Namespace, t.Name); r != nil || err != nil {
		return r, err
	}
	return nil, apierrors.NewNotFound(c.gr(), t.Name)
}
