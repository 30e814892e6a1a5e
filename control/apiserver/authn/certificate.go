package authn

import (
	"crypto/sha256"
	"crypto/x509"
	"fmt"
	"sync"
	"time"

	"github.com/sampan-dev/sampan/internal/identity"
)

// maxKnown bounds the certificates remembered as verified: more clients than
// that are verified again.
const maxKnown = 4096

// certificates remembers which leaves were verified, and until when that holds,
// so that a busy client costs one signature check and not one a request.
type certificates struct {
	mu    sync.Mutex
	valid map[[32]byte]time.Time
}

func (c *certificates) holds(sum [32]byte, now time.Time) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	until, ok := c.valid[sum]
	return ok && now.Before(until)
}

func (c *certificates) remember(sum [32]byte, until time.Time) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if len(c.valid) >= maxKnown {
		clear(c.valid)
	}
	c.valid[sum] = until
}

// byCertificate names the caller after the certificate's subject: its common
// name is the user, its organizations are the groups.
func (a *Authenticator) byCertificate(chain []*x509.Certificate) (identity.Identity, error) {
	leaf := chain[0]
	sum := sha256.Sum256(leaf.Raw)
	now := a.cfg.Now()
	if now.Before(leaf.NotBefore) || !a.known.holds(sum, now) {
		until, err := verify(chain, a.cfg.ClientCAs, now)
		if err != nil {
			return identity.Identity{}, fmt.Errorf("client certificate of %q: %w: %w", leaf.Subject.CommonName, err, ErrRefused)
		}
		a.known.remember(sum, until)
	}
	if leaf.Subject.CommonName == "" {
		return identity.Identity{}, fmt.Errorf("client certificate without a common name: %w", ErrRefused)
	}
	groups := make([]string, 0, len(leaf.Subject.Organization)+1)
	groups = append(append(groups, leaf.Subject.Organization...), identity.Authenticated)
	return identity.Identity{
		Name:   leaf.Subject.CommonName,
		Groups: groups,
		Extra:  map[string][]string{credentialID: {fmt.Sprintf("X509SHA256=%x", sum)}},
	}, nil
}

// verify returns until when the chain is good.
func verify(chain []*x509.Certificate, roots *x509.CertPool, now time.Time) (time.Time, error) {
	between := x509.NewCertPool()
	for _, c := range chain[1:] {
		between.AddCert(c)
	}
	chains, err := chain[0].Verify(x509.VerifyOptions{
		Roots: roots, Intermediates: between, CurrentTime: now,
		KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth},
	})
	if err != nil {
		return time.Time{}, err
	}
	until := chain[0].NotAfter
	for _, c := range chains[0] {
		if c.NotAfter.Before(until) {
			until = c.NotAfter
		}
	}
	return until, nil
}
