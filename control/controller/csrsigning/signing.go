// Package csrsigning keeps a promise: approved requests for certificates that are
// addressed to one of Kubernetes' own signers are signed by the cluster's
// authority, or marked as failed with the reason. It follows upstream's
// pkg/controller/certificates/signer.
package csrsigning

import (
	"context"
	"encoding/pem"
	"errors"
	"fmt"
	"time"

	certificatesv1 "k8s.io/api/certificates/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"

	"github.com/sampan-dev/sampan/client"
	"github.com/sampan-dev/sampan/client/informer"
	"github.com/sampan-dev/sampan/control/controller"
	"github.com/sampan-dev/sampan/internal/pki"
	"github.com/sampan-dev/sampan/kinds/certificates"
	"github.com/sampan-dev/sampan/reconcile"
)

const component = "certificate-controller"

// Lives of signed certificates: a year unless less was asked for.
const (
	maxLifetime = 365 * 24 * time.Hour
	minLifetime = 10 * time.Minute
)

// Controller signs. Its keys are requests.
type Controller struct {
	transport client.Transport
	loop      *reconcile.Loop
	requests  *informer.Informer[*certificatesv1.CertificateSigningRequest]
	authority *pki.Authority
}

// New makes the controller.
func New(cfg controller.Config, authority *pki.Authority) (*Controller, error) {
	if err := cfg.Valid(); err != nil {
		return nil, err
	}
	if authority == nil {
		return nil, errors.New("certificate signing: no authority")
	}
	c := &Controller{
		transport: cfg.Transport(component), authority: authority,
		requests: controller.Mirror(cfg.Mirrors, client.CertificateSigningRequests),
	}
	c.loop = reconcile.NewLoop(c, reconcile.Config{Log: cfg.Log, Synced: cfg.Mirrors.Synced(c.Reads()...)})
	c.requests.Subscribe(func(e informer.Event[*certificatesv1.CertificateSigningRequest]) {
		c.loop.Enqueue(controller.KeyOf(e.Object()))
	})
	return c, nil
}

// Name implements reconcile.Reconciler.
func (*Controller) Name() string { return "csrsigning" }

// Reads implements reconcile.Reconciler.
func (*Controller) Reads() []schema.GroupVersionResource {
	return []schema.GroupVersionResource{client.CertificateSigningRequests.GroupVersionResource}
}

// Writes implements reconcile.Reconciler.
func (*Controller) Writes() []reconcile.Write {
	return []reconcile.Write{{Resource: client.CertificateSigningRequests.GroupVersionResource, Part: "status.certificate"}}
}

// Run implements controller.Controller.
func (c *Controller) Run(ctx context.Context) error { return c.loop.Run(ctx) }

// Reconcile implements reconcile.Reconciler.
func (c *Controller) Reconcile(ctx context.Context, key reconcile.Key) (time.Duration, error) {
	have, ok := c.requests.Get("", key.Name)
	if !ok || len(have.Status.Certificate) > 0 || !approved(have) || has(have, certificatesv1.CertificateFailed) {
		return 0, nil
	}
	check, ok := signers[have.Spec.SignerName]
	if !ok {
		return 0, nil
	}
	parsed, err := certificates.ParseRequest(have.Spec.Request)
	if err != nil {
		return 0, fmt.Errorf("unable to parse csr %q: %w", have.Name, err)
	}
	next := have.DeepCopy()
	if err := check(parsed, have.Spec.Usages); err != nil {
		next.Status.Conditions = append(next.Status.Conditions, certificatesv1.CertificateSigningRequestCondition{
			Type: certificatesv1.CertificateFailed, Status: corev1.ConditionTrue, Reason: "SignerValidationFailure",
			Message: err.Error(), LastUpdateTime: metav1.Now(),
		})
		if _, err := client.CertificateSigningRequests.UpdateStatus(ctx, c.transport, next); err != nil {
			return 0, fmt.Errorf("error adding failure condition for csr: %w", err)
		}
		return 0, nil
	}
	grant, err := usage(have.Spec.Usages)
	if err != nil {
		return 0, fmt.Errorf("error auto signing csr: %w", err)
	}
	grant.Lifetime = lifetime(have.Spec.ExpirationSeconds)
	der, err := c.authority.SignRequest(parsed.Raw, grant)
	if err != nil {
		return 0, fmt.Errorf("error auto signing csr: %w", err)
	}
	next.Status.Certificate = pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})
	if _, err := client.CertificateSigningRequests.UpdateStatus(ctx, c.transport, next); err != nil {
		return 0, fmt.Errorf("error updating signature for csr: %w", err)
	}
	return 0, nil
}

// lifetime honours what was asked for, within bounds.
func lifetime(seconds *int32) time.Duration {
	if seconds == nil {
		return maxLifetime
	}
	return min(max(time.Duration(*seconds)*time.Second, minLifetime), maxLifetime)
}

// approved: a denial outweighs.
func approved(r *certificatesv1.CertificateSigningRequest) bool {
	return has(r, certificatesv1.CertificateApproved) && !has(r, certificatesv1.CertificateDenied)
}

func has(r *certificatesv1.CertificateSigningRequest, kind certificatesv1.RequestConditionType) bool {
	for _, c := range r.Status.Conditions {
		if c.Type == kind && c.Status != corev1.ConditionFalse {
			return true
		}
	}
	return false
}
