package authn

import (
	"context"
	"crypto/ecdsa"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/golang-jwt/jwt/v5"
	"github.com/google/uuid"

	"github.com/sampan-dev/sampan/internal/identity"
	"github.com/sampan-dev/sampan/internal/pki"
)

// leeway is how far the clocks of issuer and checker may be apart.
const leeway = time.Minute

// What a token adds to its bearer's identity, in upstream's words.
const (
	credentialID = "authentication.kubernetes.io/credential-id"
	extraPodName = "authentication.kubernetes.io/pod-name"
	extraPodUID  = "authentication.kubernetes.io/pod-uid"
	extraNode    = "authentication.kubernetes.io/node-name"
	extraNodeUID = "authentication.kubernetes.io/node-uid"
)

// Tokens issues and checks service-account tokens. Safe for concurrent use.
type Tokens struct {
	issuer    string
	audiences []string
	sign      *pki.TokenKey
	check     map[string]*ecdsa.PublicKey
	objects   Reader
	now       func() time.Time
}

// TokensConfig is what Tokens need.
type TokensConfig struct {
	// Issuer is the iss claim and the root of the discovery document:
	// "https://kubernetes.default.svc.cluster.local". It is also the audience
	// of tokens for this server.
	Issuer string
	// Sign signs new tokens; Old keys are still accepted.
	Sign *pki.TokenKey
	Old  []*pki.TokenKey
	// Objects is where accounts, pods, nodes and secrets are looked up.
	Objects Reader
	// Now is the wall clock; nil means time.Now.
	Now func() time.Time
}

// NewTokens returns Tokens.
func NewTokens(cfg TokensConfig) *Tokens {
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	t := &Tokens{issuer: cfg.Issuer, audiences: []string{cfg.Issuer}, sign: cfg.Sign, objects: cfg.Objects, now: cfg.Now,
		check: map[string]*ecdsa.PublicKey{}}
	for _, k := range append(slices.Clone(cfg.Old), cfg.Sign) {
		t.check[k.ID] = &k.Key.PublicKey
	}
	return t
}

// claims are a token's content: the registered ones and what it is bound to.
type claims struct {
	jwt.RegisteredClaims
	Kubernetes bound `json:"kubernetes.io"`
}

// bound names the objects without which the token is worth nothing.
type bound struct {
	Namespace      string           `json:"namespace,omitempty"`
	Node           *ref             `json:"node,omitempty"`
	Pod            *ref             `json:"pod,omitempty"`
	Secret         *ref             `json:"secret,omitempty"`
	ServiceAccount ref              `json:"serviceaccount"`
	WarnAfter      *jwt.NumericDate `json:"warnafter,omitempty"`
}

// ref is one object, as it was when the token was made.
type ref struct {
	Name string `json:"name,omitempty"`
	UID  string `json:"uid,omitempty"`
}

// issue signs a token for the account and objects in b.
func (t *Tokens) issue(b bound, audiences []string, life time.Duration) (token string, expires time.Time, err error) {
	now := t.now()
	expires = now.Add(life)
	c := claims{Kubernetes: b, RegisteredClaims: jwt.RegisteredClaims{
		Issuer:    t.issuer,
		Subject:   identity.ServiceAccountPrefix + b.Namespace + ":" + b.ServiceAccount.Name,
		Audience:  audiences,
		ExpiresAt: jwt.NewNumericDate(expires),
		IssuedAt:  jwt.NewNumericDate(now),
		NotBefore: jwt.NewNumericDate(now),
		ID:        uuid.NewString(),
	}}
	made := jwt.NewWithClaims(jwt.SigningMethodES256, c)
	made.Header["kid"] = t.sign.ID
	token, err = made.SignedString(t.sign.Key)
	if err != nil {
		return "", time.Time{}, fmt.Errorf("sign token for %q: %w", c.Subject, err)
	}
	return token, expires, nil
}

// Verdict is what a good token says.
type Verdict struct {
	User identity.Identity
	// Audiences are those asked for that the token is meant for.
	Audiences []string
}

// Check verifies the token's signature, times and audience, and that everything
// it is bound to still exists. All failures are ErrRefused.
func (t *Tokens) Check(ctx context.Context, token string, audiences []string) (Verdict, error) {
	if issuerOf(token) == legacyIssuer {
		return t.checkLegacy(ctx, token, audiences)
	}
	var c claims
	_, err := jwt.ParseWithClaims(token, &c, t.key,
		jwt.WithValidMethods([]string{jwt.SigningMethodES256.Alg()}), jwt.WithIssuer(t.issuer),
		jwt.WithExpirationRequired(), jwt.WithIssuedAt(), jwt.WithLeeway(leeway), jwt.WithTimeFunc(t.now))
	if err != nil {
		return Verdict{}, fmt.Errorf("%w: %w", plainly(err), ErrRefused)
	}
	var meant []string
	for _, a := range audiences {
		if slices.Contains(c.Audience, a) {
			meant = append(meant, a)
		}
	}
	if len(meant) == 0 {
		return Verdict{}, fmt.Errorf("token audiences %q is invalid for the target audiences %q: %w", c.Audience, audiences, ErrRefused)
	}
	b := c.Kubernetes
	if want := identity.ServiceAccountPrefix + b.Namespace + ":" + b.ServiceAccount.Name; c.Subject != want {
		return Verdict{}, fmt.Errorf("token subject %q is not %q: %w", c.Subject, want, ErrRefused)
	}
	if err := t.alive(ctx, b); err != nil {
		return Verdict{}, fmt.Errorf("%w: %w", err, ErrRefused)
	}
	return Verdict{User: bearerOf(&c), Audiences: meant}, nil
}

// plainly says it as upstream does: clients show it to people.
func plainly(err error) error {
	switch {
	case errors.Is(err, jwt.ErrTokenExpired):
		return errors.New("service account token has expired")
	case errors.Is(err, jwt.ErrTokenNotValidYet):
		return errors.New("service account token is not valid yet")
	case errors.Is(err, jwt.ErrTokenUsedBeforeIssued):
		return errors.New("service account token is issued in the future")
	}
	return errors.New("invalid bearer token")
}

func (t *Tokens) key(token *jwt.Token) (any, error) {
	id, _ := token.Header["kid"].(string)
	key, ok := t.check[id]
	if !ok {
		return nil, fmt.Errorf("unknown key %q", id)
	}
	return key, nil
}

func bearerOf(c *claims) identity.Identity {
	b := c.Kubernetes
	id := identity.ServiceAccount(b.Namespace, b.ServiceAccount.Name, b.ServiceAccount.UID)
	id.Extra = map[string][]string{}
	if c.ID != "" {
		id.Extra[credentialID] = []string{"JTI=" + c.ID}
	}
	if b.Pod != nil {
		id.Extra[extraPodName], id.Extra[extraPodUID] = []string{b.Pod.Name}, []string{b.Pod.UID}
	}
	if b.Node != nil {
		id.Extra[extraNode] = []string{b.Node.Name}
		if b.Node.UID != "" {
			id.Extra[extraNodeUID] = []string{b.Node.UID}
		}
	}
	return id
}
