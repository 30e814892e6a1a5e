package certificates

import (
	"bytes"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"net/mail"
	"strings"
	"time"

	certificatesv1 "k8s.io/api/certificates/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	metavalidation "k8s.io/apimachinery/pkg/apis/meta/v1/validation"
	"k8s.io/apimachinery/pkg/util/validation/field"

	"github.com/sampan-dev/sampan/kinds"
)

// Bounds of a pod's certificate.
const (
	minPodLifetime = time.Hour
	// refreshMargin keeps the begin of a refresh away from either end.
	refreshMargin = 10 * time.Minute
)

var (
	statusPath = kinds.NewPath("status")
	chainPath  = statusPath.Child("certificateChain")
)

// terminal conditions end a pod's request.
func terminal(kind string) bool {
	return kind == certificatesv1.PodCertificateRequestConditionTypeIssued ||
		kind == certificatesv1.PodCertificateRequestConditionTypeDenied ||
		kind == certificatesv1.PodCertificateRequestConditionTypeFailed
}

// ended is the terminal condition that holds, "" while the request is pending.
func ended(r *podRequest) string {
	for _, c := range r.Status.Conditions {
		if terminal(c.Type) && c.Status == metav1.ConditionTrue {
			return c.Type
		}
	}
	return ""
}

// validatePodRequestStatus lets a signer end a request, once. That the
// certificate is of now, and the signer entitled, is judged in admission.
func validatePodRequestStatus(r, old *podRequest) field.ErrorList {
	var f kinds.Faults
	checkPodConditions(&f, r.Status.Conditions)
	if !f.None() {
		return f.List()
	}
	same := func(a, b certificatesv1.PodCertificateRequestStatus, detail string) {
		if !kinds.Same(a, b) {
			f.Invalid(statusPath, field.OmitValueType{}, detail)
		}
	}
	end := ended(r)
	switch {
	case ended(old) != "":
		same(r.Status, old.Status, "immutable after PodCertificateRequest is issued, denied, or failed")
	case end == certificatesv1.PodCertificateRequestConditionTypeIssued:
		checkPodChain(&f, r, old)
	case end != "":
		same(r.Status, certificatesv1.PodCertificateRequestStatus{Conditions: r.Status.Conditions},
			"non-condition status fields must be empty when denying or failing the PodCertificateRequest")
	default:
		same(r.Status, old.Status, `status is immutable unless transitioning to "Issued", "Denied", or "Failed"`)
	}
	return f.List()
}

func checkPodConditions(f *kinds.Faults, all []metav1.Condition) {
	known := 0
	for i, c := range all {
		at := kinds.NewPath("status").Child("conditions").Child(fmt.Sprintf("[%d]", i))
		if !terminal(c.Type) {
			kinds.Listed(f, at.Child("type"), c.Type, certificatesv1.PodCertificateRequestConditionTypeIssued,
				certificatesv1.PodCertificateRequestConditionTypeDenied, certificatesv1.PodCertificateRequestConditionTypeFailed)
			continue
		}
		if known++; known > 1 {
			f.Invalid(at.Child("type"), c.Type, `There may be at most one condition with type "Issued", "Denied", or "Failed"`)
		}
		kinds.OneOf(f, at.Child("status"), c.Status, metav1.ConditionTrue)
	}
	f.JoinAt(statusPath.Child("conditions"), metavalidation.ValidateConditions(all, kinds.Here))
}

// checkPodChain wants the certificate to be what was asked for, and the times
// beside it to be the certificate's.
func checkPodChain(f *kinds.Faults, r, old *podRequest) {
	chain := r.Status.CertificateChain
	if len(chain) > maxChain {
		f.TooLong(chainPath, maxChain)
		return
	}
	leaf, rest, fault := readLeaf([]byte(chain))
	if fault != "" {
		f.Invalid(chainPath, chain, fault)
		return
	}
	checkNames(f, leaf)
	if !checkLeafKey(f, leaf, r, old) || !checkTimes(f, leaf, r) {
		return
	}
	for {
		var block *pem.Block
		if block, rest = pem.Decode(rest); block == nil {
			return
		}
		if block.Type != certificateBlock {
			f.Invalid(chainPath, chain, "issued certificate chain must consist entirely of CERTFICATE PEM blocks") // upstream's spelling
			return
		}
		if _, err := x509.ParseCertificate(block.Bytes); err != nil {
			f.Invalid(chainPath, chain, "intermediate certificate does not parse as valid X.509")
			return
		}
	}
}

