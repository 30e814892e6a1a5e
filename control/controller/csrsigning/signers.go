package csrsigning

import (
	"crypto/x509"
	"errors"
	"fmt"
	"slices"
	"strings"

	certificatesv1 "k8s.io/api/certificates/v1"

	"github.com/sampan-dev/sampan/internal/identity"
	"github.com/sampan-dev/sampan/internal/pki"
)

// legacyUnknown may still stand in requests made through the older API.
const legacyUnknown = "kubernetes.io/legacy-unknown"

// errNotNode is what a request without a node's name is told, in upstream's words.
var errNotNode = errors.New("subject common name does not begin with " + identity.NodePrefix) //nolint:staticcheck // the prefix ends in a colon

// signers are those of Kubernetes itself, each with the check of what it signs.
// Others' requests are others' business.
var signers = map[string]func(*x509.CertificateRequest, []certificatesv1.KeyUsage) error{
	certificatesv1.KubeAPIServerClientSignerName:        clientUsages,
	certificatesv1.KubeAPIServerClientKubeletSignerName: CheckNodeClient,
	certificatesv1.KubeletServingSignerName:             CheckNodeServing,
	legacyUnknown:                                       func(*x509.CertificateRequest, []certificatesv1.KeyUsage) error { return nil },
}

func clientUsages(_ *x509.CertificateRequest, usages []certificatesv1.KeyUsage) error {
	for _, u := range usages {
		switch u {
		case certificatesv1.UsageDigitalSignature, certificatesv1.UsageKeyEncipherment, certificatesv1.UsageClientAuth:
		default:
			return fmt.Errorf("invalid usage for client certificate: %s", u)
		}
	}
	if !slices.Contains(usages, certificatesv1.UsageClientAuth) {
		return fmt.Errorf("missing required usage for client certificate: %s", certificatesv1.UsageClientAuth)
	}
	return nil
}

// CheckNodeClient says what keeps a request from being one for a node's client
// certificate; nil: it is one.
func CheckNodeClient(r *x509.CertificateRequest, usages []certificatesv1.KeyUsage) error {
	switch {
	case !slices.Equal(r.Subject.Organization, []string{identity.Nodes}) && !OfAgent(r):
		return errors.New("subject organization is not system:nodes")
	case len(r.DNSNames) > 0:
		return errors.New("DNS subjectAltNames are not allowed")
	case len(r.EmailAddresses) > 0:
		return errors.New("Email subjectAltNames are not allowed") //nolint:staticcheck // upstream's words
	case len(r.IPAddresses) > 0:
		return errors.New("IP subjectAltNames are not allowed")
	case len(r.URIs) > 0:
		return errors.New("URI subjectAltNames are not allowed")
	case !strings.HasPrefix(r.Subject.CommonName, identity.NodePrefix):
		return errNotNode
	}
	return nodeUsages(usages, certificatesv1.UsageClientAuth)
}

// OfAgent says whether a request is for a certificate that says of a node that its agent
// is ours: upstream's signer allows no group beside its own.
func OfAgent(r *x509.CertificateRequest) bool {
	return slices.Equal(slices.Sorted(slices.Values(r.Subject.Organization)), []string{identity.Agents, identity.Nodes})
}

// CheckNodeServing says what keeps a request from being one for the certificate that
// a node serves the kubelet API with; nil: it is one.
func CheckNodeServing(r *x509.CertificateRequest, usages []certificatesv1.KeyUsage) error {
	switch {
	case !slices.Equal(r.Subject.Organization, []string{identity.Nodes}):
		return errors.New("subject organization is not system:nodes")
	case len(r.DNSNames) == 0 && len(r.IPAddresses) == 0:
		return errors.New("DNS or IP subjectAltName is required")
	case len(r.EmailAddresses) > 0:
		return errors.New("Email subjectAltNames are not allowed") //nolint:staticcheck // upstream's words
	case len(r.URIs) > 0:
		return errors.New("URI subjectAltNames are not allowed")
	}
	if err := nodeUsages(usages, certificatesv1.UsageServerAuth); err != nil {
		return err
	}
	if !strings.HasPrefix(r.Subject.CommonName, identity.NodePrefix) {
		return errNotNode
	}
	return nil
}

