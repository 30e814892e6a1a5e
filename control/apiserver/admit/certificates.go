package admit

import (
	"bytes"
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	certificatesv1 "k8s.io/api/certificates/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/validation/field"

	"github.com/sampan-dev/sampan/control/apiserver/authz"
	"github.com/sampan-dev/sampan/control/apiserver/resource"
	"github.com/sampan-dev/sampan/internal/identity"
	"github.com/sampan-dev/sampan/kinds/certificates"
)

// issuedSkew is how far from now a pod's new certificate may begin.
const issuedSkew = 5 * time.Minute

// certificateRules are what upstream's storage writes into requests for
// certificates: who asks, and when it was decided.
type certificateRules struct {
	authz *authz.Authorizer
	now   func() time.Time
}

func (r certificateRules) Admit(_ context.Context, a *resource.Attributes) error {
	now, ok := a.Object.(*certificatesv1.CertificateSigningRequest)
	if !ok {
		return nil
	}
	old, _ := a.Old.(*certificatesv1.CertificateSigningRequest)
	switch {
	case a.Operation == resource.OpCreate && a.Target.Subresource == "":
		requester(now, a.User)
	case a.Operation == resource.OpUpdate && a.Target.Subresource != "" && old != nil:
		stamp(now.Status.Conditions, old.Status.Conditions, metav1.NewTime(r.now()))
	}
	return nil
}

// requester writes down who asks, whatever the request says.
func requester(r *certificatesv1.CertificateSigningRequest, who identity.Identity) {
	r.Spec.Username, r.Spec.UID, r.Spec.Groups, r.Spec.Extra = who.Name, who.UID, slices.Clone(who.Groups), nil
	for key, values := range who.Extra {
		if r.Spec.Extra == nil {
			r.Spec.Extra = map[string]certificatesv1.ExtraValue{}
		}
		r.Spec.Extra[key] = slices.Clone(values)
	}
}

// stamp gives conditions the times that their writer left out.
func stamp(now, old []certificatesv1.CertificateSigningRequestCondition, at metav1.Time) {
	for i := range now {
		c := &now[i]
		if c.LastUpdateTime.IsZero() {
			c.LastUpdateTime = at
		}
		if !c.LastTransitionTime.IsZero() {
			continue
		}
		c.LastTransitionTime = at
		was := slices.IndexFunc(old, func(o certificatesv1.CertificateSigningRequestCondition) bool {
			return o.Type == c.Type && o.Status == c.Status && !o.LastTransitionTime.IsZero()
		})
		if was >= 0 {
			c.LastTransitionTime = old[was].LastTransitionTime
		}
	}
}

// Validate judges the certificates of pods, and takes care once more that no webhook
// changes who asks.
func (r certificateRules) Validate(ctx context.Context, a *resource.Attributes) error {
	switch now := a.Object.(type) {
	case *certificatesv1.CertificateSigningRequest:
		if a.Target.Subresource == "" && a.Operation == resource.OpCreate {
			requester(now, a.User)
		}
	case *certificatesv1.PodCertificateRequest:
		return r.issue(ctx, a, now)
	}
	return nil
}

// signingRequest is the request for a certificate before and after a change of one
// of its subresources.
func signingRequest(a *resource.Attributes, sub string) (old, now *certificatesv1.CertificateSigningRequest, ok bool) {
	old, was := a.Old.(*certificatesv1.CertificateSigningRequest)
	now, is := a.Object.(*certificatesv1.CertificateSigningRequest)
	return old, now, was && is && a.Target.Subresource == sub
}

// certificateApproval: whoever approves must be entitled to, for the signer.
type certificateApproval struct{ certificateRules }

func (r certificateApproval) Validate(ctx context.Context, a *resource.Attributes) error {
	old, _, ok := signingRequest(a, "approval")
	if !ok || r.may(ctx, a.User, "approve", old.Spec.SignerName) {
		return nil
	}
	return fmt.Errorf("user not permitted to approve requests with signerName %q", old.Spec.SignerName)
}

