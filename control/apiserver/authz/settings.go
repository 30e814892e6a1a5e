package authz

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/validation"
	"sigs.k8s.io/yaml"

	"github.com/sampan-dev/sampan/control/apiserver/callout"
	"github.com/sampan-dev/sampan/control/apiserver/cel/plain"
	"github.com/sampan-dev/sampan/control/apiserver/reload"
)

// Limits of the configuration file, and how often it is looked at.
const (
	maxSettings = 1 << 20
	reloadEvery = time.Minute
	// maxConditions bounds the match conditions of one webhook, and maxTimeout its
	// timeout, as upstream does.
	maxConditions = 64
	maxTimeout    = 30 * time.Second
)

// Configuration is upstream's AuthorizationConfiguration
// (apiserver.config.k8s.io/v1): who is asked, in which order.
type Configuration struct {
	APIVersion  string         `json:"apiVersion"`
	Kind        string         `json:"kind"`
	Authorizers []SourceConfig `json:"authorizers"`
}

// SourceConfig is one authority: Node, RBAC, Webhook, AlwaysAllow or AlwaysDeny.
type SourceConfig struct {
	Type    string         `json:"type"`
	Name    string         `json:"name"`
	Webhook *WebhookConfig `json:"webhook,omitempty"`
}

// WebhookConfig says where a webhook is, what it is asked and what its failure means.
type WebhookConfig struct {
	AuthorizedTTL             metav1.Duration  `json:"authorizedTTL,omitempty"`
	CacheAuthorizedRequests   *bool            `json:"cacheAuthorizedRequests,omitempty"`
	UnauthorizedTTL           metav1.Duration  `json:"unauthorizedTTL,omitempty"`
	CacheUnauthorizedRequests *bool            `json:"cacheUnauthorizedRequests,omitempty"`
	Timeout                   metav1.Duration  `json:"timeout"`
	ReviewVersion             string           `json:"subjectAccessReviewVersion"`
	ConditionVersion          string           `json:"matchConditionSubjectAccessReviewVersion,omitempty"`
	FailurePolicy             string           `json:"failurePolicy"`
	ConnectionInfo            ConnectionConfig `json:"connectionInfo"`
	MatchConditions           []MatchCondition `json:"matchConditions,omitempty"`
}

// ConnectionConfig names the kubeconfig of a webhook.
type ConnectionConfig struct {
	Type           string `json:"type"`
	KubeConfigFile string `json:"kubeConfigFile,omitempty"`
}

// MatchCondition is an expression about the question, "request".
type MatchCondition struct {
	Expression string `json:"expression"`
}

// Settings follow a configuration file. Safe for concurrent use.
type Settings struct {
	path  string
	a     *Authorizer
	nodes Another
	now   func() time.Time
	log   *slog.Logger
	raw   []byte
	// Reloads counts how often the file has been read anew.
	Reloads *reload.Counts
}

// Configure makes the Authorizer ask whom the file at path names
// (--authorization-config); nodes is the node authorizer.
func (a *Authorizer) Configure(path string, nodes Another, now func() time.Time, log *slog.Logger) (*Settings, error) {
	s := &Settings{path: path, a: a, nodes: nodes, now: now, log: log, Reloads: reload.New("authorization", now)}
	if _, err := s.load(); err != nil {
		return nil, fmt.Errorf("authorization settings %q: %w", path, err)
	}
	return s, nil
}

