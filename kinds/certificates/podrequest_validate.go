package certificates

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rsa"
	"crypto/x509"
	"fmt"
	"strings"

	certificatesv1 "k8s.io/api/certificates/v1"
	apivalidation "k8s.io/apimachinery/pkg/api/validation"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/apimachinery/pkg/util/validation/field"

	"github.com/sampan-dev/sampan/kinds"
)

type podRequest = certificatesv1.PodCertificateRequest

// Limits of a pod's request, in bytes and seconds.
const (
	maxUID         = 128
	maxKeyMaterial = 10 << 10
	maxChain       = 100 << 10
	minPodSeconds  = 60 * 60
	maxPodSeconds  = 91 * 24 * 60 * 60
	// maxKubernetesPodSeconds is for the signers of Kubernetes' own domain.
	maxKubernetesPodSeconds = 24 * 60 * 60
)

var specPath = kinds.NewPath("spec")

// statusAlone takes over the status and nothing of the metadata.
func statusAlone(next kinds.Object, body runtime.Object) error {
	from, ok := body.(*podRequest)
	if !ok {
		return fmt.Errorf("status of %q: body is a %T", next.GetName(), body)
	}
	next.(*podRequest).Status = from.DeepCopy().Status
	return nil
}

func validatePodRequest(r *podRequest) field.ErrorList {
	var f kinds.Faults
	s := &r.Spec
	f.Join(kinds.SignerName(s.SignerName, specPath.Child("signerName")))
	checkAnnotations(&f, s.UnverifiedUserAnnotations)
	f.Each(specPath.Child("podName"), s.PodName, apivalidation.NameIsDNSSubdomain(s.PodName, false))
	checkUID(&f, "podUID", string(s.PodUID))
	f.Each(specPath.Child("serviceAccountName"), s.ServiceAccountName, apivalidation.ValidateServiceAccountName(s.ServiceAccountName, false))
	checkUID(&f, "serviceAccountUID", string(s.ServiceAccountUID))
	f.Each(specPath.Child("nodeName"), string(s.NodeName), apivalidation.NameIsDNSSubdomain(string(s.NodeName), false))
	checkUID(&f, "nodeUID", string(s.NodeUID))
	at := specPath.Child("maxExpirationSeconds")
	if s.MaxExpirationSeconds == nil {
		f.Required(at, "must be set")
		return f.List()
	}
	most := int32(maxPodSeconds)
	if kinds.IsKubernetesSigner(s.SignerName) {
		most = maxKubernetesPodSeconds
	}
	if *s.MaxExpirationSeconds < minPodSeconds || *s.MaxExpirationSeconds > most {
		f.Invalid(at, s.MaxExpirationSeconds, fmt.Sprintf("must be in the range [%d, %d]", minPodSeconds, most))
	}
	checkKey(&f, s)
	return f.List()
}

func checkAnnotations(f *kinds.Faults, all map[string]string) {
	if all == nil {
		return
	}
	at := specPath.Child("unverifiedUserAnnotations")
	for key := range all {
		f.Join(validation.IsDomainPrefixedKey(at.Field(), strings.ToLower(key)))
	}
	if apivalidation.ValidateAnnotationsSize(all) != nil {
		f.TooLong(at, apivalidation.TotalAnnotationSizeLimitB)
	}
}

func checkUID(f *kinds.Faults, name, uid string) {
	at := specPath.Child(name)
	if uid == "" {
		f.Invalid(at, uid, "must not be empty")
	}
	if len(uid) > maxUID {
		f.TooLong(at, maxUID)
	}
}

// checkKey wants the key, in the one form that v1 has; the message speaks of the
// older form too, as upstream's does.
func checkKey(f *kinds.Faults, s *certificatesv1.PodCertificateRequestSpec) {
	if len(s.StubPKCS10Request) == 0 {
		f.Invalid(specPath, field.OmitValueType{}, "exactly one of (stubPKCS10Request) or (pkixPublicKey, proofOfPossession) must be set")
		return
	}
	checkStub(f, s.StubPKCS10Request)
}

// checkStub wants a signed request of a strong key; what it asks for is not read.
func checkStub(f *kinds.Faults, stub []byte) {
	at := specPath.Child("stubPKCS10Request")
	if len(stub) > maxKeyMaterial {
		f.TooLong(at, maxKeyMaterial)
		return
	}
	parsed, err := x509.ParseCertificateRequest(stub)
	if err != nil {
		f.Invalid(at, field.OmitValueType{}, "must be a valid PKCS#10 CSR")
		return
	}
	if value, fault := weakness(parsed.PublicKey); fault != "" {
		f.Invalid(at, value, fault)
		return
	}
	if parsed.CheckSignature() != nil {
		f.Invalid(at, field.OmitValueType{}, "invalid signature")
	}
}

// weakness says what is wrong with a key, and of which value; "" is nothing.
func weakness(key crypto.PublicKey) (value any, fault string) {
	switch k := key.(type) {
	case ed25519.PublicKey:
	case *ecdsa.PublicKey:
		if k.Curve != elliptic.P256() && k.Curve != elliptic.P384() && k.Curve != elliptic.P521() {
			return "curve " + k.Curve.Params().Name, "elliptic public keys must use curve P256, P384, or P521"
		}
	case *rsa.PublicKey:
		if bits := k.Size() * 8; bits != 3072 && bits != 4096 {
			return fmt.Sprintf("%d-bit modulus", bits), "RSA keys must have modulus size 3072 or 4096"
		}
	default:
		return field.OmitValueType{}, "unknown public key type; supported types are Ed25519, ECDSA, and RSA"
	}
	return nil, ""
}