// certificateSigning: whoever signs must be entitled to, for the signer.
type certificateSigning struct{ certificateRules }

func (r certificateSigning) Validate(ctx context.Context, a *resource.Attributes) error {
	old, now, ok := signingRequest(a, "status")
	if !ok || bytes.Equal(old.Status.Certificate, now.Status.Certificate) &&
		equality.Semantic.DeepEqual(old.Status.Conditions, now.Status.Conditions) {
		return nil
	}
	if r.may(ctx, a.User, "sign", old.Spec.SignerName) {
		return nil
	}
	return fmt.Errorf("user not permitted to sign requests with signerName %q", old.Spec.SignerName)
}

// subjectRestriction: nobody becomes an administrator by a signed request.
type subjectRestriction struct{ Judging }

func (subjectRestriction) Validate(_ context.Context, a *resource.Attributes) error {
	r, ok := a.Object.(*certificatesv1.CertificateSigningRequest)
	if !ok || a.Target.Subresource != "" || a.Operation != resource.OpCreate || r.Spec.SignerName != certificatesv1.KubeAPIServerClientSignerName {
		return nil
	}
	parsed, err := certificates.ParseRequest(r.Spec.Request)
	if err != nil {
		return fmt.Errorf("failed to parse CSR: %w", err)
	}
	if slices.Contains(parsed.Subject.Organization, identity.Masters) {
		return fmt.Errorf("use of %s signer with system:masters group is not allowed", certificatesv1.KubeAPIServerClientSignerName)
	}
	return nil
}

// trustBundleAttest: whoever publishes a signer's anchors must be entitled to speak
// for it. The collector's writes, which change no anchor, pass.
type trustBundleAttest struct{ certificateRules }

func (r trustBundleAttest) Validate(ctx context.Context, a *resource.Attributes) error {
	now, ok := a.Object.(*certificatesv1.ClusterTrustBundle)
	if !ok {
		return nil
	}
	signer := now.Spec.SignerName
	if signer == "" || a.Operation == resource.OpUpdate && authz.OnlyForCollector(a.Object, a.Old) {
		return nil
	}
	if !r.may(ctx, a.User, "attest", signer) {
		return fmt.Errorf("user not permitted to attest for signerName %q", signer)
	}
	return nil
}

// issue judges what validation cannot know of a pod's certificate: that it is of
// now, and its signer entitled.
func (r certificateRules) issue(ctx context.Context, a *resource.Attributes, now *certificatesv1.PodCertificateRequest) error {
	old, _ := a.Old.(*certificatesv1.PodCertificateRequest)
	if a.Target.Subresource != "status" || old == nil || equality.Semantic.DeepEqual(old.Status, now.Status) {
		return nil
	}
	refuse := func(err *field.Error) error {
		return apierrors.NewInvalid(a.GVK.GroupKind(), now.Name, field.ErrorList{err})
	}
	if begin := now.Status.NotBefore; begin != nil && old.Status.NotBefore == nil {
		if off := r.now().Sub(begin.Time); off >= issuedSkew || off <= -issuedSkew {
			return refuse(field.Invalid(field.NewPath("status", "notBefore"), begin.Time, "must be set to within 5 minutes of kube-apiserver's current time"))
		}
	}
	if signer := old.Spec.SignerName; !r.may(ctx, a.User, "sign", signer) {
		return refuse(field.Forbidden(field.NewPath("spec", "signerName"), fmt.Sprintf("User %q is not permitted to \"sign\" for signer %q", a.User.Name, signer)))
	}
	return nil
}

// may asks whether who may do verb for the signer, or for all of its domain.
func (r certificateRules) may(ctx context.Context, who identity.Identity, verb, signer string) bool {
	domain, _, _ := strings.Cut(signer, "/")
	for _, name := range []string{signer, domain + "/*"} {
		q := authz.Attributes{User: who, Verb: verb, Group: certificatesv1.GroupName, Version: "*", Resource: "signers", Name: name}
		if allowed, _ := r.authz.Authorize(ctx, q); allowed {
			return true
		}
	}
	return false
}
