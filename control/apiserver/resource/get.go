package resource

import (
	"context"
	"fmt"
	"net/http"
	"strings"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"

	"github.com/sampan-dev/sampan/kinds"
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
	if err := c.scaled(r.obj); err != nil {
		return nil, err
	}
	out := c.done(http.StatusOK, c.show(r.obj))
	if c.kind.View == nil && (c.sub == nil || c.sub.Show == nil) {
		out.entry = r.entry
	}
	return out, nil
}

// scaled refuses to show the scale of a custom object that says nothing of replicas.
func (c *call) scaled(obj kinds.Object) error {
	custom, ok := obj.(*unstructured.Unstructured)
	if !ok || c.sub == nil || c.sub.Replicas == "" {
		return nil
	}
	if _, has, err := unstructured.NestedInt64(custom.Object, strings.Split(c.sub.Replicas, ".")...); has || err != nil {
		return err
	}
	return apierrors.NewInternalError(fmt.Errorf("the spec replicas field %q does not exist", "."+c.sub.Replicas))
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
