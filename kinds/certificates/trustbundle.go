package certificates

import (
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"strings"
	"time"

	certificatesv1 "k8s.io/api/certificates/v1"
	"k8s.io/apimachinery/pkg/api/validation"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/util/validation/field"

	"github.com/sampan-dev/sampan/kinds"
)

// maxTrustBundle bounds a bundle, in bytes.
const maxTrustBundle = 1 << 20

// TrustBundle is the kind that publishes trust anchors to the whole cluster.
func TrustBundle() *kinds.Kind {
	return &kinds.Kind{
		GVK:      gvk("ClusterTrustBundle"),
		Resource: "clustertrustbundles",
		Singular: "clustertrustbundle",
		Storage:  "clustertrustbundles",
		New:      func() kinds.Object { return &certificatesv1.ClusterTrustBundle{} },
		NewList:  func() runtime.Object { return &certificatesv1.ClusterTrustBundleList{} },
		Strategy: kinds.Strategy{
			Validate:                  kinds.Check(validateBundle),
			ValidateUpdate:            kinds.CheckUpdate(validateBundleUpdate),
			ValidateName:              anyName, // the name depends on the signer: checkBundleName
			ForbidUnconditionalUpdate: true,
		},
		Table: kinds.Table{
			Columns: kinds.Explained(clusterTrustBundleTexts(), "Name", "SignerName"),
			Row: kinds.Row(func(b *certificatesv1.ClusterTrustBundle, _ time.Time) []any {
				if b.Spec.SignerName == "" {
					return []any{b.Name, kinds.None}
				}
				return []any{b.Name, b.Spec.SignerName}
			}),
		},
		FieldLabels: []string{"spec.signerName"},
		Fields: kinds.Fields(func(b *certificatesv1.ClusterTrustBundle) fields.Set {
			return fields.Set{"spec.signerName": b.Spec.SignerName}
		}),
	}
}

func validateBundle(b *certificatesv1.ClusterTrustBundle) field.ErrorList {
	var f kinds.Faults
	checkBundle(&f, b)
	checkAnchors(&f, b.Spec.TrustBundle)
	return f.List()
}

// validateBundleUpdate does not parse anchors that stay as they are: a stricter
// parser must not make stored bundles unchangeable.
func validateBundleUpdate(b, old *certificatesv1.ClusterTrustBundle) field.ErrorList {
	var f kinds.Faults
	checkBundle(&f, b)
	if b.Spec.TrustBundle != old.Spec.TrustBundle {
		checkAnchors(&f, b.Spec.TrustBundle)
	}
	f.Immutable(kinds.NewPath("spec").Child("signerName"), b.Spec.SignerName, old.Spec.SignerName)
	return f.List()
}

func checkBundle(f *kinds.Faults, b *certificatesv1.ClusterTrustBundle) {
	if b.GenerateName != "" {
		f.Each(kinds.NewPath("metadata").Child("generateName"), b.GenerateName, checkBundleName(b.GenerateName, b.Spec.SignerName, true))
	}
	if b.Name != "" {
		f.Each(kinds.NewPath("metadata").Child("name"), b.Name, checkBundleName(b.Name, b.Spec.SignerName, false))
	}
	if b.Spec.SignerName != "" {
		f.Join(kinds.SignerName(b.Spec.SignerName, kinds.NewPath("spec").Child("signerName")))
	}
}

// checkBundleName: a signer's bundles carry its name in front, "/" written as ":".
func checkBundleName(name, signer string, prefix bool) []string {
	if signer == "" {
		if strings.Contains(name, ":") {
			return []string{`ClusterTrustBundle without signer name must not have ":" in its name`}
		}
		return validation.NameIsDNSSubdomain(name, prefix)
	}
	first := strings.ReplaceAll(signer, "/", ":") + ":"
	rest, ok := strings.CutPrefix(name, first)
	if !ok {
		return []string{fmt.Sprintf("ClusterTrustBundle for signerName %s must be named with prefix %s", signer, first)}
	}
	return validation.NameIsDNSSubdomain(rest, prefix)
}

// checkAnchors wants PEM with authorities' certificates only, none twice.
func checkAnchors(f *kinds.Faults, text string) {
	at := kinds.NewPath("spec").Child("trustBundle")
	if len(text) > maxTrustBundle {
		f.TooLong(at, maxTrustBundle)
		return
	}
	wrong := func(format string, args ...any) { f.Invalid(at, "<value omitted>", fmt.Sprintf(format, args...)) }
	before := f.Count()
	seen := map[string][]int{}
	var order []string
	rest := []byte(text)
	for i := 0; ; i++ {
		var block *pem.Block
		if block, rest = pem.Decode(rest); block == nil {
			break
		}
		if fault := anchorFault(block); fault != "" {
			wrong("entry %d %s", i, fault)
			continue
		}
		key := string(block.Bytes)
		if len(seen[key]) == 0 {
			order = append(order, key)
		}
		seen[key] = append(seen[key], i)
	}
	if f.Count() != before {
		return // what follows would only repeat it
	}
	if len(order) == 0 {
		wrong("at least one trust anchor must be provided")
	}
	for _, key := range order {
		if len(seen[key]) > 1 {
			wrong("duplicate trust anchor (indices %v)", seen[key])
		}
	}
}

func anchorFault(block *pem.Block) string {
	if block.Type != certificateBlock {
		return "has bad block type: " + block.Type
	}
	if len(block.Headers) != 0 {
		return "has PEM block headers"
	}
	cert, err := x509.ParseCertificate(block.Bytes)
	switch {
	case err != nil:
		return "does not parse as X.509"
	case !cert.IsCA:
		return "does not have the CA bit set"
	case !cert.BasicConstraintsValid:
		return "has invalid basic constraints"
	}
	return ""
}

// anyName leaves a bundle's name to validation, which looks at the signer's too.
func anyName(string, bool) []string { return nil }
