// Package pki is the cluster's own certificate authority: it makes the authority
// once, issues short-lived leaves from it, renews them in place and keeps the
// keys that sign service-account tokens.
//
// Keys are ECDSA P-256. Files are 0600 in directories of 0700, written whole or
// not at all. Leaves live for LeafLifetime and are valid from Backdate before
// their making, so that a node whose clock is slow can use one at once.
package pki

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"errors"
	"fmt"
	"io/fs"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"time"
)

// How long things live.
const (
	// AuthorityLifetime is that of the authority itself: longer than any
	// machine it runs on.
	AuthorityLifetime = 10 * 365 * 24 * time.Hour
	// AuthorityBackdate is how far before its making the authority starts to be valid: it
	// may have been made by a machine whose clock was ahead until it was set.
	AuthorityBackdate = 365 * 24 * time.Hour
	// LeafLifetime is that of every certificate issued unless asked for less:
	// renewed at about two thirds, so that a cluster may sleep over a weekend.
	LeafLifetime = 7 * 24 * time.Hour
	// Backdate is how far before its making a certificate starts to be valid.
	Backdate = 5 * time.Minute
)

// Protocol is named, in TLS's list of protocols (ALPN), by the cluster's own parts when
// they call a node: a node that shows others a certificate of its operator's own shows
// them the authority's, which is the only one that they trust. It is never chosen.
const Protocol = "sampan-node"

// Authority issues certificates. It is immutable after Open and safe for
// concurrent use.
type Authority struct {
	cert *x509.Certificate
	key  crypto.Signer
	pem  []byte
	pool *x509.CertPool
	now  func() time.Time
}

// Open loads the authority kept in dir as ca.crt and ca.key, or makes it there
// when neither file exists. A key without a certificate, a certificate that is
// not the key's, and key files that others may read are errors: replacing an
// authority silently would lock out every node.
func Open(dir string, now func() time.Time) (*Authority, error) {
	certPath, keyPath := filepath.Join(dir, "ca.crt"), filepath.Join(dir, "ca.key")
	key, err := ReadKey(keyPath)
	if errors.Is(err, fs.ErrNotExist) {
		if _, err := os.Stat(certPath); err == nil {
			return nil, fmt.Errorf("authority %q has a certificate but no key: %s", dir, lostAuthority)
		}
		return create(dir, now)
	}
	if err != nil {
		return nil, fmt.Errorf("open authority: %w: %s", err, lostAuthority)
	}
	raw, err := os.ReadFile(certPath)
	if err != nil {
		return nil, fmt.Errorf("open authority: %w: %s", err, lostAuthority)
	}
	a, err := load(raw, key, now)
	if err != nil {
		return nil, fmt.Errorf("%q: %w: %s", certPath, err, lostAuthority)
	}
	return a, nil
}

// lostAuthority is what a person can do about it.
const lostAuthority = "bring it back from a backup, or remove both ca.crt and ca.key for a new one, which no node and no client knows"

// create makes a new authority and writes it: the key first, so that a crash in
// between leaves a key for which Open complains rather than a false authority.
func create(dir string, now func() time.Time) (*Authority, error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("create authority: %w", err)
	}
	key, certPEM, err := selfSigned(now)
	if err != nil {
		return nil, err
	}
	if err := WriteKey(filepath.Join(dir, "ca.key"), key); err != nil {
		return nil, fmt.Errorf("create authority: %w", err)
	}
	if err := writeFile(filepath.Join(dir, "ca.crt"), certPEM); err != nil {
		return nil, fmt.Errorf("create authority: %w", err)
	}
	return load(certPEM, key, now)
}

// Temporary makes an authority that nobody keeps: it ends with the process.
func Temporary(now func() time.Time) (*Authority, error) {
	key, certPEM, err := selfSigned(now)
	if err != nil {
		return nil, err
	}
	return load(certPEM, key, now)
}

// selfSigned makes an authority's key and its certificate as PEM.
func selfSigned(now func() time.Time) (*ecdsa.PrivateKey, []byte, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, nil, fmt.Errorf("create authority key: %w", err)
	}
	serial, err := serialNumber()
	if err != nil {
		return nil, nil, err
	}
	template := &x509.Certificate{
		SerialNumber:          serial,
		Subject:               pkix.Name{CommonName: fmt.Sprintf("sampan-ca@%d", now().Unix())},
		NotBefore:             now().Add(-AuthorityBackdate),
		NotAfter:              now().Add(AuthorityLifetime),
		KeyUsage:              x509.KeyUsageCertSign | x509.KeyUsageDigitalSignature | x509.KeyUsageKeyEncipherment,
		BasicConstraintsValid: true,
		IsCA:                  true,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		return nil, nil, fmt.Errorf("create authority certificate: %w", err)
	}
	return key, encodeCertificate(der), nil
}