// Run follows the file until ctx ends. What cannot be read leaves what was read
// before in force.
func (s *Settings) Run(ctx context.Context) error {
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

// Reload looks at the file now. It is Run's, and must not be called beside it.
func (s *Settings) Reload() {
	changed, err := s.load()
	if changed || err != nil {
		s.Reloads.Happened(err)
	}
	if err != nil {
		s.log.Error("reload authorization configuration", "file", s.path, "error", err)
	}
}

// load reads the file; changed says that it is another now.
func (s *Settings) load() (changed bool, err error) {
	info, err := os.Stat(s.path)
	if err != nil {
		return false, err
	}
	if info.Size() > maxSettings {
		return false, fmt.Errorf("more than %d bytes", maxSettings)
	}
	raw, err := os.ReadFile(s.path)
	if err != nil || bytes.Equal(raw, s.raw) {
		return false, err
	}
	var cfg Configuration
	if err := yaml.UnmarshalStrict(raw, &cfg); err != nil {
		return false, err
	}
	order, err := s.build(&cfg)
	if err != nil {
		return false, err
	}
	s.raw = raw
	s.a.Use(order)
	return true, nil
}

func (s *Settings) build(cfg *Configuration) ([]Source, error) {
	if cfg.Kind != "AuthorizationConfiguration" {
		return nil, fmt.Errorf("no AuthorizationConfiguration but %q of %q", cfg.Kind, cfg.APIVersion)
	}
	var order []Source
	var errs []error
	wrong := func(i int, err error) { errs = append(errs, fmt.Errorf("authorizers[%d]: %w", i, err)) }
	seen := map[string]bool{}
	for i, one := range cfg.Authorizers {
		if one.Type != typeWebhook && one.Webhook != nil {
			wrong(i, errors.New("webhook: may only be specified when type=Webhook"))
			continue
		}
		if key := one.Type + "/" + one.Name; seen[key] || one.Type != typeWebhook && seen[one.Type] {
			wrong(i, fmt.Errorf("duplicate value: %q", key))
		}
		seen[one.Type+"/"+one.Name], seen[one.Type] = true, true
		switch one.Type {
		case typeNode:
			order = append(order, adapted{s.nodes})
		case typeRBAC:
			order = append(order, roles{s.a})
		case typeAllow:
			order = append(order, constant{Allow, ""})
		case typeDeny:
			order = append(order, constant{NoOpinion, "Everything is forbidden."})
		case typeWebhook:
			hook, err := newWebhook(one, s.now)
			if err != nil {
				wrong(i, err)
				continue
			}
			order = append(order, hook)
		default:
			wrong(i, fmt.Errorf("type: unsupported value: %q", one.Type))
		}
	}
	if len(cfg.Authorizers) == 0 {
		errs = append(errs, errors.New("authorizers: at least one authorization mode must be defined"))
	}
	return order, errors.Join(errs...)
}

func newWebhook(cfg SourceConfig, now func() time.Time) (*webhook, error) {
	c := cfg.Webhook
	if c == nil {
		return nil, errors.New("webhook: required when type=Webhook")
	}
	var errs []error
	wrong := func(format string, args ...any) { errs = append(errs, fmt.Errorf(format, args...)) }
	if len(validation.IsDNS1123Subdomain(cfg.Name)) > 0 {
		wrong("name: %q is no DNS subdomain", cfg.Name)
	}
	if c.Timeout.Duration <= 0 || c.Timeout.Duration > maxTimeout {
		wrong("webhook.timeout: must be more than 0 and at most %s", maxTimeout)
	}
	if c.ReviewVersion != "v1" {
		wrong("webhook.subjectAccessReviewVersion: unsupported value: %q", c.ReviewVersion)
	}
	if len(c.MatchConditions) > maxConditions {
		wrong("webhook.matchConditions: must have at most %d items", maxConditions)
	}
	if len(c.MatchConditions) > 0 && c.ConditionVersion != "v1" {
		wrong("webhook.matchConditionSubjectAccessReviewVersion: required if match conditions are specified")
	}
	hook := &webhook{name: cfg.Name, timeout: c.Timeout.Duration, now: now, kept: map[string]answer{},
		yes: life(c.AuthorizedTTL, c.CacheAuthorizedRequests, 5*time.Minute), no: life(c.UnauthorizedTTL, c.CacheUnauthorizedRequests, 30*time.Second)}
	switch c.FailurePolicy {
	case "Deny":
		hook.onError = Deny
	case "NoOpinion":
	default:
		wrong("webhook.failurePolicy: unsupported value: %q", c.FailurePolicy)
	}
	if c.ConnectionInfo.Type != "KubeConfigFile" {
		wrong("webhook.connectionInfo.type: unsupported value: %q", c.ConnectionInfo.Type)
	}
	for i, m := range c.MatchConditions {
		e, err := plain.Compile(m.Expression, "request")
		if err != nil {
			wrong("webhook.matchConditions[%d].expression: %w", i, err)
		}
		hook.conditions = append(hook.conditions, e)
	}
	if len(errs) > 0 {
		return nil, errors.Join(errs...)
	}
	var err error
	hook.server, err = callout.Open(c.ConnectionInfo.KubeConfigFile)
	return hook, err
}

// life is how long answers are kept: usual unless said otherwise, 0 if not at all.
func life(ttl metav1.Duration, keep *bool, usual time.Duration) time.Duration {
	switch {
	case keep != nil && !*keep:
		return 0
	case ttl.Duration == 0:
		return usual
	}
	return ttl.Duration
}
