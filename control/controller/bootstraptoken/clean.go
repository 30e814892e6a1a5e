package bootstraptoken

import (
	"context"
	"fmt"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"

	"github.com/sampan-dev/sampan/client"
	"github.com/sampan-dev/sampan/client/informer"
	"github.com/sampan-dev/sampan/control/controller"
	"github.com/sampan-dev/sampan/reconcile"
)

// Cleaner deletes tokens whose time is over. Its keys are secrets.
type Cleaner struct {
	transport client.Transport
	loop      *reconcile.Loop
	secrets   *informer.Informer[*corev1.Secret]
}

// NewCleaner makes the controller.
func NewCleaner(cfg controller.Config) (*Cleaner, error) {
	if err := cfg.Valid(); err != nil {
		return nil, err
	}
	c := &Cleaner{transport: cfg.Transport("token-cleaner"), secrets: controller.Mirror(cfg.Mirrors, client.Secrets)}
	c.loop = reconcile.NewLoop(c, reconcile.Config{Log: cfg.Log, Workers: 1, Synced: cfg.Mirrors.Synced(c.Reads()...)})
	c.secrets.Subscribe(func(e informer.Event[*corev1.Secret]) {
		if isToken(e.Object()) {
			c.loop.Enqueue(controller.KeyOf(e.Object()))
		}
	})
	return c, nil
}

// Name implements reconcile.Reconciler.
func (*Cleaner) Name() string { return "tokencleaner" }

// Reads implements reconcile.Reconciler.
func (*Cleaner) Reads() []schema.GroupVersionResource {
	return []schema.GroupVersionResource{client.Secrets.GroupVersionResource}
}

// Writes implements reconcile.Reconciler.
func (*Cleaner) Writes() []reconcile.Write {
	return []reconcile.Write{{Resource: client.Secrets.GroupVersionResource, Part: reconcile.Delete}}
}

// Run implements controller.Controller.
func (c *Cleaner) Run(ctx context.Context) error { return c.loop.Run(ctx) }

// Reconcile implements reconcile.Reconciler.
func (c *Cleaner) Reconcile(ctx context.Context, key reconcile.Key) (time.Duration, error) {
	have, ok := c.secrets.Get(key.Namespace, key.Name)
	if !ok || !isToken(have) {
		return 0, nil
	}
	left, ends := untilEnd(have, time.Now())
	if !ends {
		return 0, nil
	}
	if left > 0 {
		return left, nil
	}
	err := client.Secrets.Delete(ctx, c.transport, key.Namespace, key.Name, metav1.DeleteOptions{Preconditions: &metav1.Preconditions{UID: &have.UID}})
	if err != nil && !apierrors.IsNotFound(err) && !apierrors.IsConflict(err) {
		return 0, fmt.Errorf("delete expired token %q: %w", key.Name, err)
	}
	return 0, nil
}
