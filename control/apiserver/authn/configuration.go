package authn

import (
	"errors"
	"fmt"
	"net/url"
	"strings"
)

// maxIssuers bounds the issuers of one configuration, as upstream does.
const maxIssuers = 64

// Configuration is upstream's AuthenticationConfiguration
// (apiserver.config.k8s.io/v1): who else issues tokens, and what is anonymous.
type Configuration struct {
	APIVersion string           `json:"apiVersion"`
	Kind       string           `json:"kind"`
	JWT        []JWTConfig      `json:"jwt,omitempty"`
	Anonymous  *AnonymousConfig `json:"anonymous,omitempty"`
}

// AnonymousConfig opens all paths, or those of the conditions.
type AnonymousConfig struct {
	Enabled    bool                 `json:"enabled"`
	Conditions []AnonymousCondition `json:"conditions,omitempty"`
}

// AnonymousCondition names one path.
type AnonymousCondition struct {
	Path string `json:"path"`
}

// JWTConfig is one issuer of JSON web tokens.
type JWTConfig struct {
	Issuer               IssuerConfig  `json:"issuer"`
	ClaimValidationRules []ClaimRule   `json:"claimValidationRules,omitempty"`
	ClaimMappings        ClaimMappings `json:"claimMappings"`
	UserValidationRules  []UserRule    `json:"userValidationRules,omitempty"`
}

// IssuerConfig says where an issuer is, and for whom its tokens must be.
type IssuerConfig struct {
	URL                  string   `json:"url"`
	DiscoveryURL         string   `json:"discoveryURL,omitempty"`
	CertificateAuthority string   `json:"certificateAuthority,omitempty"`
	Audiences            []string `json:"audiences"`
	AudienceMatchPolicy  string   `json:"audienceMatchPolicy,omitempty"`
	EgressSelectorType   string   `json:"egressSelectorType,omitempty"`
}

// ClaimRule wants a claim to have a value, or an expression to be true.
type ClaimRule struct {
	Claim         string `json:"claim,omitempty"`
	RequiredValue string `json:"requiredValue,omitempty"`
	Expression    string `json:"expression,omitempty"`
	Message       string `json:"message,omitempty"`
}

// ClaimMappings make a user of the claims.
type ClaimMappings struct {
	Username PrefixedClaim  `json:"username"`
	Groups   PrefixedClaim  `json:"groups,omitempty"`
	UID      ClaimOrText    `json:"uid,omitempty"`
	Extra    []ExtraMapping `json:"extra,omitempty"`
}

// PrefixedClaim is a claim with a prefix before its value, or an expression.
type PrefixedClaim struct {
	Claim      string  `json:"claim,omitempty"`
	Prefix     *string `json:"prefix,omitempty"`
	Expression string  `json:"expression,omitempty"`
}

// ClaimOrText is a claim, or an expression.
type ClaimOrText struct {
	Claim      string `json:"claim,omitempty"`
	Expression string `json:"expression,omitempty"`
}

// ExtraMapping gives the user an attribute.
type ExtraMapping struct {
	Key             string `json:"key"`
	ValueExpression string `json:"valueExpression"`
}

// UserRule wants an expression about the user to be true.
type UserRule struct {
	Expression string `json:"expression"`
	Message    string `json:"message,omitempty"`
}

func (c *Configuration) validate() error {
	var errs []error
	wrong := func(format string, args ...any) { errs = append(errs, fmt.Errorf(format, args...)) }
	if len(c.JWT) > maxIssuers {
		wrong("jwt: must have at most %d items", maxIssuers)
	}
	seen := map[string]bool{}
	for i := range c.JWT {
		at := fmt.Sprintf("jwt[%d]", i)
		j := &c.JWT[i]
		if seen[j.Issuer.URL] {
			wrong("%s.issuer.url: duplicate value: %q", at, j.Issuer.URL)
		}
		seen[j.Issuer.URL] = true
		if err := j.validate(); err != nil {
			wrong("%s: %w", at, err)
		}
	}
	if a := c.Anonymous; a != nil && !a.Enabled && len(a.Conditions) > 0 {
		wrong("anonymous.conditions: enabled should be set to true when conditions are defined")
	}
	return errors.Join(errs...)
}

func (j *JWTConfig) validate() error {
	var errs []error
	wrong := func(format string, args ...any) { errs = append(errs, fmt.Errorf(format, args...)) }
	for name, text := range map[string]string{"issuer.url": j.Issuer.URL, "issuer.discoveryURL": j.Issuer.DiscoveryURL} {
		if text == "" && name == "issuer.discoveryURL" {
			continue
		}
		u, err := url.Parse(text)
		switch {
		case text == "":
			wrong("%s: required value: URL is required", name)
		case err != nil || u.Host == "":
			wrong("%s: invalid value: %q", name, text)
		case u.Scheme != "https":
			wrong("%s: invalid value: %q: URL scheme must be https", name, text)
		case u.User != nil || u.RawQuery != "" || u.Fragment != "":
			wrong("%s: invalid value: %q: URL must not contain a username, a password, a query or a fragment", name, text)
		}
	}
	if j.Issuer.DiscoveryURL != "" && strings.TrimSuffix(j.Issuer.DiscoveryURL, "/") == strings.TrimSuffix(j.Issuer.URL, "/") {
		wrong("issuer.discoveryURL: must be different from URL")
	}
	if len(j.Issuer.Audiences) == 0 {
		wrong("issuer.audiences: required value: at least one jwt[0].issuer.audiences is required")
	}
	if len(j.Issuer.Audiences) > 1 && j.Issuer.AudienceMatchPolicy != "MatchAny" {
		wrong("issuer.audienceMatchPolicy: must be MatchAny for multiple audiences")
	}
	for i, r := range j.ClaimValidationRules {
		if (r.Claim == "") == (r.Expression == "") || r.Expression != "" && r.RequiredValue != "" || r.Claim != "" && r.Message != "" {
			wrong("claimValidationRules[%d]: claim and expression can't both be set, and one is required", i)
		}
	}
	m := &j.ClaimMappings
	if (m.Username.Claim == "") == (m.Username.Expression == "") {
		wrong("claimMappings.username: claim or expression is required, not both")
	}
	if m.Username.Claim != "" && m.Username.Prefix == nil {
		wrong("claimMappings.username.prefix: required value: prefix is required when claim is set. It can be set to an empty string to disable prefixing")
	}
	if m.Groups.Claim != "" && (m.Groups.Expression != "" || m.Groups.Prefix == nil) {
		wrong("claimMappings.groups: prefix is required when claim is set, and expression is not allowed")
	}
	if m.UID.Claim != "" && m.UID.Expression != "" {
		wrong("claimMappings.uid: claim and expression can't both be set")
	}
	keys := map[string]bool{}
	for i, e := range m.Extra {
		if !strings.Contains(e.Key, "/") || e.Key != strings.ToLower(e.Key) || e.ValueExpression == "" || keys[e.Key] {
			wrong("claimMappings.extra[%d]: key must be a lower-case domain-prefixed path that is not there yet, valueExpression is required", i)
		}
		keys[e.Key] = true
	}
	return errors.Join(errs...)
}