func readLeaf(chain []byte) (leaf *x509.Certificate, rest []byte, fault string) {
	block, rest := pem.Decode(chain)
	if block == nil {
		return nil, nil, "issued certificate chain must contain at least one certificate"
	}
	if block.Type != certificateBlock {
		return nil, nil, "issued certificate chain must consist entirely of CERTIFICATE PEM blocks"
	}
	leaf, err := x509.ParseCertificate(block.Bytes)
	if err != nil {
		return nil, nil, "leaf certificate does not parse as valid X.509"
	}
	return leaf, rest, ""
}

func checkNames(f *kinds.Faults, leaf *x509.Certificate) {
	for _, name := range leaf.DNSNames {
		if name == "" {
			f.Invalid(chainPath, name, "leaf certificate should not contain empty DNSName")
		}
		if strings.Contains(name, "..") {
			f.Invalid(chainPath, name, "leaf certificate's DNSName should not contain '..'")
		}
		if strings.HasPrefix(name, ".") || strings.HasSuffix(name, ".") {
			f.Invalid(chainPath, name, "leaf certificate's DNSName should not start or end with '.'")
		}
	}
	for _, address := range leaf.EmailAddresses {
		if _, err := mail.ParseAddress(address); err != nil {
			f.Invalid(chainPath, address, "leaf certificate should not contain invalid EmailAddress")
		}
	}
}

// checkLeafKey wants the certificate to be for the key of the request.
func checkLeafKey(f *kinds.Faults, leaf *x509.Certificate, r, old *podRequest) (ok bool) {
	parsed, err := x509.ParseCertificateRequest(old.Spec.StubPKCS10Request)
	if err != nil {
		f.Invalid(specPath.Child("stubPKCS10Request"), field.OmitValueType{}, "must be a valid PKCS#10 CSR")
		return false
	}
	a, err1 := x509.MarshalPKIXPublicKey(parsed.PublicKey)
	b, err2 := x509.MarshalPKIXPublicKey(leaf.PublicKey)
	if err1 != nil || err2 != nil || !bytes.Equal(a, b) {
		f.Invalid(chainPath, r.Status.CertificateChain, "leaf certificate was not issued to the requested public key")
		return false
	}
	return true
}

func checkTimes(f *kinds.Faults, leaf *x509.Certificate, r *podRequest) (ok bool) {
	s := &r.Status
	atBefore, atAfter, atRefresh := statusPath.Child("notBefore"), statusPath.Child("notAfter"), statusPath.Child("beginRefreshAt")
	if s.NotBefore == nil {
		f.Required(atBefore, "must be present and consistent with the issued certificate")
	}
	if s.NotAfter == nil {
		f.Required(atAfter, "must be present and consistent with the issued certificate")
	}
	if s.BeginRefreshAt == nil {
		f.Required(atRefresh, "must be present and in the range [notbefore+10min, notafter-10min]")
	}
	if !f.None() {
		return false
	}
	life := leaf.NotAfter.Sub(leaf.NotBefore)
	most := time.Duration(*r.Spec.MaxExpirationSeconds) * time.Second
	switch {
	case !s.NotBefore.Time.Equal(leaf.NotBefore):
		f.Invalid(atBefore, s.NotBefore.Time, "must be set to the NotBefore time encoded in the leaf certificate")
	case !s.NotAfter.Time.Equal(leaf.NotAfter):
		f.Invalid(atAfter, s.NotAfter.Time, "must be set to the NotAfter time encoded in the leaf certificate")
	case life < minPodLifetime:
		f.Invalid(chainPath, life, "leaf certificate lifetime must be >= 1 hour")
	case life > most:
		f.Invalid(chainPath, life, fmt.Sprintf("leaf certificate lifetime must be <= spec.maxExpirationSeconds (%v)", *r.Spec.MaxExpirationSeconds))
	case s.BeginRefreshAt.Time.Before(s.NotBefore.Time.Add(refreshMargin)):
		f.Invalid(atRefresh, s.BeginRefreshAt.Time, "must be at least 10 minutes after status.notBefore")
	case s.BeginRefreshAt.Time.After(s.NotAfter.Time.Add(-refreshMargin)):
		f.Invalid(atRefresh, s.BeginRefreshAt.Time, "must be at least 10 minutes before status.notAfter")
	}
	return f.None()
}
