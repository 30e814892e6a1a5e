package authn

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"sync"
	"time"

	"github.com/coreos/go-oidc/v3/oidc"

	"github.com/sampan-dev/sampan/control/apiserver/cel/plain"
	"github.com/sampan-dev/sampan/internal/identity"
)

// allAlgorithms are those of upstream's structured configuration.
var allAlgorithms = []string{oidc.RS256, oidc.RS384, oidc.RS512, oidc.ES256, oidc.ES384, oidc.ES512, oidc.PS256, oidc.PS384, oidc.PS512}

// jwtIssuer is one foreign issuer of tokens.
type jwtIssuer struct {
	keeper
	cfg        *JWTConfig
	algorithms []string
	rules      rules

	othersMu sync.Mutex
	others   map[string]*keeper // of the tokens of sources of claims, by issuer
}

// rules are the compiled expressions.
type rules struct {
	claims, users         []*plain.Expression // nil where the rule has none
	username, groups, uid *plain.Expression
	extra                 []*plain.Expression
}

func newIssuer(cfg *JWTConfig, now func() time.Time) (*jwtIssuer, error) {
	transport := &http.Transport{Proxy: http.ProxyFromEnvironment, TLSClientConfig: &tls.Config{MinVersion: tls.VersionTLS12}, IdleConnTimeout: time.Minute}
	if pem := cfg.Issuer.CertificateAuthority; pem != "" {
		transport.TLSClientConfig.RootCAs = x509.NewCertPool()
		if !transport.TLSClientConfig.RootCAs.AppendCertsFromPEM([]byte(pem)) {
			return nil, errors.New("issuer.certificateAuthority: no certificate in PEM")
		}
	}
	i := &jwtIssuer{cfg: cfg, algorithms: allAlgorithms, keeper: keeper{issuer: cfg.Issuer.URL, at: cfg.Issuer.DiscoveryURL, now: now,
		client: &http.Client{Transport: transport, Timeout: issuerWait}}}
	return i, i.compile()
}

func (i *jwtIssuer) compile() error {
	var errs []error
	one := func(text, about string) *plain.Expression {
		if text == "" {
			return nil
		}
		e, err := plain.Compile(text, about)
		if err != nil {
			errs = append(errs, fmt.Errorf("expression %q: %w", text, err))
		}
		return e
	}
	m := &i.cfg.ClaimMappings
	i.rules.username, i.rules.groups, i.rules.uid = one(m.Username.Expression, "claims"), one(m.Groups.Expression, "claims"), one(m.UID.Expression, "claims")
	for _, e := range m.Extra {
		i.rules.extra = append(i.rules.extra, one(e.ValueExpression, "claims"))
	}
	for _, r := range i.cfg.ClaimValidationRules {
		i.rules.claims = append(i.rules.claims, one(r.Expression, "claims"))
	}
	for _, r := range i.cfg.UserValidationRules {
		i.rules.users = append(i.rules.users, one(r.Expression, "user"))
	}
	return errors.Join(errs...)
}

// Check implements TokenSource.
func (i *jwtIssuer) Check(ctx context.Context, token string, audiences []string) (Verdict, bool, error) {
	if issuerOf(token) != i.cfg.Issuer.URL {
		return Verdict{}, false, nil
	}
	claims, ends, err := i.verify(ctx, token)
	if err != nil {
		return Verdict{}, true, fmt.Errorf("oidc: %w", err)
	}
	who, err := i.user(ctx, claims)
	if err != nil {
		return Verdict{}, true, fmt.Errorf("oidc: %w", err)
	}
	return Verdict{User: withAuthenticated(who), Audiences: audiences, ends: ends}, true, nil
}

// verify checks signature, times and audience and gives the claims, those that are
// elsewhere included, and the token's end.
func (i *jwtIssuer) verify(ctx context.Context, token string) (map[string]any, time.Time, error) {
	keys, err := i.keySet(ctx)
	if err != nil {
		return nil, time.Time{}, err
	}
	claims, ends, err := i.open(ctx, i.cfg.Issuer.URL, keys, token)
	if err != nil {
		return nil, ends, fmt.Errorf("verify token: %w", err)
	}
	if err := i.complete(ctx, claims); err != nil {
		return nil, ends, fmt.Errorf("could not expand distributed claims: %w", err)
	}
	return claims, ends, nil
}

// open checks a token of an issuer, whose keys are given, and reads it.
func (i *jwtIssuer) open(ctx context.Context, issuer string, keys oidc.KeySet, token string) (map[string]any, time.Time, error) {
	verifier := oidc.NewVerifier(issuer, keys, &oidc.Config{SkipClientIDCheck: true, SupportedSigningAlgs: i.algorithms, Now: i.now})
	good, err := verifier.Verify(oidc.ClientContext(ctx, i.client), token)
	if err != nil {
		return nil, time.Time{}, err
	}
	if !slices.ContainsFunc(good.Audience, func(a string) bool { return slices.Contains(i.cfg.Issuer.Audiences, a) }) {
		return nil, time.Time{}, fmt.Errorf("expected audience in %q got %q", i.cfg.Issuer.Audiences, good.Audience)
	}
	claims := map[string]any{}
	if err := good.Claims(&claims); err != nil {
		return nil, time.Time{}, fmt.Errorf("parse claims: %w", err)
	}
	return claims, good.Expiry, nil
}

