// Package trustbundle keeps a promise: a cluster trust bundle of the signer
// kubernetes.io/kube-apiserver-serving holds the certificate by which the API
// server is known, and no other bundle of that signer stays. It follows
// upstream's pkg/controller/certificates/clustertrustbundlepublisher.
package trustbundle

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"strings"
	"time"

	certificatesv1 "k8s.io/api/certificates/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"

	"github.com/sampan-dev/sampan/client"
	"github.com/sampan-dev/sampan/client/informer"
	"github.com/sampan-dev/sampan/control/controller"
	"github.com/sampan-dev/sampan/reconcile"
)

const (
	component = "kube-apiserver-serving-clustertrustbundle-publisher"
	signer    = "kubernetes.io/kube-apiserver-serving"
)

// Controller publishes the bundle. It has one key.
type Controller struct {
	transport client.Transport
	loop      *reconcile.Loop
	bundles   *informer.Informer[*certificatesv1.ClusterTrustBundle]
	name      string
	anchors   string
}

// New makes the controller; anchors is the certificates as PEM.
func New(cfg controller.Config, anchors []byte) (*Controller, error) {
	if err := cfg.Valid(); err != nil {
		return nil, err
	}
	if len(anchors) == 0 {
		return nil, errors.New("trust bundle publisher: no certificate")
	}
	sum := sha256.Sum256(anchors)
	c := &Controller{
		transport: cfg.Transport(component),
		bundles:   controller.Mirror(cfg.Mirrors, client.ClusterTrustBundles),
		name:      fmt.Sprintf("%s:%x", strings.ReplaceAll(signer, "/", ":"), sum[:12]),
		anchors:   string(anchors),
	}
	c.loop = reconcile.NewLoop(c, reconcile.Config{Log: cfg.Log, Workers: 1, Synced: cfg.Mirrors.Synced(c.Reads()...)})
	c.bundles.Subscribe(func(e informer.Event[*certificatesv1.ClusterTrustBundle]) {
		if e.Object().Spec.SignerName == signer {
			c.loop.Enqueue(reconcile.Key{})
		}
	})
	c.loop.Enqueue(reconcile.Key{})
	return c, nil
}

// Name implements reconcile.Reconciler.
func (*Controller) Name() string { return "trustbundle" }

// Reads implements reconcile.Reconciler.
func (*Controller) Reads() []schema.GroupVersionResource {
	return []schema.GroupVersionResource{client.ClusterTrustBundles.GroupVersionResource}
}

// Writes implements reconcile.Reconciler.
func (*Controller) Writes() []reconcile.Write {
	gvr := client.ClusterTrustBundles.GroupVersionResource
	return []reconcile.Write{
		{Resource: gvr, Part: reconcile.Create}, {Resource: gvr, Part: "spec[" + signer + "]"}, {Resource: gvr, Part: reconcile.Delete},
	}
}

// Run implements controller.Controller.
func (c *Controller) Run(ctx context.Context) error { return c.loop.Run(ctx) }

// Reconcile implements reconcile.Reconciler.
func (c *Controller) Reconcile(ctx context.Context, _ reconcile.Key) (time.Duration, error) {
	if err := c.publish(ctx); err != nil {
		return 0, fmt.Errorf("publish trust bundle %q: %w", c.name, err)
	}
	var failed error
	for _, b := range c.bundles.List() {
		if b.Spec.SignerName != signer || b.Name == c.name {
			continue
		}
		if err := client.ClusterTrustBundles.Delete(ctx, c.transport, "", b.Name, metav1.DeleteOptions{}); err != nil && !apierrors.IsNotFound(err) {
			failed = errors.Join(failed, fmt.Errorf("delete trust bundle %q: %w", b.Name, err))
		}
	}
	return 0, failed
}

func (c *Controller) publish(ctx context.Context) error {
	have, ok := c.bundles.Get("", c.name)
	if !ok {
		_, err := client.ClusterTrustBundles.Create(ctx, c.transport, &certificatesv1.ClusterTrustBundle{
			ObjectMeta: metav1.ObjectMeta{Name: c.name},
			Spec:       certificatesv1.ClusterTrustBundleSpec{SignerName: signer, TrustBundle: c.anchors},
		})
		if apierrors.IsAlreadyExists(err) {
			return nil
		}
		return err
	}
	if have.Spec.TrustBundle == c.anchors {
		return nil
	}
	next := have.DeepCopy()
	next.Spec.TrustBundle = c.anchors
	_, err := client.ClusterTrustBundles.Update(ctx, c.transport, next)
	return err
}
