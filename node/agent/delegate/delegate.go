// Package delegate asks the API server who makes a request to a node, and whether
// that one may: by TokenReview and SubjectAccessReview, as upstream's kubelet
// does, so that a node needs no users and no rules of its own. Certificates of
// the cluster's clients are checked here. Answers are kept for a while.
package delegate

import (
	"context"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"sync"
	"time"

	authenticationv1 "k8s.io/api/authentication/v1"
	authorizationv1 "k8s.io/api/authorization/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/sampan-dev/sampan/client"
	"github.com/sampan-dev/sampan/internal/identity"
	"github.com/sampan-dev/sampan/internal/target"
)

// Limits of what is kept.
const (
	maxKept     = 4096
	callTimeout = 10 * time.Second
	// failedFor is how long a token that is none is kept.
	failedFor = 10 * time.Second
)

// Config is what New needs.
type Config struct {
	Transport client.Transport
	NodeName  string
	// ClientCAs are the authorities of clients' certificates as of now; nil, or none,
	// takes no certificates.
	ClientCAs func() *x509.CertPool
	// Tokens has bearer tokens reviewed; Anonymous lets those in who show nothing.
	Tokens, Anonymous bool
	// TokenFor, AllowedFor and DeniedFor are how long answers are kept.
	TokenFor, AllowedFor, DeniedFor time.Duration
}

// Delegate asks on a node's behalf. Its methods may be called from any goroutine.
type Delegate struct {
	cfg    Config
	tokens kept[[sha256.Size]byte, caller]
	rights kept[string, bool]
}

type caller struct {
	who identity.Identity
	ok  bool
}

// New returns a Delegate that has asked nothing yet.
func New(cfg Config) *Delegate { return &Delegate{cfg: cfg} }

// Authenticate says who makes a request; false means that nobody knows. A
// certificate or token that is wrong is not anonymous.
func (d *Delegate) Authenticate(r *http.Request) (identity.Identity, bool) {
	if r.TLS != nil && len(r.TLS.PeerCertificates) > 0 {
		if who, ok := d.certificate(r.TLS); ok {
			return who, true
		}
	}
	if token := bearer(r); token != "" {
		if !d.cfg.Tokens {
			return identity.Identity{}, false
		}
		return d.token(r.Context(), token)
	}
	if d.cfg.Anonymous {
		return identity.Identity{Name: identity.Anonymous, Groups: []string{identity.Unauthenticated}}, true
	}
	return identity.Identity{}, false
}

func bearer(r *http.Request) string {
	scheme, token, _ := strings.Cut(strings.TrimSpace(r.Header.Get("Authorization")), " ")
	if !strings.EqualFold(scheme, "bearer") {
		return ""
	}
	return strings.TrimSpace(token)
}

// certificate names a caller after the certificate that the connection showed.
func (d *Delegate) certificate(state *tls.ConnectionState) (identity.Identity, bool) {
	if d.cfg.ClientCAs == nil {
		return identity.Identity{}, false
	}
	roots := d.cfg.ClientCAs()
	if roots == nil {
		return identity.Identity{}, false // or the system's would do
	}
	leaf, between := state.PeerCertificates[0], x509.NewCertPool()
	for _, c := range state.PeerCertificates[1:] {
		between.AddCert(c)
	}
	_, err := leaf.Verify(x509.VerifyOptions{Roots: roots, Intermediates: between, KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}})
	if err != nil || leaf.Subject.CommonName == "" {
		return identity.Identity{}, false
	}
	groups := slices.Clone(leaf.Subject.Organization)
	if !slices.Contains(groups, identity.Authenticated) {
		groups = append(groups, identity.Authenticated)
	}
	return identity.Identity{Name: leaf.Subject.CommonName, Groups: groups}, true
}

// token has the API server review a token.
func (d *Delegate) token(ctx context.Context, token string) (identity.Identity, bool) {
	key := sha256.Sum256([]byte(token))
	if c, ok := d.tokens.get(key); ok {
		return c.who, c.ok
	}
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	review := &authenticationv1.TokenReview{Spec: authenticationv1.TokenReviewSpec{Token: token}}
	answer, err := d.cfg.Transport.Create(ctx, target.Of(authenticationv1.SchemeGroupVersion.WithResource("tokenreviews"), ""), review, metav1.CreateOptions{})
	got, is := answer.(*authenticationv1.TokenReview)
	if err != nil || !is {
		return identity.Identity{}, false // the API server can't say: nothing is kept
	}
	c := caller{ok: got.Status.Authenticated && got.Status.Error == ""}
	if !c.ok {
		d.tokens.put(key, c, failedFor)
		return identity.Identity{}, false
	}
	user := got.Status.User
	c.who = identity.Identity{Name: user.Username, UID: user.UID, Groups: user.Groups}
	if len(user.Extra) > 0 {
		c.who.Extra = map[string][]string{}
		for name, values := range user.Extra {
			c.who.Extra[name] = values
		}
	}
	d.tokens.put(key, c, d.cfg.TokenFor)
	return c.who, true
}

// Allowed says whether who may do verb on the node's subresource.
func (d *Delegate) Allowed(ctx context.Context, who identity.Identity, verb, subresource string) bool {
	if who.In(identity.Masters) {
		return true
	}
	key := fmt.Sprintf("%q %q %q %q %q %q", who.Name, who.UID, who.Groups, who.Extra, verb, subresource)
	if ok, known := d.rights.get(key); known {
		return ok
	}
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	review := &authorizationv1.SubjectAccessReview{Spec: authorizationv1.SubjectAccessReviewSpec{
		User: who.Name, Groups: who.Groups, UID: who.UID,
		ResourceAttributes: &authorizationv1.ResourceAttributes{Verb: verb, Resource: "nodes", Subresource: subresource, Name: d.cfg.NodeName, Version: "v1"},
	}}
	if len(who.Extra) > 0 {
		review.Spec.Extra = map[string]authorizationv1.ExtraValue{}
		for name, values := range who.Extra {
			review.Spec.Extra[name] = values
		}
	}
	answer, err := d.cfg.Transport.Create(ctx, target.Of(authorizationv1.SchemeGroupVersion.WithResource("subjectaccessreviews"), ""), review, metav1.CreateOptions{})
	got, is := answer.(*authorizationv1.SubjectAccessReview)
	if err != nil || !is {
		return false
	}
	keep := d.cfg.DeniedFor
	if got.Status.Allowed {
		keep = d.cfg.AllowedFor
	}
	d.rights.put(key, got.Status.Allowed, keep)
	return got.Status.Allowed
}

// kept holds answers until they are too old. The zero value is ready to use.
type kept[K comparable, V any] struct {
	mu  sync.Mutex
	all map[K]answer[V]
}

type answer[V any] struct {
	value V
	until time.Time
}

func (k *kept[K, V]) get(key K) (V, bool) {
	k.mu.Lock()
	defer k.mu.Unlock()
	a, ok := k.all[key]
	return a.value, ok && time.Now().Before(a.until)
}

func (k *kept[K, V]) put(key K, value V, d time.Duration) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.all == nil || len(k.all) >= maxKept {
		k.all = map[K]answer[V]{} // whoever comes again is asked about again
	}
	k.all[key] = answer[V]{value, time.Now().Add(d)}
}
