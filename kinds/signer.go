package kinds

import (
	"fmt"
	"strings"

	"k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/apimachinery/pkg/util/validation/field"
)

// The longest signer name, in bytes, and the longest domain in it.
const (
	maxSignerDomain = validation.DNS1123SubdomainMaxLength
	maxSignerName   = maxSignerDomain + 1 + validation.DNS1123LabelMaxLength + 1 + validation.DNS1123SubdomainMaxLength
)

// SignerName wants "example.com/name": a domain of at least two labels and a
// dotted name, as all who speak of certificate signers do.
func SignerName(name string, at *Path) field.ErrorList {
	var f Faults
	if !f.NonEmpty(at, name) {
		return f.List()
	}
	segments := strings.Split(name, "/")
	if len(segments) != 2 {
		f.Invalid(at, name, "must be a fully qualified domain and path of the form 'example.com/signer-name'")
		return f.List()
	}
	domain, path := segments[0], segments[1]
	if len(domain) > maxSignerDomain {
		f.TooLong(at, maxSignerDomain)
	}
	labels := strings.Split(domain, ".")
	signerLabels(&f, at, domain, labels, validation.IsDNS1123Label)
	if len(labels) < 2 {
		f.Invalid(at, domain, "should be a domain with at least two segments separated by dots")
	}
	signerLabels(&f, at, path, strings.Split(path, "."), validation.IsDNS1123Subdomain)
	if len(name) > maxSignerName {
		f.TooLong(at, maxSignerName)
	}
	return f.List()
}

// signerLabels tells of the first bad label only: the others' messages would be
// the same.
func signerLabels(f *Faults, at *Path, whole string, labels []string, check func(string) []string) {
	for _, label := range labels {
		messages := check(label)
		for _, message := range messages {
			f.Invalid(at, whole, fmt.Sprintf("validating label %q: %s", label, message))
		}
		if len(messages) > 0 {
			return
		}
	}
}

// IsKubernetesSigner says whether a signer's domain is reserved for Kubernetes.
func IsKubernetesSigner(name string) bool {
	domain, _, _ := strings.Cut(name, "/")
	return domain == "kubernetes.io" || strings.HasSuffix(domain, ".kubernetes.io")
}
