// Package authn answers "who are you?": by client certificate, by a
// service-account token that this server issued, or, for health checks only, not
// at all. It issues those tokens too, bound to the objects they serve and
// worthless once those are gone, and publishes the keys that check them.
package authn

import (
	"context"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"sync/atomic"
	"time"
	"unicode/utf8"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"

	"github.com/sampan-dev/sampan/internal/identity"
	"github.com/sampan-dev/sampan/internal/target"
)

// maxToken bounds a bearer token in bytes; ours have about 1,200.
const maxToken = 16 << 10

// websocketToken precedes a token among the WebSocket protocols of a browser,
// which can set no header.
const websocketToken = "base64url.bearer.authorization.k8s.io."

// ErrRefused is the kind of every credential that is no good.
var ErrRefused = errors.New("credentials refused")

// Reader reads objects as the server itself. ResourceVersion "0" may answer from
// the cache.
type Reader interface {
	Get(ctx context.Context, t target.Target, opts metav1.GetOptions) (runtime.Object, error)
}

// Config is what an Authenticator needs.
type Config struct {
	// ClientCAs are the authorities whose client certificates count.
	ClientCAs *x509.CertPool
	// FrontProxy is believed what it says in headers; nil believes nobody.
	FrontProxy *FrontProxy
	// Tokens checks tokens that this server issued; nil knows none.
	Tokens *Tokens
	// Objects is where bootstrap tokens are; nil knows none.
	Objects Reader
	// Others check tokens of other issuers, in this order.
	Others []TokenSource
	// Anonymous says whether a path is for those without credentials; nil means
	// the health checks.
	Anonymous func(path string) bool
	// Now is the wall clock; nil means time.Now.
	Now func() time.Time
}

// Authenticator finds out who makes a request. Safe for concurrent use.
type Authenticator struct {
	cfg     Config
	trusted atomic.Pointer[trusted]
	counts  *memoryCounts
}

// New returns an Authenticator.
func New(cfg Config) *Authenticator {
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	if cfg.Anonymous == nil {
		cfg.Anonymous = IsHealth
	}
	a := &Authenticator{cfg: cfg, counts: newMemoryCounts()}
	a.Trust(cfg.ClientCAs, cfg.FrontProxy)
	return a
}

// Authenticate gives the caller of r. Without any credentials it is
// Anonymous for health checks and ErrRefused for all else; credentials that are
// there but no good are always ErrRefused.
func (a *Authenticator) Authenticate(r *http.Request) (identity.Identity, error) {
	token, given, err := bearer(r)
	if err != nil {
		return identity.Identity{}, err
	}
	if who, ok := a.byFrontProxy(r); ok {
		return who, nil
	}
	if r.TLS != nil && len(r.TLS.PeerCertificates) > 0 {
		who, err := a.byCertificate(r.TLS.PeerCertificates)
		if err == nil || !given {
			return who, err
		}
	}
	if given {
		verdict, err := a.ByToken(r.Context(), token, nil)
		return verdict.User, err
	}
	if a.cfg.Anonymous(r.URL.Path) {
		return identity.Identity{Name: identity.Anonymous, Groups: []string{identity.Unauthenticated}}, nil
	}
	return identity.Identity{}, fmt.Errorf("no credentials: %w", ErrRefused)
}

// TokenSource checks the tokens of one issuer. Safe for concurrent use.
type TokenSource interface {
	// Check gives the bearer of a token; ok is false when the token is none of
	// this source's, err then says why and may be nil. audiences are those that
	// the token must be meant for one of.
	Check(ctx context.Context, token string, audiences []string) (v Verdict, ok bool, err error)
}

// ByToken gives the bearer of a token; no audiences mean this server. All
// failures are ErrRefused.
func (a *Authenticator) ByToken(ctx context.Context, token string, audiences []string) (Verdict, error) {
	if len(audiences) == 0 && a.cfg.Tokens != nil {
		audiences = a.cfg.Tokens.audiences
	}
	if who, ok, err := a.byBootstrapToken(ctx, token); ok {
		return Verdict{User: who, Audiences: audiences}, err
	}
	began := time.Now()
	if t := a.cfg.Tokens; t != nil {
		if known, ok := t.known.recall(sha256.Sum256([]byte(token))); ok {
			a.counts.recalled(began)
			return t.judge(ctx, known, token, audiences)
		}
	}
	done := a.counts.fetching(began)
	verdict, err := a.verify(ctx, token, audiences)
	done(err)
	return verdict, err
}

// verify checks a token that has not been seen before.
func (a *Authenticator) verify(ctx context.Context, token string, audiences []string) (Verdict, error) {
	failed := fmt.Errorf(unknownBearer+": %w", ErrRefused)
	if a.cfg.Tokens != nil && a.cfg.Tokens.issued(token) {
		verdict, err := a.cfg.Tokens.Check(ctx, token, audiences)
		if err == nil {
			return verdict, nil
		}
		failed = err
	}
	for _, source := range a.cfg.Others {
		verdict, ok, err := source.Check(ctx, token, audiences)
		if ok && err == nil {
			return verdict, nil
		}
		if err != nil {
			failed = fmt.Errorf("%w: %w", err, ErrRefused)
		}
	}
	return Verdict{}, failed
}

// bearer takes the token from the header, or from the WebSocket protocols, which
// then no longer name it.
func bearer(r *http.Request) (token string, given bool, err error) {
	if header := r.Header.Get("Authorization"); header != "" {
		scheme, rest, _ := strings.Cut(strings.TrimSpace(header), " ")
		token, _, _ = strings.Cut(rest, " ")
		if !strings.EqualFold(scheme, "bearer") || token == "" {
			return "", false, nil // whatever that is, it is no token
		}
		return token, true, limit(token)
	}
	if !strings.EqualFold(r.Header.Get("Upgrade"), "websocket") {
		return "", false, nil
	}
	var kept []string
	for _, header := range r.Header.Values("Sec-WebSocket-Protocol") {
		for protocol := range strings.SplitSeq(header, ",") {
			protocol = strings.TrimSpace(protocol)
			encoded, ok := strings.CutPrefix(protocol, websocketToken)
			if !ok {
				kept = append(kept, protocol)
				continue
			}
			raw, err := base64.RawURLEncoding.DecodeString(encoded)
			if err != nil || given || !utf8.Valid(raw) || len(raw) == 0 {
				return "", true, fmt.Errorf("websocket bearer token: %w", ErrRefused)
			}
			token, given = string(raw), true
		}
	}
	if !given {
		return "", false, nil
	}
	if len(kept) == 0 {
		return "", true, fmt.Errorf("websocket bearer token needs another protocol beside it: %w", ErrRefused)
	}
	r.Header.Set("Sec-WebSocket-Protocol", strings.Join(kept, ","))
	return token, true, limit(token)
}

func limit(token string) error {
	if len(token) > maxToken {
		return fmt.Errorf("token has more than %d bytes: %w", maxToken, ErrRefused)
	}
	return nil
}

// IsHealth says whether path is one of the three pages that say how the server is:
// only these are for everybody. A single check has a path below them, and needs a right
// to it, as upstream's.
func IsHealth(path string) bool {
	switch path {
	case "/livez", "/readyz", "/healthz":
		return true
	}
	return false
}
