package authn

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"slices"
	"strings"
	"sync/atomic"
	"time"

	"sigs.k8s.io/yaml"

	"github.com/sampan-dev/sampan/control/apiserver/reload"
)

// maxSettings bounds a configuration file, in bytes.
const maxSettings = 1 << 20

// reloadEvery is how often the configuration file is looked at, as upstream does.
const reloadEvery = time.Minute

// Settings say whose tokens count beside the server's own, as its flags do.
type Settings struct {
	// ConfigPath is the file of an AuthenticationConfiguration
	// (--authentication-config); it is read anew when it changes.
	ConfigPath string
	// OIDC is one issuer in flags (--oidc-…); not beside ConfigPath.
	OIDC OIDC
	// Own are the names under which this server issues tokens itself: nobody else
	// may have them.
	Own []string
	// WebhookPath is the kubeconfig of a server that reviews tokens
	// (--authentication-token-webhook-config-file), and WebhookTTL how long its
	// answers hold; 0 means two minutes.
	WebhookPath string
	WebhookTTL  time.Duration
}

// OIDC is one issuer as upstream's flags have it, RS256 by default. IssuerURL "" is none.
type OIDC struct {
	IssuerURL, ClientID           string
	UsernameClaim, UsernamePrefix string
	GroupsClaim, GroupsPrefix     string
	// CAPath is a file of PEM roots; "" means the system's.
	CAPath        string
	SigningAlgs   []string
	RequiredClaim map[string]string
}

// Sources are the token sources of Settings. Safe for concurrent use.
type Sources struct {
	settings Settings
	log      *slog.Logger
	now      func() time.Time
	fixed    []TokenSource
	loaded   atomic.Pointer[loaded]
	// Reloads counts how often the configuration file has been read anew.
	Reloads *reload.Counts
}

// loaded is one state of the configuration file.
type loaded struct {
	raw []byte
	// kept are the bearers of tokens that the issuers vouched for a moment ago; who
	// they are in another state is for that to find out.
	kept      *memory[[sha256.Size]byte, keptVerdict]
	issuers   []*jwtIssuer
	anonymous *AnonymousConfig
}

// keepVerdict is how long a token of another issuer is believed without another
// look: upstream's TokenSuccessCacheTTL; maxVerdicts bounds how many, twice.
const (
	keepVerdict = 10 * time.Second
	maxVerdicts = 1024
)

type keptVerdict struct {
	verdict Verdict
	until   time.Time
}

// NewSources reads what settings name; a mistake there is an error.
func NewSources(settings Settings, now func() time.Time, log *slog.Logger) (*Sources, error) {
	s := &Sources{settings: settings, log: log, now: now, Reloads: reload.New("authentication", now)}
	if settings.ConfigPath != "" && settings.OIDC.IssuerURL != "" {
		return nil, errors.New("authentication config file and oidc flags are mutually exclusive")
	}
	state := &loaded{}
	var err error
	switch {
	case settings.ConfigPath != "":
		state, err = s.read()
	case settings.OIDC.IssuerURL != "":
		var one JWTConfig
		if one, err = settings.OIDC.config(); err == nil {
			state.issuers, err = s.build([]JWTConfig{one})
			for _, i := range state.issuers {
				i.algorithms = []string{"RS256"}
				if len(settings.OIDC.SigningAlgs) > 0 {
					i.algorithms = settings.OIDC.SigningAlgs
				}
			}
		}
	}
	if err != nil {
		return nil, fmt.Errorf("authentication settings: %w", err)
	}
	s.store(state)
	if settings.WebhookPath != "" {
		hook, err := newReviewer(settings.WebhookPath, settings.WebhookTTL, now)
		if err != nil {
			return nil, fmt.Errorf("authentication settings: %w", err)
		}
		s.fixed = append(s.fixed, hook)
	}
	return s, nil
}

// store makes a state the present one.
func (s *Sources) store(state *loaded) {
	state.kept = newMemory[[sha256.Size]byte, keptVerdict](maxVerdicts)
	s.loaded.Store(state)
}

func (s *Sources) read() (*loaded, error) {
	info, err := os.Stat(s.settings.ConfigPath)
	if err != nil {
		return nil, err
	}
	if info.Size() > maxSettings {
		return nil, fmt.Errorf("file %q has more than %d bytes", s.settings.ConfigPath, maxSettings)
	}
	raw, err := os.ReadFile(s.settings.ConfigPath)
	if err != nil {
		return nil, err
	}
	cfg, err := ParseConfiguration(raw, s.settings.Own...)
	if err != nil {
		return nil, fmt.Errorf("file %q: %w", s.settings.ConfigPath, err)
	}
	issuers, err := s.build(cfg.JWT)
	if err != nil {
		return nil, fmt.Errorf("file %q: %w", s.settings.ConfigPath, err)
	}
	return &loaded{raw: raw, issuers: issuers, anonymous: cfg.Anonymous}, nil
}

