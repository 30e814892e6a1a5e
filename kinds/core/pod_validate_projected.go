package core

import (
	"fmt"
	"strings"

	corev1 "k8s.io/api/core/v1"
	apivalidation "k8s.io/apimachinery/pkg/api/validation"
	metavalidation "k8s.io/apimachinery/pkg/apis/meta/v1/validation"
	"k8s.io/apimachinery/pkg/util/sets"
	"k8s.io/apimachinery/pkg/util/validation"

	"github.com/sampan-dev/sampan/kinds"
)

// The lifetimes of what projected volumes hold, in seconds.
const (
	minTokenExpiration       = 10 * 60
	maxTokenExpiration       = 1 << 32
	minCertificateExpiration = 3600
	// Certificates live at most 91 days, those of Kubernetes' own signers a day.
	maxCertificateExpiration    = 91 * 24 * 3600
	maxOwnCertificateExpiration = 24 * 3600
	duplicatePathsText          = "conflicting duplicate paths"
)

// projection is the check of one projected volume: its files must not collide.
type projection struct {
	*podCheck
	at    *kinds.Path
	paths sets.Set[string]
}

func (c *podCheck) checkProjected(s *corev1.ProjectedVolumeSource, at *kinds.Path) {
	c.fileMode(at.Child("defaultMode"), s.DefaultMode)
	c.userID(at.Child("defaultUser"), s.DefaultUser)
	p := projection{podCheck: c, at: at, paths: sets.New[string]()}
	for i := range s.Sources {
		p.checkSource(&s.Sources[i], at.Child("sources").Index(i))
	}
}

func (p *projection) checkSource(s *corev1.VolumeProjection, at *kinds.Path) {
	count := 0
	if s.Secret != nil {
		count++
		p.NonEmpty(at.Child("secret").Child("name"), s.Secret.Name)
		p.checkProjectedItems(s.Secret.Name, s.Secret.Items, at.Child("secret").Child("items"))
	}
	if s.ConfigMap != nil {
		count++
		p.NonEmpty(at.Child("configMap").Child("name"), s.ConfigMap.Name)
		p.checkProjectedItems(s.ConfigMap.Name, s.ConfigMap.Items, at.Child("configMap").Child("items"))
	}
	if s.DownwardAPI != nil {
		count++
		for i := range s.DownwardAPI.Items {
			p.checkDownwardFile(&s.DownwardAPI.Items[i], at.Child("downwardAPI"))
			p.claimPath(s.DownwardAPI.Items[i].Path, s.DownwardAPI.Items[i].Path)
		}
	}
	if s.ServiceAccountToken != nil {
		count++
		p.checkToken(s.ServiceAccountToken, at.Child("serviceAccountToken"))
	}
	if s.ClusterTrustBundle != nil {
		count++
		p.checkTrustBundle(s.ClusterTrustBundle, at.Child("clusterTrustBundle"))
	}
	if s.PodCertificate != nil {
		count++
		p.checkCertificate(s.PodCertificate, at.Child("podCertificate"))
	}
	if count > 1 {
		p.Forbidden(at, "may not specify more than 1 volume type per source")
	}
}

// claimPath takes a file's path, or complains about value if it is taken.
func (p *projection) claimPath(path, value string) {
	if path == "" {
		return
	}
	if p.paths.Has(path) {
		p.Invalid(p.at, value, duplicatePathsText)
	}
	p.paths.Insert(path)
}

func (p *projection) checkProjectedItems(name string, items []corev1.KeyToPath, at *kinds.Path) {
	p.checkItems(items, at)
	for i := range items {
		p.claimPath(items[i].Path, name)
	}
}

func (p *projection) checkToken(s *corev1.ServiceAccountTokenProjection, at *kinds.Path) {
	lifetime := at.Child("expirationSeconds")
	switch {
	case s.ExpirationSeconds == nil:
		p.Required(lifetime, "")
	case *s.ExpirationSeconds < minTokenExpiration:
		p.Invalid(lifetime, *s.ExpirationSeconds, "may not specify a duration less than 10 minutes")
	case *s.ExpirationSeconds > maxTokenExpiration:
		p.Invalid(lifetime, *s.ExpirationSeconds, "may not specify a duration larger than 2^32 seconds")
	}
	// Upstream reports the path of a token at the volume.
	if p.NonEmpty(p.at.Child("path"), s.Path) {
		p.localPath(p.at.Child("path"), s.Path)
	}
	p.userID(at.Child("user"), s.User)
}

