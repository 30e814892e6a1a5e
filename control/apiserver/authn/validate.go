package authn

import (
	"crypto/x509"
	"fmt"
	"net/url"
	"regexp"
	"slices"
	"strings"

	utilvalidation "k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/apimachinery/pkg/util/validation/field"

	"github.com/sampan-dev/sampan/control/apiserver/cel/plain"
)

// maxIssuers bounds the issuers of one configuration, as upstream does.
const maxIssuers = 64

// matchAny is the one policy for audiences that there is.
const matchAny = "MatchAny"

// validate reports everything wrong with a configuration, in upstream's words. own
// are the issuers that nobody else may be.
func (c *Configuration) validate(own []string) error {
	root := field.NewPath("jwt")
	var errs field.ErrorList
	if len(c.JWT) > maxIssuers {
		errs = append(errs, field.TooMany(root, len(c.JWT), maxIssuers))
	}
	issuers, discoveries := map[string]bool{}, map[string]bool{}
	for i := range c.JWT {
		j, at := &c.JWT[i], root.Index(i)
		errs = append(errs, j.validate(own, at)...)
		if issuers[j.Issuer.URL] {
			errs = append(errs, field.Duplicate(at.Child("issuer", "url"), j.Issuer.URL))
		}
		issuers[j.Issuer.URL] = true
		if d := j.Issuer.DiscoveryURL; d != "" && discoveries[d] {
			errs = append(errs, field.Duplicate(at.Child("issuer", "discoveryURL"), d))
		} else {
			discoveries[d] = true
		}
	}
	if a := c.Anonymous; a != nil && !a.Enabled && len(a.Conditions) > 0 {
		errs = append(errs, field.Invalid(field.NewPath("anonymous", "conditions"), a.Conditions, "enabled should be set to true when conditions are defined"))
	}
	return errs.ToAggregate()
}

func (j *JWTConfig) validate(own []string, at *field.Path) field.ErrorList {
	errs := j.Issuer.validate(own, at.Child("issuer"))
	errs = append(errs, claimRulesValid(j.ClaimValidationRules, at.Child("claimValidationRules"))...)
	errs = append(errs, j.mappingsValid(at.Child("claimMappings"))...)
	seen := map[string]bool{}
	for i, r := range j.UserValidationRules {
		here := at.Child("userValidationRules").Index(i).Child("expression")
		switch {
		case r.Expression == "":
			errs = append(errs, field.Required(here, ""))
		case seen[r.Expression]:
			errs = append(errs, field.Duplicate(here, r.Expression))
		default:
			errs = append(errs, compiles(r.Expression, "user", here)...)
		}
		seen[r.Expression] = true
	}
	return errs
}

func (i *IssuerConfig) validate(own []string, at *field.Path) field.ErrorList {
	var errs field.ErrorList
	if i.URL == "" {
		errs = append(errs, field.Required(at.Child("url"), ""))
	} else {
		errs = append(errs, urlValid(i.URL, own, at.Child("url"))...)
	}
	if i.DiscoveryURL != "" {
		here := at.Child("discoveryURL")
		if i.URL != "" && strings.TrimRight(i.URL, "/") == strings.TrimRight(i.DiscoveryURL, "/") {
			errs = append(errs, field.Invalid(here, i.DiscoveryURL, "discoveryURL must be different from URL"))
		}
		errs = append(errs, urlValid(i.DiscoveryURL, nil, here)...)
	}
	errs = append(errs, i.audiencesValid(at)...)
	if i.CertificateAuthority != "" && !x509.NewCertPool().AppendCertsFromPEM([]byte(i.CertificateAuthority)) {
		errs = append(errs, field.Invalid(at.Child("certificateAuthority"), "<omitted>", "data does not contain any valid RSA or ECDSA certificates"))
	}
	if i.EgressSelectorType != "" {
		errs = append(errs, field.Invalid(at.Child("egressSelectorType"), i.EgressSelectorType, "egress selectors are not supported: the API server asks issuers itself"))
	}
	return errs
}

func (i *IssuerConfig) audiencesValid(at *field.Path) field.ErrorList {
	here, policy := at.Child("audiences"), at.Child("audienceMatchPolicy")
	if len(i.Audiences) == 0 {
		return field.ErrorList{field.Required(here, fmt.Sprintf("at least one %s is required", here))}
	}
	var errs field.ErrorList
	for n, a := range i.Audiences {
		if a == "" {
			errs = append(errs, field.Required(here.Index(n), ""))
		}
		if slices.Contains(i.Audiences[:n], a) {
			errs = append(errs, field.Duplicate(here.Index(n), a))
		}
	}
	switch {
	case len(i.Audiences) > 1 && i.AudienceMatchPolicy != matchAny:
		errs = append(errs, field.Invalid(policy, i.AudienceMatchPolicy, "audienceMatchPolicy must be MatchAny for multiple audiences"))
	case i.AudienceMatchPolicy != "" && i.AudienceMatchPolicy != matchAny:
		errs = append(errs, field.Invalid(policy, i.AudienceMatchPolicy, "audienceMatchPolicy must be empty or MatchAny for single audience"))
	}
	return errs
}

func urlValid(text string, own []string, at *field.Path) field.ErrorList {
	var errs field.ErrorList
	if slices.Contains(own, text) {
		errs = append(errs, field.Invalid(at, text, fmt.Sprintf("URL must not overlap with disallowed issuers: %s", own)))
	}
	u, err := url.Parse(text)
	if err != nil {
		return append(errs, field.Invalid(at, text, err.Error()))
	}
	for _, wrong := range []struct {
		is   bool
		text string
	}{
		{u.Scheme != "https", "URL scheme must be https"},
		{u.User != nil, "URL must not contain a username or password"},
		{u.RawQuery != "", "URL must not contain a query"},
		{u.Fragment != "", "URL must not contain a fragment"},
	} {
		if wrong.is {
			errs = append(errs, field.Invalid(at, text, wrong.text))
		}
	}
	return errs
}

