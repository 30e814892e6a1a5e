// Package legacytoken keeps a promise: tokens of service accounts that were made
// without being asked for, lie in secrets and never end, end nevertheless when
// nobody has used them for a year. They are marked invalid first, and a year later
// their secrets are deleted. It follows upstream's
// legacy-service-account-token-cleaner in pkg/controller/serviceaccount.
package legacytoken

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"

	"github.com/sampan-dev/sampan/client"
	"github.com/sampan-dev/sampan/client/informer"
	"github.com/sampan-dev/sampan/control/controller"
	"github.com/sampan-dev/sampan/internal/target"
	"github.com/sampan-dev/sampan/reconcile"
)

const (
	// Unused is how long a token may lie without being used, and then how long it
	// stays invalid: upstream's --legacy-service-account-token-clean-up-period.
	Unused = 365 * 24 * time.Hour
	// every is how often all tokens are looked at: their dates are days.
	every = 24 * time.Hour
)

// The record of since when the API server notes which tokens are used.
const (
	trackingName = "kube-apiserver-legacy-service-account-token-tracking"
	trackingKey  = "since"
)

// Controller marks and deletes. Its only key is the record.
type Controller struct {
	transport client.Transport
	loop      *reconcile.Loop
	secrets   *informer.Informer[*corev1.Secret]
	accounts  *informer.Informer[*corev1.ServiceAccount]
	pods      *informer.Informer[*corev1.Pod]
	log       *slog.Logger
}

// New makes the controller.
func New(cfg controller.Config) (*Controller, error) {
	if err := cfg.Valid(); err != nil {
		return nil, err
	}
	c := &Controller{
		transport: cfg.Transport("legacy-service-account-token-cleaner"), log: cfg.Log,
		secrets:  controller.Mirror(cfg.Mirrors, client.Secrets),
		accounts: controller.Mirror(cfg.Mirrors, client.ServiceAccounts),
		pods:     controller.Mirror(cfg.Mirrors, client.Pods),
	}
	c.loop = reconcile.NewLoop(c, reconcile.Config{Workers: 1, Log: cfg.Log, Synced: cfg.Mirrors.Synced(mirrored()...)})
	c.loop.Enqueue(reconcile.Key{Namespace: metav1.NamespaceSystem, Name: trackingName})
	return c, nil
}

// Name implements reconcile.Reconciler.
func (*Controller) Name() string { return "legacytoken" }

// Reads implements reconcile.Reconciler.
func (*Controller) Reads() []schema.GroupVersionResource {
	return append(mirrored(), client.ConfigMaps.GroupVersionResource) // of these the record alone
}

func mirrored() []schema.GroupVersionResource {
	return []schema.GroupVersionResource{client.Secrets.GroupVersionResource, client.ServiceAccounts.GroupVersionResource, client.Pods.GroupVersionResource}
}

// Writes implements reconcile.Reconciler.
func (*Controller) Writes() []reconcile.Write {
	gvr := client.Secrets.GroupVersionResource
	return []reconcile.Write{{Resource: gvr, Part: "metadata.labels[" + invalidSince + "]"}, {Resource: gvr, Part: reconcile.Delete}}
}

// Run implements controller.Controller.
func (c *Controller) Run(ctx context.Context) error { return c.loop.Run(ctx) }

// Reconcile implements reconcile.Reconciler.
func (c *Controller) Reconcile(ctx context.Context, key reconcile.Key) (time.Duration, error) {
	tracked, err := c.tracked(ctx, key)
	if err != nil {
		return 0, fmt.Errorf("find out since when tokens are tracked: %w", err)
	}
	mounted := map[string]map[string]bool{} // of the namespaces that were asked for
	p := picture{now: time.Now(), tracked: tracked, secrets: c.secrets.List(), account: c.accounts.Get,
		mounted: func(namespace, name string) bool {
			if mounted[namespace] == nil {
				mounted[namespace] = c.mounted(namespace)
			}
			return mounted[namespace][name]
		}}
	var errs []error
	for _, s := range plan(p) {
		errs = append(errs, c.do(ctx, s, p.now))
	}
	return every, errors.Join(errs...)
}

// tracked is the first moment of the day after the one that the record names.
func (c *Controller) tracked(ctx context.Context, key reconcile.Key) (time.Time, error) {
	record, err := client.ConfigMaps.Get(ctx, c.transport, key.Namespace, key.Name)
	if err != nil {
		return time.Time{}, err
	}
	since, err := time.Parse(time.DateOnly, record.Data[trackingKey])
	if err != nil {
		return time.Time{}, fmt.Errorf("config map %q: %w", key, err)
	}
	return since.AddDate(0, 0, 1), nil
}

func (c *Controller) mounted(namespace string) map[string]bool {
	names := map[string]bool{}
	for _, pod := range c.pods.List() {
		if pod.Namespace == namespace {
			secretsOf(pod, names)
		}
	}
	return names
}

// do takes one step, unless the secret has changed meanwhile.
func (c *Controller) do(ctx context.Context, s step, now time.Time) error {
	key := controller.KeyOf(s.secret)
	if s.remove {
		c.log.Info("delete a service account token", "secret", key.String(), "reason", s.reason)
		version := s.secret.ResourceVersion
		err := client.Secrets.Delete(ctx, c.transport, key.Namespace, key.Name, metav1.DeleteOptions{Preconditions: &metav1.Preconditions{ResourceVersion: &version}})
		if err != nil && !apierrors.IsConflict(err) && !apierrors.IsNotFound(err) {
			return fmt.Errorf("delete token %q: %w", key, err)
		}
		return nil
	}
	c.log.Info("mark a service account token as invalid", "secret", key.String(), "reason", s.reason)
	patch, err := json.Marshal(map[string]any{"metadata": map[string]any{"uid": s.secret.UID, "labels": map[string]string{invalidSince: now.UTC().Format(time.DateOnly)}}})
	if err == nil {
		_, err = client.Secrets.Patch(ctx, c.transport, target.Target{Namespace: key.Namespace, Name: key.Name}, client.Patch{Type: types.MergePatchType, Data: patch})
	}
	if err != nil && !apierrors.IsConflict(err) && !apierrors.IsNotFound(err) {
		return fmt.Errorf("mark token %q: %w", key, err)
	}
	return nil
}
