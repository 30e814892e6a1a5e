package authn

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
