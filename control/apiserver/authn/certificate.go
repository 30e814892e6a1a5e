package authn

import (
	"crypto/sha256"
	"crypto/x509"
	"errors"
	"fmt"
	"sync"
	"time"
	"weak"

	"k8s.io/apimachinery/pkg/apis/asn1"

	"github.com/sampan-dev/sampan/internal/identity"
)

// maxKnown bounds the certificates remembered as verified: more clients than
// that are verified again.
const maxKnown = 4096

// certificates remembers who showed which leaf, and until when that holds, so that
// a connection costs one signature check and a request none. A leaf is known by its
// address: crypto/tls gives all requests of a connection the same one.
type certificates struct {
	mu    sync.Mutex
	valid map[weak.Pointer[x509.Certificate]]holder
}

// holder is the caller that a certificate names: shared, never changed.
type holder struct {
	who   identity.Identity
	until time.Time
}

func (c *certificates) holder(leaf *x509.Certificate, now time.Time) (identity.Identity, bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	h, ok := c.valid[weak.Make(leaf)]
	return h.who, ok && now.Before(h.until)
}

func (c *certificates) remember(leaf *x509.Certificate, h holder) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if len(c.valid) >= maxKnown {
		clear(c.valid)
	}
	c.valid[weak.Make(leaf)] = h
}

// byCertificate names the caller after the certificate's subject: its common
// name is the user, its organizations are the groups.
func (a *Authenticator) byCertificate(chain []*x509.Certificate) (identity.Identity, error) {
	leaf := chain[0]
	now := a.cfg.Now()
	t := a.trusted.Load()
	if who, ok := t.known.holder(leaf, now); ok && !now.Before(leaf.NotBefore) {
		return who, nil
	}
	until, err := verify(chain, t.clients, now)
	if err != nil {
		return identity.Identity{}, fmt.Errorf("client certificate of %q: %w: %w", leaf.Subject.CommonName, err, ErrRefused)
	}
	if leaf.Subject.CommonName == "" {
		return identity.Identity{}, fmt.Errorf("client certificate without a common name: %w", ErrRefused)
	}
	uid, err := uidOf(leaf)
	if err != nil {
		return identity.Identity{}, fmt.Errorf("client certificate of %q: %w: %w", leaf.Subject.CommonName, err, ErrRefused)
	}
	groups := make([]string, 0, len(leaf.Subject.Organization)+1)
	groups = append(append(groups, leaf.Subject.Organization...), identity.Authenticated)
	who := identity.Identity{
		Name:   leaf.Subject.CommonName,
		UID:    uid,
		Groups: groups,
		Extra:  map[string][]string{credentialID: {fmt.Sprintf("X509SHA256=%x", sha256.Sum256(leaf.Raw))}},
	}
	t.known.remember(leaf, holder{who, until})
	return who, nil
}

// uidOf is the user's UID, which a subject may name under Kubernetes' own object
// identifier (1.3.6.1.4.1.57683.2), once.
func uidOf(leaf *x509.Certificate) (string, error) {
	uid, found := "", false
	for _, part := range leaf.Subject.Names {
		if !part.Type.Equal(asn1.X509UID()) {
			continue
		}
		text, ok := part.Value.(string)
		switch {
		case !ok:
			return "", errors.New("unable to parse UID into a string")
		case found:
			return "", errors.New("expected 1 UID, but found multiple")
		case text == "":
			return "", errors.New("UID cannot be an empty string")
		}
		uid, found = text, true
	}
	return uid, nil
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
