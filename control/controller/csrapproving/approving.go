// Package csrapproving keeps a promise: a node that asks for its own client
// certificate, and has been given the right to, gets its request approved. It
// follows upstream's pkg/controller/certificates/approver.
package csrapproving

import (
	"context"
	"crypto/x509"
	"fmt"
	"time"

	authorizationv1 "k8s.io/api/authorization/v1"
	certificatesv1 "k8s.io/api/certificates/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"

	"github.com/sampan-dev/sampan/client"
	"github.com/sampan-dev/sampan/client/informer"
	"github.com/sampan-dev/sampan/control/controller"
	"github.com/sampan-dev/sampan/internal/target"
	"github.com/sampan-dev/sampan/kinds/certificates"
	"github.com/sampan-dev/sampan/reconcile"
)

const component = "certificate-controller"

// again is how long a recognised request without permission waits: the
// permission may come.
const again = 30 * time.Second

// Controller approves. Its keys are requests.
type Controller struct {
	transport client.Transport
	loop      *reconcile.Loop
	requests  *informer.Informer[*certificatesv1.CertificateSigningRequest]
	// isNode says what keeps a request from being for a node's client certificate.
	isNode func(*x509.CertificateRequest, []certificatesv1.KeyUsage) error
}

// New makes the controller; isNode recognises requests for nodes' client
// certificates (csrsigning.CheckNodeClient).
func New(cfg controller.Config, isNode func(*x509.CertificateRequest, []certificatesv1.KeyUsage) error) (*Controller, error) {
	if err := cfg.Valid(); err != nil {
		return nil, err
	}
	c := &Controller{
		transport: cfg.Transport(component), isNode: isNode,
		requests: controller.Mirror(cfg.Mirrors, client.CertificateSigningRequests),
	}
	c.loop = reconcile.NewLoop(c, reconcile.Config{Log: cfg.Log, Synced: cfg.Mirrors.Synced(c.Reads()...)})
	c.requests.Subscribe(func(e informer.Event[*certificatesv1.CertificateSigningRequest]) {
		c.loop.Enqueue(controller.KeyOf(e.Object()))
	})
	return c, nil
}

// Name implements reconcile.Reconciler.
func (*Controller) Name() string { return "csrapproving" }

// Reads implements reconcile.Reconciler.
func (*Controller) Reads() []schema.GroupVersionResource {
	return []schema.GroupVersionResource{client.CertificateSigningRequests.GroupVersionResource}
}

// Writes implements reconcile.Reconciler.
func (*Controller) Writes() []reconcile.Write {
	return []reconcile.Write{{Resource: client.CertificateSigningRequests.GroupVersionResource, Part: "status.conditions[Approved]"}}
}

// Run implements controller.Controller.
func (c *Controller) Run(ctx context.Context) error { return c.loop.Run(ctx) }

// Reconcile implements reconcile.Reconciler.
func (c *Controller) Reconcile(ctx context.Context, key reconcile.Key) (time.Duration, error) {
	have, ok := c.requests.Get("", key.Name)
	if !ok || len(have.Status.Certificate) > 0 || decided(have) || have.Spec.SignerName != certificatesv1.KubeAPIServerClientKubeletSignerName {
		return 0, nil
	}
	parsed, err := certificates.ParseRequest(have.Spec.Request)
	if err != nil {
		return 0, fmt.Errorf("unable to parse csr %q: %w", have.Name, err)
	}
	if c.isNode(parsed, have.Spec.Usages) != nil {
		return 0, nil
	}
	if have.Spec.Username == parsed.Subject.CommonName {
		done, err := c.approve(ctx, have, "selfnodeclient", "Auto approving self kubelet client certificate after SubjectAccessReview.")
		if done || err != nil {
			return 0, err
		}
	}
	done, err := c.approve(ctx, have, "nodeclient", "Auto approving kubelet client certificate after SubjectAccessReview.")
	if done || err != nil {
		return 0, err
	}
	return again, nil
}

func decided(r *certificatesv1.CertificateSigningRequest) bool {
	for _, c := range r.Status.Conditions {
		if c.Type == certificatesv1.CertificateApproved || c.Type == certificatesv1.CertificateDenied {
			return true
		}
	}
	return false
}

// approve approves if the requester holds the right to create the part.
func (c *Controller) approve(ctx context.Context, r *certificatesv1.CertificateSigningRequest, part, message string) (done bool, err error) {
	review := &authorizationv1.SubjectAccessReview{Spec: authorizationv1.SubjectAccessReviewSpec{
		User: r.Spec.Username, UID: r.Spec.UID, Groups: r.Spec.Groups, Extra: map[string]authorizationv1.ExtraValue{},
		ResourceAttributes: &authorizationv1.ResourceAttributes{Group: certificatesv1.GroupName, Version: "*",
			Resource: "certificatesigningrequests", Subresource: part, Verb: "create"},
	}}
	for key, values := range r.Spec.Extra {
		review.Spec.Extra[key] = authorizationv1.ExtraValue(values)
	}
	at := target.Of(authorizationv1.SchemeGroupVersion.WithResource("subjectaccessreviews"), "")
	answer, err := c.transport.Create(ctx, at, review, metav1.CreateOptions{})
	if err != nil {
		return false, fmt.Errorf("ask for the rights of %q: %w", r.Spec.Username, err)
	}
	if got, ok := answer.(*authorizationv1.SubjectAccessReview); !ok || !got.Status.Allowed {
		return false, nil
	}
	next := r.DeepCopy()
	next.Status.Conditions = append(next.Status.Conditions, certificatesv1.CertificateSigningRequestCondition{
		Type: certificatesv1.CertificateApproved, Status: corev1.ConditionTrue, Reason: "AutoApproved", Message: message,
	})
	to := target.Of(client.CertificateSigningRequests.GroupVersionResource, "").Object(r.Name).Sub("approval")
	if _, err := c.transport.Update(ctx, to, next, metav1.UpdateOptions{}); err != nil {
		return false, fmt.Errorf("error updating approval for csr: %w", err)
	}
	return true, nil
}
