// Package rootca keeps a promise: every namespace has a config map with the
// certificate by which its pods know the API server. It follows upstream's
// pkg/controller/certificates/rootcacertpublisher.
package rootca

import (
	"context"
	"errors"
	"fmt"
	"maps"
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
	component = "root-ca-cert-publisher"
	// name and file are what the token volumes of pods refer to.
	name = "kube-root-ca.crt"
	file = "ca.crt"

	descriptionAnnotation = "kubernetes.io/description"
	description           = "Contains a CA bundle that can be used to verify the kube-apiserver when using internal endpoints such as the internal service IP or kubernetes.default.svc. " +
		"No other usage is guaranteed across distributions of Kubernetes clusters."
)

// Controller publishes the certificate. Its keys are namespaces.
type Controller struct {
	transport  client.Transport
	loop       *reconcile.Loop
	namespaces *informer.Informer[*corev1.Namespace]
	configs    *informer.Informer[*corev1.ConfigMap]
	bundle     string
}

// New makes the controller; bundle is the certificates as PEM.
func New(cfg controller.Config, bundle []byte) (*Controller, error) {
	if err := cfg.Valid(); err != nil {
		return nil, err
	}
	if len(bundle) == 0 {
		return nil, errors.New("root CA publisher: no certificate")
	}
	c := &Controller{
		transport:  cfg.Transport(component),
		namespaces: controller.Mirror(cfg.Mirrors, client.Namespaces),
		configs:    controller.Mirror(cfg.Mirrors, client.ConfigMaps),
		bundle:     string(bundle),
	}
	c.loop = reconcile.NewLoop(c, reconcile.Config{Log: cfg.Log, Synced: cfg.Mirrors.Synced(c.Reads()...)})
	c.namespaces.Subscribe(func(e informer.Event[*corev1.Namespace]) { c.loop.Enqueue(controller.KeyOf(e.Object())) })
	c.configs.Subscribe(func(e informer.Event[*corev1.ConfigMap]) {
		if e.Object().Name == name {
			c.loop.Enqueue(reconcile.Key{Name: e.Object().Namespace})
		}
	})
	return c, nil
}

// Name implements reconcile.Reconciler.
func (*Controller) Name() string { return "rootca" }

// Reads implements reconcile.Reconciler.
func (*Controller) Reads() []schema.GroupVersionResource {
	return []schema.GroupVersionResource{client.Namespaces.GroupVersionResource, client.ConfigMaps.GroupVersionResource}
}

// Writes implements reconcile.Reconciler.
func (*Controller) Writes() []reconcile.Write {
	maps := client.ConfigMaps.GroupVersionResource
	return []reconcile.Write{{Resource: maps, Part: reconcile.Create}, {Resource: maps, Part: "data[" + name + "]"}}
}

// Run implements controller.Controller.
func (c *Controller) Run(ctx context.Context) error { return c.loop.Run(ctx) }

// Reconcile implements reconcile.Reconciler.
func (c *Controller) Reconcile(ctx context.Context, key reconcile.Key) (time.Duration, error) {
	ns, ok := c.namespaces.Get("", key.Name)
	if !ok || ns.DeletionTimestamp != nil || ns.Status.Phase == corev1.NamespaceTerminating {
		return 0, nil
	}
	want := map[string]string{file: c.bundle}
	have, ok := c.configs.Get(ns.Name, name)
	var err error
	switch {
	case !ok:
		_, err = client.ConfigMaps.Create(ctx, c.transport, &corev1.ConfigMap{
			ObjectMeta: metav1.ObjectMeta{
				Namespace: ns.Name, Name: name, Annotations: map[string]string{descriptionAnnotation: description},
			},
			Data: want,
		})
		if apierrors.IsAlreadyExists(err) || apierrors.IsNotFound(err) || apierrors.HasStatusCause(err, corev1.NamespaceTerminatingCause) {
			return 0, nil
		}
	case maps.Equal(have.Data, want) && have.Annotations[descriptionAnnotation] != "":
		return 0, nil
	default:
		next := have.DeepCopy()
		next.Data = want
		if next.Annotations == nil {
			next.Annotations = map[string]string{}
		}
		next.Annotations[descriptionAnnotation] = description
		_, err = client.ConfigMaps.Update(ctx, c.transport, next)
	}
	if err != nil {
		return 0, fmt.Errorf("publish the root certificate in namespace %q: %w", ns.Name, err)
	}
	return 0, nil
}