func (p *projection) checkTrustBundle(s *corev1.ClusterTrustBundleProjection, at *kinds.Path) {
	switch {
	case s.Name != nil && s.SignerName != nil:
		p.Invalid(at, s, "only one of name and signerName may be used")
	case s.Name != nil:
		if *s.Name == "" {
			p.Required(at.Child("name"), "must be a valid object name")
		}
		for _, message := range trustBundleName(*s.Name) {
			p.Invalid(at.Child("name"), *s.Name, fmt.Sprintf("not a valid clustertrustbundlename: %v", message))
		}
		if s.LabelSelector != nil {
			p.Invalid(at.Child("labelSelector"), s.LabelSelector, "labelSelector must be unset if name is specified")
		}
	case s.SignerName != nil:
		if *s.SignerName == "" {
			p.Required(at.Child("signerName"), "must be a valid signer name")
		}
		p.Join(kinds.SignerName(*s.SignerName, at.Child("signerName")))
		p.JoinAt(at.Child("labelSelector"), metavalidation.ValidateLabelSelector(s.LabelSelector, metavalidation.LabelSelectorValidationOptions{}, kinds.Here))
	default:
		p.Required(at, "either name or signerName must be specified")
	}
	p.NonEmpty(at.Child("path"), s.Path)
	p.userID(at.Child("user"), s.User)
	p.localPath(at.Child("path"), s.Path)
	p.claimPath(s.Path, s.Path)
}

// trustBundleName: the part after the last colon is a name, the part before it
// the signer with colons for slashes.
func trustBundleName(name string) []string {
	split := strings.LastIndex(name, ":")
	return apivalidation.NameIsDNSSubdomain(name[split+1:], false)
}

func (p *projection) checkCertificate(s *corev1.PodCertificateProjection, at *kinds.Path) {
	p.Join(kinds.SignerName(s.SignerName, at.Child("signerName")))
	for key := range s.UserAnnotations {
		p.Join(validation.IsDomainPrefixedKey(at.Child("userAnnotations").Field(), strings.ToLower(key)))
	}
	if apivalidation.ValidateAnnotationsSize(s.UserAnnotations) != nil {
		p.TooLong(at.Child("userAnnotations"), apivalidation.TotalAnnotationSizeLimitB)
	}
	p.userID(at.Child("user"), s.User)
	kinds.Listed(&p.Faults, at.Child("keyType"), s.KeyType, "RSA3072", "RSA4096", "ECDSAP256", "ECDSAP384", "ECDSAP521", "ED25519")
	if s.MaxExpirationSeconds != nil {
		p.certificateLifetime(*s.MaxExpirationSeconds, s.SignerName, at.Child("maxExpirationSeconds"))
	}
	paths := 0
	for _, file := range []struct{ field, path string }{
		{"credentialBundlePath", s.CredentialBundlePath},
		{"keyPath", s.KeyPath},
		{"certificateChainPath", s.CertificateChainPath},
	} {
		if file.path == "" {
			continue
		}
		paths++
		p.localPath(at.Child(file.field), file.path)
		p.claimPath(file.path, file.path)
	}
	if paths == 0 {
		p.Required(at, "specify at least one of credentialBundlePath, keyPath, and certificateChainPath")
	}
}

func (p *projection) certificateLifetime(seconds int32, signer string, at *kinds.Path) {
	longest := int32(maxCertificateExpiration)
	if kinds.IsKubernetesSigner(signer) {
		longest = maxOwnCertificateExpiration
	}
	if seconds < minCertificateExpiration {
		p.Invalid(at, seconds, "if provided, maxExpirationSeconds must be >= 3600")
	}
	if seconds > longest {
		p.Invalid(at, seconds, fmt.Sprintf("if provided, maxExpirationSeconds must be <= %d", longest))
	}
}