func (s *Sources) build(all []JWTConfig) ([]*jwtIssuer, error) {
	var out []*jwtIssuer
	for i := range all {
		made, err := newIssuer(&all[i], s.now)
		if err != nil {
			return nil, fmt.Errorf("jwt[%d]: %w", i, err)
		}
		out = append(out, made)
	}
	return out, nil
}

// Run follows the configuration file until ctx ends. What cannot be read leaves
// what was read before in force.
func (s *Sources) Run(ctx context.Context) error {
	if s.settings.ConfigPath == "" {
		return nil
	}
	tick := time.NewTicker(reloadEvery)
	defer tick.Stop()
	for {
		select {
		case <-tick.C:
		case <-ctx.Done():
			return context.Cause(ctx)
		}
		s.Reload()
	}
}

// Reload looks at the configuration file now.
func (s *Sources) Reload() {
	raw, err := os.ReadFile(s.settings.ConfigPath)
	if err == nil && bytes.Equal(raw, s.loaded.Load().raw) {
		return
	}
	fresh, err := s.read()
	s.Reloads.Happened(err)
	if err != nil {
		s.log.Error("reload authentication configuration", "file", s.settings.ConfigPath, "error", err)
		return
	}
	s.store(fresh)
	s.log.Info("reloaded authentication configuration", "file", s.settings.ConfigPath)
}

// Check implements TokenSource: the sources in turn.
func (s *Sources) Check(ctx context.Context, token string, audiences []string) (Verdict, bool, error) {
	var failed []error
	try := func(source TokenSource) (Verdict, bool) {
		v, ok, err := source.Check(ctx, token, audiences)
		if err != nil {
			failed = append(failed, err)
		}
		return v, ok && err == nil
	}
	state := s.loaded.Load()
	if len(state.issuers) > 0 {
		key := sha256.Sum256([]byte(strings.Join(append([]string{token}, audiences...), "\x00")))
		if kept, ok := state.kept.recall(key); ok && s.now().Before(kept.until) {
			return kept.verdict, true, nil
		}
		for _, one := range state.issuers {
			if v, ok := try(one); ok {
				until := s.now().Add(keepVerdict)
				if v.ends.Before(until) && !v.ends.IsZero() {
					until = v.ends
				}
				state.kept.remember(key, keptVerdict{v, until})
				return v, true, nil
			}
		}
	}
	for _, one := range s.fixed {
		if v, ok := try(one); ok {
			return v, true, nil
		}
	}
	return Verdict{}, false, errors.Join(failed...)
}

// Anonymous says whether a path is open to those without credentials: the health
// checks, unless the configuration says otherwise.
func (s *Sources) Anonymous(path string) bool {
	cfg := s.loaded.Load().anonymous
	if cfg == nil {
		return IsHealth(path)
	}
	if !cfg.Enabled {
		return false
	}
	return len(cfg.Conditions) == 0 || slices.ContainsFunc(cfg.Conditions, func(c AnonymousCondition) bool { return c.Path == path })
}

// config turns the flags into the structured form.
func (o OIDC) config() (JWTConfig, error) {
	claim := o.UsernameClaim
	if claim == "" {
		claim = "sub"
	}
	prefix := o.UsernamePrefix
	switch {
	case prefix == "-":
		prefix = ""
	case prefix == "" && claim != "email":
		prefix = o.IssuerURL + "#"
	}
	cfg := JWTConfig{Issuer: IssuerConfig{URL: o.IssuerURL, Audiences: []string{o.ClientID}}}
	cfg.ClaimMappings.Username = PrefixedClaim{Claim: claim, Prefix: &prefix}
	if o.GroupsClaim != "" {
		groups := o.GroupsPrefix
		cfg.ClaimMappings.Groups = PrefixedClaim{Claim: o.GroupsClaim, Prefix: &groups}
	}
	for name, value := range o.RequiredClaim {
		cfg.ClaimValidationRules = append(cfg.ClaimValidationRules, ClaimRule{Claim: name, RequiredValue: value})
	}
	if o.CAPath != "" {
		raw, err := os.ReadFile(o.CAPath)
		if err != nil {
			return cfg, err
		}
		cfg.Issuer.CertificateAuthority = string(raw)
	}
	return cfg, nil
}

// ParseConfiguration reads an AuthenticationConfiguration: unknown fields and
// contradictions are errors, and so is an issuer with a name of the server's own.
func ParseConfiguration(raw []byte, own ...string) (*Configuration, error) {
	var cfg Configuration
	if err := yaml.UnmarshalStrict(raw, &cfg); err != nil {
		return nil, err
	}
	if cfg.Kind != "AuthenticationConfiguration" || !strings.HasPrefix(cfg.APIVersion, "apiserver.config.k8s.io/v1") {
		return nil, fmt.Errorf("no AuthenticationConfiguration but %q of %q", cfg.Kind, cfg.APIVersion)
	}
	return &cfg, cfg.validate(own)
}
