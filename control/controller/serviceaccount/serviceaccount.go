// Package serviceaccount keeps a promise: every namespace that is not going away
// has a service account named "default". It follows upstream's
// pkg/controller/serviceaccount.
package serviceaccount

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

const (
	component = "service-account-controller"
	// account is what pods run as that do not say otherwise.
	account = "default"
)

// Controller keeps the default accounts. Its keys are namespaces.
type Controller struct {
	transport  client.Transport
	loop       *reconcile.Loop
	namespaces *informer.Informer[*corev1.Namespace]
	accounts   *informer.Informer[*corev1.ServiceAccount]
}

// New makes the controller.
func New(cfg controller.Config) (*Controller, error) {
	if err := cfg.Valid(); err != nil {
		return nil, err
	}
	c := &Controller{
		transport:  cfg.Transport(component),
		namespaces: controller.Mirror(cfg.Mirrors, client.Namespaces),
		accounts:   controller.Mirror(cfg.Mirrors, client.ServiceAccounts),
	}
	c.loop = reconcile.NewLoop(c, reconcile.Config{Log: cfg.Log, Synced: cfg.Mirrors.Synced(c.Reads()...)})
	c.namespaces.Subscribe(func(e informer.Event[*corev1.Namespace]) { c.loop.Enqueue(controller.KeyOf(e.Object())) })
	c.accounts.Subscribe(func(e informer.Event[*corev1.ServiceAccount]) {
		if e.New == nil && e.Old.Name == account {
			c.loop.Enqueue(reconcile.Key{Name: e.Old.Namespace})
		}
	})
	return c, nil
}

// Name implements reconcile.Reconciler.
func (*Controller) Name() string { return "serviceaccount" }

// Reads implements reconcile.Reconciler.
func (*Controller) Reads() []schema.GroupVersionResource {
	return []schema.GroupVersionResource{client.Namespaces.GroupVersionResource, client.ServiceAccounts.GroupVersionResource}
}

// Writes implements reconcile.Reconciler.
func (*Controller) Writes() []reconcile.Write {
	return []reconcile.Write{{Resource: client.ServiceAccounts.GroupVersionResource, Part: reconcile.Create}}
}

// Run implements controller.Controller.
func (c *Controller) Run(ctx context.Context) error { return c.loop.Run(ctx) }

// Reconcile implements reconcile.Reconciler.
func (c *Controller) Reconcile(ctx context.Context, key reconcile.Key) (time.Duration, error) {
	ns, ok := c.namespaces.Get("", key.Name)
	if !ok || ns.DeletionTimestamp != nil || ns.Status.Phase == corev1.NamespaceTerminating {
		return 0, nil
	}
	if _, ok := c.accounts.Get(ns.Name, account); ok {
		return 0, nil
	}
	_, err := client.ServiceAccounts.Create(ctx, c.transport, &corev1.ServiceAccount{
		ObjectMeta: metav1.ObjectMeta{Namespace: ns.Name, Name: account},
	})
	if err == nil || apierrors.IsAlreadyExists(err) || apierrors.IsNotFound(err) || apierrors.HasStatusCause(err, corev1.NamespaceTerminatingCause) {
		return 0, nil
	}
	return 0, fmt.Errorf("create service account %q in namespace %q: %w", account, ns.Name, err)
}