func claimRulesValid(rules []ClaimRule, at *field.Path) field.ErrorList {
	var errs field.ErrorList
	claims, expressions := map[string]bool{}, map[string]bool{}
	for i, r := range rules {
		here := at.Index(i)
		switch {
		case r.Claim != "" && r.Expression != "":
			errs = append(errs, field.Invalid(here, r.Claim, "claim and expression can't both be set"))
		case r.Claim == "" && r.Expression == "":
			errs = append(errs, field.Required(here, "claim or expression is required"))
		case r.Claim != "":
			if r.Message != "" {
				errs = append(errs, field.Invalid(here.Child("message"), r.Message, "may not be specified when claim is set"))
			}
			if claims[r.Claim] {
				errs = append(errs, field.Duplicate(here.Child("claim"), r.Claim))
			}
			claims[r.Claim] = true
		default:
			if r.RequiredValue != "" {
				errs = append(errs, field.Invalid(here.Child("requiredValue"), r.RequiredValue, "may not be specified when expression is set"))
			}
			if expressions[r.Expression] {
				errs = append(errs, field.Duplicate(here.Child("expression"), r.Expression))
				continue
			}
			expressions[r.Expression] = true
			errs = append(errs, compiles(r.Expression, "claims", here.Child("expression"))...)
		}
	}
	return errs
}

func (j *JWTConfig) mappingsValid(at *field.Path) field.ErrorList {
	m := &j.ClaimMappings
	errs := m.Username.validate(at.Child("username"), true)
	errs = append(errs, m.Groups.validate(at.Child("groups"), false)...)
	switch {
	case m.UID.Claim != "" && m.UID.Expression != "":
		errs = append(errs, field.Invalid(at.Child("uid"), "", "claim and expression can't both be set"))
	case m.UID.Expression != "":
		errs = append(errs, compiles(m.UID.Expression, "claims", at.Child("uid", "expression"))...)
	}
	keys := map[string]bool{}
	for i, e := range m.Extra {
		here := at.Child("extra").Index(i)
		errs = append(errs, extraKeyValid(e.Key, here.Child("key"))...)
		switch {
		case keys[e.Key]:
			errs = append(errs, field.Duplicate(here.Child("key"), e.Key))
		case e.ValueExpression == "":
			errs = append(errs, field.Required(here.Child("valueExpression"), ""))
		default:
			errs = append(errs, compiles(e.ValueExpression, "claims", here.Child("valueExpression"))...)
		}
		keys[e.Key] = true
	}
	if email.MatchString(m.Username.Expression) && !j.verifiesEmail() {
		errs = append(errs, field.Invalid(at.Child("username", "expression"), m.Username.Expression,
			"claims.email_verified must be used in claimMappings.username.expression or claimMappings.extra[*].valueExpression or claimValidationRules[*].expression when claims.email is used in claimMappings.username.expression"))
	}
	return errs
}

// How expressions speak of the claims of mail addresses.
var (
	email         = regexp.MustCompile(`\bclaims\s*\.\s*\??\s*email\b`)
	emailVerified = regexp.MustCompile(`\bclaims\s*\.\s*\??\s*email_verified\b`)
)

// verifiesEmail says whether any expression looks at claims.email_verified.
func (j *JWTConfig) verifiesEmail() bool {
	return emailVerified.MatchString(j.ClaimMappings.Username.Expression) ||
		slices.ContainsFunc(j.ClaimMappings.Extra, func(e ExtraMapping) bool { return emailVerified.MatchString(e.ValueExpression) }) ||
		slices.ContainsFunc(j.ClaimValidationRules, func(r ClaimRule) bool { return emailVerified.MatchString(r.Expression) })
}

func extraKeyValid(key string, at *field.Path) field.ErrorList {
	errs := utilvalidation.IsDomainPrefixedPath(at, key)
	if key != strings.ToLower(key) {
		errs = append(errs, field.Invalid(at, key, "must be lowercase"))
	}
	domain, _, _ := strings.Cut(key, "/")
	for _, reserved := range []string{"kubernetes.io", "k8s.io"} {
		if domain == reserved || strings.HasSuffix(domain, "."+reserved) {
			errs = append(errs, field.Invalid(at, key, "k8s.io, kubernetes.io and their subdomains are reserved for Kubernetes use"))
		}
	}
	return errs
}

func (p *PrefixedClaim) validate(at *field.Path, required bool) field.ErrorList {
	var errs field.ErrorList
	switch {
	case p.Claim != "" && p.Expression != "":
		errs = append(errs, field.Invalid(at, "", "claim and expression can't both be set"))
	case p.Expression != "":
		if p.Prefix != nil {
			errs = append(errs, field.Invalid(at.Child("prefix"), *p.Prefix, "may not be specified when expression is set"))
		}
		errs = append(errs, compiles(p.Expression, "claims", at.Child("expression"))...)
	case p.Claim != "":
		if p.Prefix == nil {
			errs = append(errs, field.Required(at.Child("prefix"), "prefix is required when claim is set. It can be set to an empty string to disable prefixing"))
		}
	case required:
		errs = append(errs, field.Required(at, "claim or expression is required"))
	}
	return errs
}

// compiles reports an expression that is none.
func compiles(text, about string, at *field.Path) field.ErrorList {
	if _, err := plain.Compile(text, about); err != nil {
		return field.ErrorList{field.Invalid(at, text, err.Error())}
	}
	return nil
}
