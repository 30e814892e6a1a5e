package pki

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"sync/atomic"
	"time"

	"github.com/sampan-dev/sampan/internal/clock"
)

// retryRenewal is how long a Holder waits after it could not renew: a leaf has
// days left by then, so there is no hurry.
const retryRenewal = time.Minute

// retryStale is that for a leaf that is not old, only not what is wanted.
const retryStale = time.Hour

// Holder keeps one leaf fresh. Its Get functions go into a tls.Config, so that
// every handshake uses the newest leaf: no listener restarts, and connections
// that exist live on. Safe for concurrent use.
type Holder struct {
	issue func() (*tls.Certificate, error)
	now   func() time.Time
	leaf  atomic.Pointer[tls.Certificate]
	named atomic.Pointer[func(*tls.ClientHelloInfo) *tls.Certificate]
	stale func(*x509.Certificate) bool
}

// NewHolder issues the first leaf at once, from the authority or from wherever
// issue gets it (a node gets its own from the API server).
func NewHolder(issue func() (*tls.Certificate, error), now func() time.Time) (*Holder, error) {
	h := &Holder{issue: issue, now: now}
	if err := h.renew(); err != nil {
		return nil, err
	}
	return h, nil
}

// Hold is NewHolder for a leaf of this authority.
func (a *Authority) Hold(l Leaf) (*Holder, error) {
	return NewHolder(func() (*tls.Certificate, error) { return a.Issue(l) }, a.now)
}

// Leaf is the certificate in use now.
func (h *Holder) Leaf() *tls.Certificate { return h.leaf.Load() }

// GetCertificate is for the tls.Config of a server.
func (h *Holder) GetCertificate(hello *tls.ClientHelloInfo) (*tls.Certificate, error) {
	if named := h.named.Load(); named != nil && hello != nil {
		if c := (*named)(hello); c != nil {
			return c, nil
		}
	}
	return h.leaf.Load(), nil
}

// ShowByName has GetCertificate show what named gives, if it gives anything, in the
// place of the leaf.
func (h *Holder) ShowByName(named func(*tls.ClientHelloInfo) *tls.Certificate) { h.named.Store(&named) }

// Replace has Run renew at once a leaf of which stale says that it is not what is wanted
// any more, and every hour where that fails: until then it is as good as before. It is
// called before Run.
func (h *Holder) Replace(stale func(*x509.Certificate) bool) { h.stale = stale }

// GetClientCertificate is for the tls.Config of a client.
func (h *Holder) GetClientCertificate(*tls.CertificateRequestInfo) (*tls.Certificate, error) {
	return h.leaf.Load(), nil
}

// Run renews the leaf when between 65 and 80 percent of its life has passed
// (spread, so that a fleet does not renew in one second) until ctx ends. changed,
// which may be nil, is called after each renewal from Run's goroutine. When the clock
// jumps (see package clock) it asks it anew how much life has passed.
func (h *Holder) Run(ctx context.Context, log *slog.Logger, changed func(*tls.Certificate)) error {
	jumps := clock.From(ctx)
	jumped := jumps.Next()
	wait := h.untilRenewal()
	for {
		timer := time.NewTimer(wait)
		select {
		case <-jumped:
			timer.Stop()
			jumped, wait = jumps.Next(), h.untilRenewal()
			continue
		case <-ctx.Done():
			timer.Stop()
			return context.Cause(ctx)
		case <-timer.C:
		}
		if err := h.renew(); err != nil {
			log.Error("renew certificate", "error", err)
			wait = retryRenewal
			if h.untilAged() > retryStale {
				wait = retryStale
			}
			continue
		}
		leaf := h.leaf.Load().Leaf
		log.Info("renewed certificate", "name", leaf.Subject.CommonName, "notAfter", leaf.NotAfter)
		if changed != nil {
			changed(h.leaf.Load())
		}
		wait = h.untilRenewal()
	}
}

func (h *Holder) renew() error {
	leaf, err := h.issue()
	if err != nil {
		return fmt.Errorf("issue certificate: %w", err)
	}
	if leaf.Leaf == nil {
		return fmt.Errorf("issue certificate: leaf is not parsed")
	}
	h.leaf.Store(leaf)
	return nil
}

// untilRenewal is the time left before the present leaf should be replaced.
func (h *Holder) untilRenewal() time.Duration {
	if h.stale != nil && h.stale(h.leaf.Load().Leaf) {
		return time.Second
	}
	return h.untilAged()
}

// untilAged is the time left before the present leaf is old. One that is not valid yet
// was made while the clock was ahead.
func (h *Holder) untilAged() time.Duration {
	leaf := h.leaf.Load().Leaf
	if h.now().Before(leaf.NotBefore) {
		return time.Second
	}
	life := leaf.NotAfter.Sub(leaf.NotBefore)
	at := leaf.NotBefore.Add(time.Duration(float64(life) * (0.65 + 0.15*rand.Float64())))
	return max(at.Sub(h.now()), time.Second)
}
