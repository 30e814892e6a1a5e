package pki

import (
	"crypto/rand"
	"crypto/x509"
	"errors"
	"fmt"
	"time"
)

// shortLived certificates live all the time that was asked for; the begin of the
// others is dated back at the cost of their end.
const shortLived = 8 * time.Hour

// Grant says what a request signed by SignRequest becomes.
type Grant struct {
	// Usage and Extended are what the certificate is for.
	Usage    x509.KeyUsage
	Extended []x509.ExtKeyUsage
	// Lifetime counts from now; nothing outlives the authority.
	Lifetime time.Duration
}

// SignRequest makes a certificate with the subject, names and key of a PKCS#10
// request (DER) whose signature it checks. Extensions are not taken over, and the
// certificate is never an authority's. Whoever calls it has decided that the
// requester is who the request says.
func (a *Authority) SignRequest(der []byte, g Grant) ([]byte, error) {
	request, err := x509.ParseCertificateRequest(der)
	if err != nil {
		return nil, fmt.Errorf("unable to parse certificate request: %w", err)
	}
	if err := request.CheckSignature(); err != nil {
		return nil, fmt.Errorf("unable to verify certificate request signature: %w", err)
	}
	serial, err := serialNumber()
	if err != nil {
		return nil, err
	}
	now := a.now()
	if !now.Before(a.cert.NotAfter) {
		return nil, errors.New("the signer has expired")
	}
	end := now.Add(g.Lifetime)
	if g.Lifetime >= shortLived {
		end = end.Add(-Backdate)
	}
	template := &x509.Certificate{
		SerialNumber: serial, Subject: request.Subject,
		DNSNames: request.DNSNames, IPAddresses: request.IPAddresses, EmailAddresses: request.EmailAddresses, URIs: request.URIs,
		NotBefore: now.Add(-Backdate), NotAfter: earlier(end, a.cert.NotAfter),
		KeyUsage: g.Usage, ExtKeyUsage: g.Extended, BasicConstraintsValid: true,
	}
	signed, err := x509.CreateCertificate(rand.Reader, template, a.cert, request.PublicKey, a.key)
	if err != nil {
		return nil, fmt.Errorf("sign certificate for %q: %w", request.Subject.CommonName, err)
	}
	return signed, nil
}
