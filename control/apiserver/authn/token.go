package authn

import (
	"context"
	"crypto/ecdsa"
	"crypto/sha256"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"time"

	"github.com/golang-jwt/jwt/v5"
	"github.com/google/uuid"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"

	"github.com/sampan-dev/sampan/internal/identity"
	"github.com/sampan-dev/sampan/internal/pki"
	"github.com/sampan-dev/sampan/internal/target"
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
	longest   time.Duration
	audiences []string
	sign      *pki.TokenKey
	check     map[string]*ecdsa.PublicKey
	objects   Reader
	writer    Patcher
	notes     Notes
	now       func() time.Time
	log       *slog.Logger
	counts    *tokenCounts
	// known are the tokens whose signature and times have been checked: only what
	// they are bound to is looked at each time.
	known *memory[[sha256.Size]byte, *verified]
}

// maxVerified bounds the tokens that are known, twice.
const maxVerified = 2048

// verified is a token that is good as far as it goes by itself.
type verified struct {
	user      identity.Identity // shared
	audiences []string
	until     time.Time // zero: for ever
	stale     time.Time // when its bearer should have had another; zero: never
	bound     bound
	legacy    *legacyClaims // nil for others
}

// Notes tell what is worth knowing about a token that is used; nil functions drop
// it.
type Notes struct {
	// Annotate adds to the audit event of the request that ctx belongs to.
	Annotate func(ctx context.Context, key, value string)
	// Warn shows the client a warning.
	Warn func(ctx context.Context, text string)
}

func (n Notes) annotate(ctx context.Context, key, value string) {
	if n.Annotate != nil {
		n.Annotate(ctx, key, value)
	}
}

func (n Notes) warn(ctx context.Context, text string) {
	if n.Warn != nil {
		n.Warn(ctx, text)
	}
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
	// Longest is how long a token may live, whatever its asker wants; 0 is no bound.
	Longest time.Duration
	// Objects is where accounts, pods, nodes and secrets are looked up.
	Objects Reader
	// Writer marks secrets whose tokens are used; nil marks none.
	Writer Patcher
	Notes  Notes
	// Now is the wall clock; nil means time.Now.
	Now func() time.Time
	// Log hears of secrets that could not be marked; nil discards it.
	Log *slog.Logger
}

// Patcher changes objects as the server itself.
type Patcher interface {
	Patch(ctx context.Context, t target.Target, kind types.PatchType, data []byte, opts metav1.PatchOptions) (runtime.Object, error)
}

// NewTokens returns Tokens.
func NewTokens(cfg TokensConfig) *Tokens {
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	t := &Tokens{issuer: cfg.Issuer, longest: cfg.Longest, audiences: []string{cfg.Issuer}, sign: cfg.Sign, objects: cfg.Objects, now: cfg.Now,
		check: map[string]*ecdsa.PublicKey{}, writer: cfg.Writer, notes: cfg.Notes, log: cfg.Log, counts: newTokenCounts(),
		known: newMemory[[sha256.Size]byte, *verified](maxVerified)}
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
	delete(made.Header, "typ") // the library's; upstream's tokens say nothing of it
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

	ends time.Time // of the token, where that is known
}

// Check verifies the token's signature, times and audience, and that everything
// it is bound to still exists. All failures are ErrRefused.
func (t *Tokens) Check(ctx context.Context, token string, audiences []string) (Verdict, error) {
	key := sha256.Sum256([]byte(token))
	v, ok := t.known.recall(key)
	if !ok {
		var err error
		if issuerOf(token) == legacyIssuer {
			v, err = t.verifyLegacy(token)
		} else {
			v, err = t.verify(token)
		}
		if err != nil {
			return Verdict{}, fmt.Errorf("%w: %w", err, ErrRefused)
		}
		t.known.remember(key, v)
	}
	return t.judge(ctx, v, token, audiences)
}

// verify checks what a token says of itself.
func (t *Tokens) verify(token string) (*verified, error) {
	var c claims
	_, err := jwt.ParseWithClaims(token, &c, t.key,
		jwt.WithValidMethods([]string{jwt.SigningMethodES256.Alg()}), jwt.WithIssuer(t.issuer),
		jwt.WithExpirationRequired(), jwt.WithIssuedAt(), jwt.WithLeeway(leeway), jwt.WithTimeFunc(t.now))
	if err != nil {
		return nil, plainly(err)
	}
	b := c.Kubernetes
	if want := identity.ServiceAccountPrefix + b.Namespace + ":" + b.ServiceAccount.Name; c.Subject != want {
		return nil, fmt.Errorf("token subject %q is not %q", c.Subject, want)
	}
	v := &verified{user: bearerOf(&c), audiences: c.Audience, until: c.ExpiresAt.Add(leeway), bound: b}
	if b.WarnAfter != nil {
		v.stale = b.WarnAfter.Time
	}
	return v, nil
}

// judge decides whether a verified token is good now, for one of the audiences.
func (t *Tokens) judge(ctx context.Context, v *verified, token string, audiences []string) (Verdict, error) {
	refused := func(err error) (Verdict, error) { return Verdict{}, fmt.Errorf("%w: %w", err, ErrRefused) }
	now := t.now()
	if !v.until.IsZero() && now.After(v.until) {
		return refused(errExpired)
	}
	mine := v.audiences
	if v.legacy != nil {
		t.counts.legacy.Inc()
		t.notes.annotate(ctx, "authentication.k8s.io/legacy-token", v.user.Name)
		mine = t.audiences // they name none, and count here only
	}
	meant := common(audiences, mine)
	if len(meant) == 0 {
		return refused(fmt.Errorf("token audiences %q is invalid for the target audiences %q", mine, audiences))
	}
	if v.legacy != nil {
		if err := t.aliveLegacy(ctx, v.legacy, token); err != nil {
			return refused(err)
		}
		return Verdict{User: v.user, Audiences: meant}, nil
	}
	if err := t.alive(ctx, v.bound); err != nil {
		return refused(err)
	}
	if !v.stale.IsZero() && now.After(v.stale) {
		t.counts.stale.Inc()
		t.notes.annotate(ctx, "authentication.k8s.io/stale-token", fmt.Sprintf("subject: %s, seconds after warning threshold: %.0f", v.user.Name, now.Sub(v.stale).Seconds()))
	} else {
		t.counts.valid.Inc()
	}
	return Verdict{User: v.user, Audiences: meant}, nil
}

// common is what both have, in a's order; shared with a when that is all of it.
func common(a, b []string) []string {
	for i, one := range a {
		if slices.Contains(b, one) {
			continue
		}
		both := slices.Clone(a[:i])
		for _, other := range a[i+1:] {
			if slices.Contains(b, other) {
				both = append(both, other)
			}
		}
		return both
	}
	return a
}

// errExpired is what the bearer of an old token is told.
var errExpired = errors.New("service account token has expired")

// plainly says it as upstream does: clients show it to people.
func plainly(err error) error {
	switch {
	case errors.Is(err, jwt.ErrTokenExpired):
		return errExpired
	case errors.Is(err, jwt.ErrTokenNotValidYet):
		return errors.New("service account token is not valid yet")
	case errors.Is(err, jwt.ErrTokenUsedBeforeIssued):
		return errors.New("service account token is issued in the future")
	}
	return errors.New(unknownBearer)
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
