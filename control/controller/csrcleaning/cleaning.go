// Package csrcleaning keeps a promise: requests for certificates that nobody
// needs any more go away. Those of users and nodes go an hour after they were
// answered and a day after they were made in vain; those of pods go after a
// quarter of an hour. It follows upstream's pkg/controller/certificates/cleaner.
package csrcleaning

import (
	"context"
	"crypto/x509"
	"encoding/pem"
	"fmt"
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

// How long requests stay.
const (
	answeredStay = time.Hour
	pendingStay  = 24 * time.Hour
	podStay      = 15 * time.Minute
)

// Controller cleans one of the two kinds of request. Its keys are requests.
type Controller struct {
	name  string
	gvr   schema.GroupVersionResource
	loop  *reconcile.Loop
	clean func(ctx context.Context, key reconcile.Key) (time.Duration, error)
}

// New makes the controller of users' and nodes' requests.
func New(cfg controller.Config) (*Controller, error) {
	return build(cfg, "csrcleaning", "certificate-controller", client.CertificateSigningRequests, untilStale)
}

// NewPods makes the controller of pods' requests.
func NewPods(cfg controller.Config) (*Controller, error) {
	return build(cfg, "podcertificatecleaning", "podcertificaterequestcleaner", client.PodCertificateRequests,
		func(r *certificatesv1.PodCertificateRequest, now time.Time) time.Duration {
			return r.CreationTimestamp.Add(podStay).Sub(now)
		})
}

// build makes a controller that deletes each object once left says that no time is.
func build[T client.Object](cfg controller.Config, name, component string, r client.Resource[T], left func(T, time.Time) time.Duration) (*Controller, error) {
	if err := cfg.Valid(); err != nil {
		return nil, err
	}
	c := &Controller{name: name, gvr: r.GroupVersionResource}
	transport, mirror := cfg.Transport(component), controller.Mirror(cfg.Mirrors, r)
	c.clean = func(ctx context.Context, key reconcile.Key) (time.Duration, error) {
		obj, ok := mirror.Get(key.Namespace, key.Name)
		if !ok {
			return 0, nil
		}
		if wait := left(obj, time.Now()); wait > 0 {
			return wait, nil
		}
		uid := obj.GetUID()
		err := r.Delete(ctx, transport, key.Namespace, key.Name, metav1.DeleteOptions{Preconditions: &metav1.Preconditions{UID: &uid}})
		if err != nil && !apierrors.IsNotFound(err) && !apierrors.IsConflict(err) {
			return 0, fmt.Errorf("delete stale %s: %w", key, err)
		}
		return 0, nil
	}
	c.loop = reconcile.NewLoop(c, reconcile.Config{Log: cfg.Log, Workers: 1, Synced: cfg.Mirrors.Synced(c.gvr)})
	mirror.Subscribe(func(e informer.Event[T]) { c.loop.Enqueue(controller.KeyOf(e.Object())) })
	return c, nil
}

// Name implements reconcile.Reconciler.
func (c *Controller) Name() string { return c.name }

// Reads implements reconcile.Reconciler.
func (c *Controller) Reads() []schema.GroupVersionResource {
	return []schema.GroupVersionResource{c.gvr}
}

// Writes implements reconcile.Reconciler.
func (c *Controller) Writes() []reconcile.Write {
	return []reconcile.Write{{Resource: c.gvr, Part: reconcile.Delete}}
}

// Run implements controller.Controller.
func (c *Controller) Run(ctx context.Context) error { return c.loop.Run(ctx) }

// Reconcile implements reconcile.Reconciler.
func (c *Controller) Reconcile(ctx context.Context, key reconcile.Key) (time.Duration, error) {
	return c.clean(ctx, key)
}

// untilStale is how long a request may still stay; upstream looks once an hour,
// we wait for the moment.
func untilStale(r *certificatesv1.CertificateSigningRequest, now time.Time) time.Duration {
	var ends []time.Time
	issued := len(r.Status.Certificate) > 0
	if len(r.Status.Conditions) == 0 {
		ends = append(ends, r.CreationTimestamp.Add(pendingStay))
	}
	for _, c := range r.Status.Conditions {
		if c.Type == certificatesv1.CertificateApproved && issued {
			if end, ok := expiry(r.Status.Certificate); ok {
				ends = append(ends, end)
			}
		}
		if c.LastUpdateTime.IsZero() {
			continue
		}
		switch {
		case c.Type == certificatesv1.CertificateDenied, c.Type == certificatesv1.CertificateFailed,
			c.Type == certificatesv1.CertificateApproved && issued:
			ends = append(ends, c.LastUpdateTime.Add(answeredStay))
		case c.Type == certificatesv1.CertificateApproved:
			ends = append(ends, c.LastUpdateTime.Add(pendingStay))
		}
	}
	wait := pendingStay // nothing ends it: look again tomorrow
	for _, end := range ends {
		wait = min(wait, end.Sub(now))
	}
	return wait
}

// expiry is the end of the first certificate's life.
func expiry(text []byte) (time.Time, bool) {
	block, _ := pem.Decode(text)
	if block == nil {
		return time.Time{}, false
	}
	cert, err := x509.ParseCertificate(block.Bytes)
	if err != nil {
		return time.Time{}, false
	}
	return cert.NotAfter, true
}
