// Package certificates says what the kinds of the certificates.k8s.io group are:
// requests for certificates, of users and of pods, and the bundles by which
// certificates are known. What only the server knows (who asks, what time it is,
// who may sign) is admission's part: control/apiserver/admit.
//
// Facts: k8s.io/api/certificates/v1 and the reference of certificate signing.
package certificates

import (
	"bytes"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"

	certificatesv1 "k8s.io/api/certificates/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"

	"github.com/sampan-dev/sampan/kinds"
)

// Kinds lists the group's kinds.
func Kinds() []*kinds.Kind {
	return []*kinds.Kind{SigningRequest(), TrustBundle(), PodRequest()}
}

func gvk(kind string) schema.GroupVersionKind {
	return certificatesv1.SchemeGroupVersion.WithKind(kind)
}

// certificateBlock and requestBlock are the PEM types that may appear.
const (
	certificateBlock = "CERTIFICATE"
	requestBlock     = "CERTIFICATE REQUEST"
)

// ParseRequest reads a PKCS#10 request out of PEM. Its signature is not checked.
func ParseRequest(text []byte) (*x509.CertificateRequest, error) {
	block, _ := pem.Decode(text)
	if block == nil || block.Type != requestBlock {
		return nil, errors.New("PEM block type must be CERTIFICATE REQUEST")
	}
	return x509.ParseCertificateRequest(block.Bytes)
}

// checkIssued wants nothing, or certificates only.
func checkIssued(text []byte) error {
	if len(text) == 0 {
		return nil
	}
	blocks := 0
	for {
		block, rest := pem.Decode(text)
		if block == nil {
			break
		}
		if err := checkIssuedBlock(block); err != nil {
			return err
		}
		blocks++
		text = rest
	}
	if blocks == 0 {
		return errors.New("must contain at least one CERTIFICATE PEM block")
	}
	return nil
}

func checkIssuedBlock(block *pem.Block) error {
	if block.Type != certificateBlock {
		return fmt.Errorf("only CERTIFICATE PEM blocks are allowed, found %q", block.Type)
	}
	if len(block.Headers) != 0 {
		return errors.New("no PEM block headers are permitted")
	}
	certs, err := x509.ParseCertificates(block.Bytes)
	if err != nil {
		return err
	}
	if len(certs) == 0 {
		return errors.New("found CERTIFICATE PEM block containing 0 certificates")
	}
	return nil
}

func sameBytes(a, b []byte) bool { return bytes.Equal(a, b) }
