package admit

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	certificatesv1 "k8s.io/api/certificates/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"

	"github.com/sampan-dev/sampan/control/apiserver/authz"
	"github.com/sampan-dev/sampan/control/apiserver/resource"
	"github.com/sampan-dev/sampan/internal/identity"
	"github.com/sampan-dev/sampan/internal/target"
	"github.com/sampan-dev/sampan/kinds"
	"github.com/sampan-dev/sampan/kinds/certificates"
)

// nodeCertificates is NodeRestriction's part about certificates: a node asks for
// its own, and for those of the pods that it runs.
type nodeCertificates struct {
	Changing
	objects Reader
	authz   *authz.Authorizer
}

func (r nodeCertificates) Admit(ctx context.Context, a *resource.Attributes) error {
	node, ok := a.User.Node()
	switch {
	case !ok:
	case is(a, certificatesv1.GroupName, "certificatesigningrequests"):
		return ownRequest(node, a)
	case is(a, certificatesv1.GroupName, "podcertificaterequests"):
		return r.podRequest(ctx, node, a)
	}
	return nil
}

// ownRequest: with the signers of nodes' certificates, a node speaks for itself.
func ownRequest(node string, a *resource.Attributes) error {
	req, ok := a.Object.(*certificatesv1.CertificateSigningRequest)
	if a.Operation != resource.OpCreate || !ok {
		return nil
	}
	if s := req.Spec.SignerName; s != certificatesv1.KubeletServingSignerName && s != certificatesv1.KubeAPIServerClientKubeletSignerName {
		return nil
	}
	parsed, err := certificates.ParseRequest(req.Spec.Request)
	if err != nil {
		return fmt.Errorf("unable to parse csr: %w", err)
	}
	if parsed.Subject.CommonName != identity.NodePrefix+node {
		return fmt.Errorf("can only create a node CSR with CN=system:node:%s", node)
	}
	return nil
}

func (r nodeCertificates) podRequest(ctx context.Context, node string, a *resource.Attributes) error {
	if a.Operation != resource.OpCreate {
		return fmt.Errorf("unexpected operation %v", a.Operation)
	}
	if a.Target.Subresource != "" {
		return fmt.Errorf("unexpected subresource %v", a.Target.Subresource)
	}
	req, ok := a.Object.(*certificatesv1.PodCertificateRequest)
	if !ok {
		return fmt.Errorf("unexpected type %T", a.Object)
	}
	s := &req.Spec
	if string(s.NodeName) != node {
		return fmt.Errorf("PodCertificateRequest.Spec.NodeName=%q, which is not the requesting node %q", s.NodeName, node)
	}
	known, err := read[*corev1.Node](ctx, r.objects, "nodes", "", node)
	if err != nil {
		return fmt.Errorf("while retrieving node %q named in the PodCertificateRequest: %w", node, err)
	}
	about := a.Target.Namespace + "/" + s.PodName
	if known.UID != s.NodeUID {
		return behind("PodCertificateRequest for pod %q names node UID %q, inconsistent with the running node (%q)", about, s.NodeUID, known.UID)
	}
	pod, err := read[*corev1.Pod](ctx, r.objects, "pods", a.Target.Namespace, s.PodName)
	if err != nil {
		return fmt.Errorf("while retrieving pod %q named in the PodCertificateRequest: %w", about, err)
	}
	if err := fitsPod(s, pod, about); err != nil {
		return err
	}
	account, err := read[*corev1.ServiceAccount](ctx, r.objects, "serviceaccounts", a.Target.Namespace, s.ServiceAccountName)
	if err != nil {
		return fmt.Errorf("while retrieving service account %q named in the PodCertificateRequest: %w", a.Target.Namespace+"/"+s.ServiceAccountName, err)
	}
	if account.UID != s.ServiceAccountUID {
		return behind("PodCertificateRequest for pod %q names service account UID %q, which differs from the running service account (%q)", about, s.ServiceAccountUID, account.UID)
	}
	return r.hasReason(ctx, a, pod, s)
}

// fitsPod checks the request against the pod that it speaks of.
func fitsPod(s *certificatesv1.PodCertificateRequestSpec, pod *corev1.Pod, about string) error {
	switch {
	case s.PodUID != pod.UID:
		return behind("PodCertificateRequest for pod %q contains pod UID (%q) which differs from running pod %q", about, s.PodUID, pod.UID)
	case pod.Spec.NodeName != string(s.NodeName):
		return fmt.Errorf("pod %q is not running on node %q named in the PodCertificateRequest", about, s.NodeName)
	case mirror(pod):
		return fmt.Errorf("pod %q is a mirror pod", about)
	case s.ServiceAccountName != pod.Spec.ServiceAccountName:
		return fmt.Errorf("PodCertificateRequest for pod %q contains serviceAccountName (%q) that differs from running pod (%q)", about, s.ServiceAccountName, pod.Spec.ServiceAccountName)
	}
	return nil
}

// hasReason: the pod mounts a certificate of the signer, or the node was given
// the right to ask for the account's.
func (r nodeCertificates) hasReason(ctx context.Context, a *resource.Attributes, pod *corev1.Pod, s *certificatesv1.PodCertificateRequestSpec) error {
	mounts := slices.ContainsFunc(pod.Spec.Volumes, func(v corev1.Volume) bool {
		return v.Projected != nil && slices.ContainsFunc(v.Projected.Sources, func(p corev1.VolumeProjection) bool {
			return p.PodCertificate != nil && p.PodCertificate.SignerName == s.SignerName
		})
	})
	if mounts {
		return nil
	}
	q := authz.Attributes{User: a.User, Verb: "request-serviceaccounts-podcertificate-signer", Group: a.Target.Resource.Group, Version: a.Target.Resource.Version,
		Resource: strings.ReplaceAll(s.SignerName, "/", ":"), Namespace: a.Target.Namespace, Name: s.ServiceAccountName}
	if allowed, _ := r.authz.Authorize(ctx, q); allowed {
		return nil
	}
	return fmt.Errorf("pod %q does not mount a podCertificate projected volume for signer %q", a.Target.Namespace+"/"+s.PodName, s.SignerName)
}

// behind is a refusal that may be due to an old mirror: no 403, so that the node
// tries again.
func behind(format string, args ...any) error {
	return apierrors.NewInternalError(fmt.Errorf(format, args...))
}

// read reads one object of the core group.
func read[T kinds.Object](ctx context.Context, r Reader, res, namespace, name string) (T, error) {
	return readIn[T](ctx, r, core(res, namespace, name))
}

// readIn reads one object of any group.
func readIn[T kinds.Object](ctx context.Context, r Reader, t target.Target) (T, error) {
	var none T
	obj, err := cached(ctx, r, t)
	if err != nil {
		return none, err
	}
	out, ok := obj.(T)
	if !ok {
		return none, errors.New("it is of another kind")
	}
	return out, nil
}