// user makes a user of the claims, by the mappings and under the rules.
func (i *jwtIssuer) user(ctx context.Context, claims map[string]any) (who identity.Identity, err error) {
	values := map[string]any{"claims": claims}
	if err := i.claimRules(ctx, claims, values); err != nil {
		return who, err
	}
	m := &i.cfg.ClaimMappings
	if who.Name, err = i.username(ctx, claims, values); err != nil {
		return who, err
	}
	if who.Groups, err = i.groups(ctx, claims, values); err != nil {
		return who, err
	}
	switch {
	case i.rules.uid != nil:
		who.UID, err = i.rules.uid.String(ctx, values)
	case m.UID.Claim != "":
		who.UID, err = text(claims, m.UID.Claim)
	}
	if err != nil {
		return who, fmt.Errorf("error evaluating uid claim: %w", err)
	}
	who.Extra = map[string][]string{}
	if id, ok := claims["jti"].(string); ok && id != "" {
		who.Extra[credentialID] = []string{"JTI=" + id}
	}
	for n, e := range i.rules.extra {
		all, err := e.Strings(ctx, values)
		if err != nil {
			return who, fmt.Errorf("error evaluating extra claim expression: %w", err)
		}
		if len(all) > 0 {
			who.Extra[m.Extra[n].Key] = all
		}
	}
	return who, i.userRules(ctx, who)
}

func (i *jwtIssuer) claimRules(ctx context.Context, claims, values map[string]any) error {
	for n, r := range i.cfg.ClaimValidationRules {
		if e := i.rules.claims[n]; e != nil {
			ok, err := e.Bool(ctx, values)
			if err != nil {
				return fmt.Errorf("error evaluating claim validation expression: %w", err)
			}
			if !ok {
				return fmt.Errorf("validation expression '%s' failed: %s", r.Expression, r.Message)
			}
			continue
		}
		got, err := text(claims, r.Claim)
		if err != nil {
			return fmt.Errorf("required claim %s not present in ID token: %w", r.Claim, err)
		}
		if got != r.RequiredValue {
			return fmt.Errorf("required claim %s value does not match. Got = %s, want = %s", r.Claim, got, r.RequiredValue)
		}
	}
	return nil
}

func (i *jwtIssuer) username(ctx context.Context, claims, values map[string]any) (string, error) {
	m := i.cfg.ClaimMappings.Username
	if i.rules.username != nil {
		name, err := i.rules.username.String(ctx, values)
		if err == nil && name == "" {
			err = errors.New("it is empty")
		}
		if err != nil {
			return "", fmt.Errorf("error evaluating username claim expression: %w", err)
		}
		return name, nil
	}
	if verified, there := claims["email_verified"]; m.Claim == "email" && there && verified != true {
		return "", errors.New("email not verified")
	}
	name, err := text(claims, m.Claim)
	if err != nil {
		return "", fmt.Errorf("parse username claims %q: %w", m.Claim, err)
	}
	return *m.Prefix + name, nil
}

func (i *jwtIssuer) groups(ctx context.Context, claims, values map[string]any) ([]string, error) {
	m := i.cfg.ClaimMappings.Groups
	if i.rules.groups != nil {
		all, err := i.rules.groups.Strings(ctx, values)
		if err != nil {
			return nil, fmt.Errorf("error evaluating group claim expression: %w", err)
		}
		return slices.DeleteFunc(all, func(g string) bool { return g == "" }), nil
	}
	var out []string
	switch v := claims[m.Claim].(type) {
	case nil:
	case string:
		out = append(out, *m.Prefix+v)
	case []any:
		for _, item := range v {
			name, ok := item.(string)
			if !ok {
				return nil, fmt.Errorf("parse groups claim %q: an item is no string", m.Claim)
			}
			out = append(out, *m.Prefix+name)
		}
	default:
		return nil, fmt.Errorf("parse groups claim %q: neither a string nor a list", m.Claim)
	}
	return out, nil
}

func (i *jwtIssuer) userRules(ctx context.Context, who identity.Identity) error {
	if len(i.rules.users) == 0 {
		return nil
	}
	groups := make([]any, 0, len(who.Groups))
	for _, g := range who.Groups {
		groups = append(groups, g)
	}
	values := map[string]any{"user": map[string]any{"username": who.Name, "uid": who.UID, "groups": groups, "extra": who.Extra}}
	for n, e := range i.rules.users {
		ok, err := e.Bool(ctx, values)
		if err != nil {
			return fmt.Errorf("error evaluating user info validation rule: %w", err)
		}
		if !ok {
			r := i.cfg.UserValidationRules[n]
			return fmt.Errorf("error evaluating user info validation rule: validation expression '%s' failed: %s", r.Expression, r.Message)
		}
	}
	return nil
}

// text is a claim that is a string.
func text(claims map[string]any, name string) (string, error) {
	switch v := claims[name].(type) {
	case nil:
		return "", errors.New("claim not present")
	case string:
		return v, nil
	default:
		return "", fmt.Errorf("claim is a %T, not a string", v)
	}
}
