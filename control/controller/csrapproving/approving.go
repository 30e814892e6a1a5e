// Package csrapproving keeps two promises: a node that asks for its own client
// certificate, and has been given the right to, gets its request approved, as in
// upstream's pkg/controller/certificates/approver; and so does one that asks for
// the certificate it serves the kubelet API with, if it asks for names that are its
// own and nobody else's. Upstream leaves the latter to others.
package csrapproving

import (
	"context"
	"crypto/x509"
	"fmt"
	"slices"
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
	nodes     *informer.Informer[*corev1.Node]
	checks    Checks
}

// reviews are questions about what somebody may do.
var reviews = authorizationv1.SchemeGroupVersion.WithResource("subjectaccessreviews")

// Check says what keeps a request from being of a sort; nil: it is one.
type Check func(*x509.CertificateRequest, []certificatesv1.KeyUsage) error

// Checks recognise what nodes ask for: csrsigning's, which also decide what is
// signed.
type Checks struct {
	Client, Serving Check
	// Agent says of a request for a node's own certificate whether it asks for the group
	// of our agents. That is granted to who may create "agentclient", beside what
	// upstream asks for.
	Agent func(*x509.CertificateRequest) bool
}

// New makes the controller.
func New(cfg controller.Config, checks Checks) (*Controller, error) {
	if err := cfg.Valid(); err != nil {
		return nil, err
	}
	c := &Controller{
		transport: cfg.Transport(component), checks: checks,
		requests: controller.Mirror(cfg.Mirrors, client.CertificateSigningRequests),
		nodes:    controller.Mirror(cfg.Mirrors, client.Nodes),
	}
	c.loop = reconcile.NewLoop(c, reconcile.Config{Log: cfg.Log, Synced: cfg.Mirrors.Synced(c.Reads()...)})
	c.requests.Subscribe(func(e informer.Event[*certificatesv1.CertificateSigningRequest]) {
		c.loop.Enqueue(controller.KeyOf(e.Object()))
	})
	c.nodes.Subscribe(func(e informer.Event[*corev1.Node]) {
		if e.New != nil && (e.Old == nil || !slices.Equal(e.Old.Status.Addresses, e.New.Status.Addresses)) {
			c.enqueueOf(e.New)
		}
	})
	return c, nil
}

// Name implements reconcile.Reconciler.
func (*Controller) Name() string { return "csrapproving" }

// Reads implements reconcile.Reconciler.
func (*Controller) Reads() []schema.GroupVersionResource {
	return []schema.GroupVersionResource{client.CertificateSigningRequests.GroupVersionResource, client.Nodes.GroupVersionResource}
}

// Writes implements reconcile.Reconciler.
func (*Controller) Writes() []reconcile.Write {
	return []reconcile.Write{
		{Resource: client.CertificateSigningRequests.GroupVersionResource, Part: "status.conditions[Approved]"},
		{Resource: reviews, Part: reconcile.Create}, // a question, which is answered and not kept
	}
}

// Run implements controller.Controller.
func (c *Controller) Run(ctx context.Context) error { return c.loop.Run(ctx) }

// Reconcile implements reconcile.Reconciler.
func (c *Controller) Reconcile(ctx context.Context, key reconcile.Key) (time.Duration, error) {
	have, ok := c.requests.Get("", key.Name)
	if !ok || len(have.Status.Certificate) > 0 || decided(have) {
		return 0, nil
	}
	switch have.Spec.SignerName {
	case certificatesv1.KubeAPIServerClientKubeletSignerName:
		return c.client(ctx, have)
	case certificatesv1.KubeletServingSignerName:
		return 0, c.serving(ctx, have)
	}
	return 0, nil
}

// client decides on a node's certificate towards the API server.
func (c *Controller) client(ctx context.Context, have *certificatesv1.CertificateSigningRequest) (time.Duration, error) {
	parsed, err := certificates.ParseRequest(have.Spec.Request)
	if err != nil {
		return 0, fmt.Errorf("unable to parse csr %q: %w", have.Name, err)
	}
	if c.checks.Client(parsed, have.Spec.Usages) != nil {
		return 0, nil
	}
	if c.checks.Agent(parsed) {
		if allowed, err := c.may(ctx, have, "agentclient"); err != nil || !allowed {
			return again, err
		}
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
	if allowed, err := c.may(ctx, r, part); err != nil || !allowed {
		return false, err
	}
	return true, c.write(ctx, r, message)
}

// may says whether the requester holds the right to create the part.
func (c *Controller) may(ctx context.Context, r *certificatesv1.CertificateSigningRequest, part string) (bool, error) {
	review := &authorizationv1.SubjectAccessReview{Spec: authorizationv1.SubjectAccessReviewSpec{
		User: r.Spec.Username, UID: r.Spec.UID, Groups: r.Spec.Groups, Extra: map[string]authorizationv1.ExtraValue{},
		ResourceAttributes: &authorizationv1.ResourceAttributes{Group: certificatesv1.GroupName, Version: "*",
			Resource: "certificatesigningrequests", Subresource: part, Verb: "create"},
	}}
	for key, values := range r.Spec.Extra {
		review.Spec.Extra[key] = authorizationv1.ExtraValue(values)
	}
	at := target.Of(reviews, "")
	answer, err := c.transport.Create(ctx, at, review, metav1.CreateOptions{})
	if err != nil {
		return false, fmt.Errorf("ask for the rights of %q: %w", r.Spec.Username, err)
	}
	got, ok := answer.(*authorizationv1.SubjectAccessReview)
	return ok && got.Status.Allowed, nil
}

// write approves.
func (c *Controller) write(ctx context.Context, r *certificatesv1.CertificateSigningRequest, message string) error {
	next := r.DeepCopy()
	next.Status.Conditions = append(next.Status.Conditions, certificatesv1.CertificateSigningRequestCondition{
		Type: certificatesv1.CertificateApproved, Status: corev1.ConditionTrue, Reason: "AutoApproved", Message: message,
	})
	to := target.Of(client.CertificateSigningRequests.GroupVersionResource, "").Object(r.Name).Sub("approval")
	if _, err := c.transport.Update(ctx, to, next, metav1.UpdateOptions{}); err != nil {
		return fmt.Errorf("error updating approval for csr: %w", err)
	}
	return nil
}