// nodeUsages wants a signature and the extended usage, and allows encipherment.
func nodeUsages(usages []certificatesv1.KeyUsage, extended certificatesv1.KeyUsage) error {
	allowed := []certificatesv1.KeyUsage{extended, certificatesv1.UsageDigitalSignature, certificatesv1.UsageKeyEncipherment}
	slices.Sort(allowed)
	ok := slices.Contains(usages, extended) && slices.Contains(usages, certificatesv1.UsageDigitalSignature) &&
		!slices.ContainsFunc(usages, func(u certificatesv1.KeyUsage) bool { return !slices.Contains(allowed, u) })
	if !ok {
		return fmt.Errorf("usages did not match %v", allowed)
	}
	return nil
}

var plainUsages = map[certificatesv1.KeyUsage]x509.KeyUsage{
	certificatesv1.UsageSigning:           x509.KeyUsageDigitalSignature,
	certificatesv1.UsageDigitalSignature:  x509.KeyUsageDigitalSignature,
	certificatesv1.UsageContentCommitment: x509.KeyUsageContentCommitment,
	certificatesv1.UsageKeyEncipherment:   x509.KeyUsageKeyEncipherment,
	certificatesv1.UsageKeyAgreement:      x509.KeyUsageKeyAgreement,
	certificatesv1.UsageDataEncipherment:  x509.KeyUsageDataEncipherment,
	certificatesv1.UsageCertSign:          x509.KeyUsageCertSign,
	certificatesv1.UsageCRLSign:           x509.KeyUsageCRLSign,
	certificatesv1.UsageEncipherOnly:      x509.KeyUsageEncipherOnly,
	certificatesv1.UsageDecipherOnly:      x509.KeyUsageDecipherOnly,
}

var extendedUsages = map[certificatesv1.KeyUsage]x509.ExtKeyUsage{
	certificatesv1.UsageAny:             x509.ExtKeyUsageAny,
	certificatesv1.UsageServerAuth:      x509.ExtKeyUsageServerAuth,
	certificatesv1.UsageClientAuth:      x509.ExtKeyUsageClientAuth,
	certificatesv1.UsageCodeSigning:     x509.ExtKeyUsageCodeSigning,
	certificatesv1.UsageEmailProtection: x509.ExtKeyUsageEmailProtection,
	certificatesv1.UsageSMIME:           x509.ExtKeyUsageEmailProtection,
	certificatesv1.UsageIPsecEndSystem:  x509.ExtKeyUsageIPSECEndSystem,
	certificatesv1.UsageIPsecTunnel:     x509.ExtKeyUsageIPSECTunnel,
	certificatesv1.UsageIPsecUser:       x509.ExtKeyUsageIPSECUser,
	certificatesv1.UsageTimestamping:    x509.ExtKeyUsageTimeStamping,
	certificatesv1.UsageOCSPSigning:     x509.ExtKeyUsageOCSPSigning,
	certificatesv1.UsageMicrosoftSGC:    x509.ExtKeyUsageMicrosoftServerGatedCrypto,
	certificatesv1.UsageNetscapeSGC:     x509.ExtKeyUsageNetscapeServerGatedCrypto,
}

// usage translates the API's words into X.509's.
func usage(all []certificatesv1.KeyUsage) (pki.Grant, error) {
	var g pki.Grant
	var unknown []certificatesv1.KeyUsage
	for _, u := range all {
		plain, isPlain := plainUsages[u]
		extended, isExtended := extendedUsages[u]
		switch {
		case isPlain:
			g.Usage |= plain
		case isExtended && !slices.Contains(g.Extended, extended):
			g.Extended = append(g.Extended, extended)
		case !isExtended:
			unknown = append(unknown, u)
		}
	}
	slices.Sort(g.Extended)
	if len(unknown) > 0 {
		return g, fmt.Errorf("unrecognized usage values: %q", unknown)
	}
	return g, nil
}