// load checks that certificate and key belong together.
func load(certPEM []byte, key crypto.Signer, now func() time.Time) (*Authority, error) {
	cert, err := ParseCertificate(certPEM)
	if err != nil {
		return nil, fmt.Errorf("load authority: %w", err)
	}
	public, ok := cert.PublicKey.(*ecdsa.PublicKey)
	if !ok || !public.Equal(key.Public()) {
		return nil, fmt.Errorf("load authority %q: certificate and key do not belong together", cert.Subject.CommonName)
	}
	if !cert.IsCA {
		return nil, fmt.Errorf("load authority %q: not an authority's certificate", cert.Subject.CommonName)
	}
	pool := x509.NewCertPool()
	pool.AddCert(cert)
	return &Authority{cert: cert, key: key, pem: certPEM, pool: pool, now: now}, nil
}

// PEM is the authority's certificate: what clients trust. Do not change it.
func (a *Authority) PEM() []byte { return a.pem }

// Pool holds only this authority. Do not change it.
func (a *Authority) Pool() *x509.CertPool { return a.pool }

// Hash pins the authority in a join token: see Hash.
func (a *Authority) Hash() string { return Hash(a.cert) }

// Hash is what a certificate's key is pinned by: "sha256:" and the hex digest of the
// public key, as kubeadm writes it.
func Hash(c *x509.Certificate) string {
	return fmt.Sprintf("sha256:%x", sha256.Sum256(c.RawSubjectPublicKeyInfo))
}

// Leaf says what a certificate is for.
type Leaf struct {
	// CommonName is the user's name of a client, Organizations its groups.
	CommonName    string
	Organizations []string
	// DNSNames and IPs are the names a server answers to.
	DNSNames []string
	IPs      []net.IP
	// Client and Server choose the extended usages; at least one is needed.
	Client, Server bool
	// Chain sends the authority's certificate along, so that who knows no more of
	// the authority than its Hash can find it in a handshake: a node that joins.
	Chain bool
	// Lifetime shortens the certificate's life; zero means LeafLifetime, and
	// nothing outlives the authority.
	Lifetime time.Duration
}

// Issue makes a key and a certificate for it.
func (a *Authority) Issue(l Leaf) (*tls.Certificate, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, fmt.Errorf("make key for %q: %w", l.CommonName, err)
	}
	der, err := a.Sign(l, key.Public())
	if err != nil {
		return nil, err
	}
	parsed, err := x509.ParseCertificate(der)
	if err != nil {
		return nil, fmt.Errorf("parse own certificate for %q: %w", l.CommonName, err)
	}
	chain := [][]byte{der}
	if l.Chain {
		chain = append(chain, a.cert.Raw)
	}
	return &tls.Certificate{Certificate: chain, PrivateKey: key, Leaf: parsed}, nil
}

// Sign makes a certificate for somebody else's public key and returns its DER.
// Whoever calls it has decided that the holder of the key is who l says.
func (a *Authority) Sign(l Leaf, public crypto.PublicKey) ([]byte, error) {
	if !l.Client && !l.Server {
		return nil, fmt.Errorf("certificate for %q is for neither client nor server", l.CommonName)
	}
	serial, err := serialNumber()
	if err != nil {
		return nil, err
	}
	lifetime := l.Lifetime
	if lifetime <= 0 || lifetime > LeafLifetime {
		lifetime = LeafLifetime
	}
	now := a.now()
	template := &x509.Certificate{
		SerialNumber:          serial,
		Subject:               pkix.Name{CommonName: l.CommonName, Organization: l.Organizations},
		NotBefore:             now.Add(-Backdate),
		NotAfter:              earlier(now.Add(lifetime), a.cert.NotAfter),
		KeyUsage:              x509.KeyUsageDigitalSignature,
		BasicConstraintsValid: true,
		DNSNames:              l.DNSNames,
		IPAddresses:           l.IPs,
	}
	if l.Client {
		template.ExtKeyUsage = append(template.ExtKeyUsage, x509.ExtKeyUsageClientAuth)
	}
	if l.Server {
		template.ExtKeyUsage = append(template.ExtKeyUsage, x509.ExtKeyUsageServerAuth)
	}
	der, err := x509.CreateCertificate(rand.Reader, template, a.cert, public, a.key)
	if err != nil {
		return nil, fmt.Errorf("sign certificate for %q: %w", l.CommonName, err)
	}
	return der, nil
}

// serialNumber is 127 random bits: unique without a counter on disk.
func serialNumber() (*big.Int, error) {
	serial, err := rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 127))
	if err != nil {
		return nil, fmt.Errorf("make serial number: %w", err)
	}
	return serial.Add(serial, big.NewInt(1)), nil
}

func earlier(a, b time.Time) time.Time {
	if a.Before(b) {
		return a
	}
	return b
}
