package admissionregistration

import (
	"time"

	admissionv1 "k8s.io/api/admissionregistration/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/util/validation/field"

	"github.com/sampan-dev/sampan/kinds"
)

// What a webhook says by keeping silent.
const (
	defaultTimeoutSeconds = 10
	defaultServicePort    = 443
)

// ValidatingWebhookConfiguration is the kind that names webhooks which judge.
func ValidatingWebhookConfiguration(compiler Compiler) *kinds.Kind {
	type config = admissionv1.ValidatingWebhookConfiguration
	return &kinds.Kind{
		GVK:        admissionv1.SchemeGroupVersion.WithKind("ValidatingWebhookConfiguration"),
		Resource:   "validatingwebhookconfigurations",
		Singular:   "validatingwebhookconfiguration",
		Categories: categories(),
		Storage:    "validatingwebhookconfigurations",
		New:        func() kinds.Object { return &config{} },
		NewList:    func() runtime.Object { return &admissionv1.ValidatingWebhookConfigurationList{} },
		Strategy: kinds.Strategy{
			NamesOnUpdate:             true,
			AnyFinalizer:              true,
			Generation:                true,
			ForbidUnconditionalUpdate: true,
			Default: kinds.Each(func(c *config) {
				for i := range c.Webhooks {
					w := &c.Webhooks[i]
					defaultWebhook(&w.FailurePolicy, &w.MatchPolicy, &w.NamespaceSelector, &w.ObjectSelector, &w.TimeoutSeconds)
					defaultRules(w.Rules)
					defaultClient(&w.ClientConfig)
				}
			}),
			PrepareCreate: kinds.FirstGeneration,
			PrepareUpdate: kinds.Pair(func(c, old *config) {
				kinds.NextGeneration(c, old, !kinds.Same(c.Webhooks, old.Webhooks))
			}),
			Validate: kinds.Check(func(c *config) field.ErrorList {
				return validateConfiguration(compiler, c, validatingHooks(c), nil)
			}),
			ValidateUpdate: kinds.CheckUpdate(func(c, old *config) field.ErrorList {
				return validateConfiguration(compiler, c, validatingHooks(c), validatingHooks(old))
			}),
			Warnings: kinds.Warn(func(c, old *config) []string {
				return warnConfiguration(c, old == nil, validatingHooks(c))
			}),
		},
		Table: kinds.Table{
			Columns: kinds.Explained(webhookConfigurationTexts(), "Name", "Webhooks|integer", "Age"),
			Row: kinds.Row(func(c *config, now time.Time) []any {
				return []any{c.Name, int64(len(c.Webhooks)), kinds.Created(c, now)}
			}),
		},
	}
}

// MutatingWebhookConfiguration is the kind that names webhooks which change.
func MutatingWebhookConfiguration(compiler Compiler) *kinds.Kind {
	type config = admissionv1.MutatingWebhookConfiguration
	return &kinds.Kind{
		GVK:        admissionv1.SchemeGroupVersion.WithKind("MutatingWebhookConfiguration"),
		Resource:   "mutatingwebhookconfigurations",
		Singular:   "mutatingwebhookconfiguration",
		Categories: categories(),
		Storage:    "mutatingwebhookconfigurations",
		New:        func() kinds.Object { return &config{} },
		NewList:    func() runtime.Object { return &admissionv1.MutatingWebhookConfigurationList{} },
		Strategy: kinds.Strategy{
			NamesOnUpdate:             true,
			AnyFinalizer:              true,
			Generation:                true,
			ForbidUnconditionalUpdate: true,
			Default: kinds.Each(func(c *config) {
				for i := range c.Webhooks {
					w := &c.Webhooks[i]
					defaultWebhook(&w.FailurePolicy, &w.MatchPolicy, &w.NamespaceSelector, &w.ObjectSelector, &w.TimeoutSeconds)
					unless(&w.ReinvocationPolicy, admissionv1.NeverReinvocationPolicy)
					defaultRules(w.Rules)
					defaultClient(&w.ClientConfig)
				}
			}),
			PrepareCreate: kinds.FirstGeneration,
			PrepareUpdate: kinds.Pair(func(c, old *config) {
				kinds.NextGeneration(c, old, !kinds.Same(c.Webhooks, old.Webhooks))
			}),
			Validate: kinds.Check(func(c *config) field.ErrorList {
				return validateConfiguration(compiler, c, mutatingHooks(c), nil)
			}),
			ValidateUpdate: kinds.CheckUpdate(func(c, old *config) field.ErrorList {
				return validateConfiguration(compiler, c, mutatingHooks(c), mutatingHooks(old))
			}),
			Warnings: kinds.Warn(func(c, old *config) []string {
				return warnConfiguration(c, old == nil, mutatingHooks(c))
			}),
		},
		Table: kinds.Table{
			Columns: kinds.Explained(webhookConfigurationTexts(), "Name", "Webhooks|integer", "Age"),
			Row: kinds.Row(func(c *config, now time.Time) []any {
				return []any{c.Name, int64(len(c.Webhooks)), kinds.Created(c, now)}
			}),
		},
	}
}

// unless sets what nobody has set.
func unless[T any](at **T, value T) {
	if *at == nil {
		*at = &value
	}
}

func defaultWebhook(failure **admissionv1.FailurePolicyType, match **admissionv1.MatchPolicyType,
	namespaces, objects **metav1.LabelSelector, timeout **int32,
) {
	unless(failure, admissionv1.Fail)
	unless(match, admissionv1.Equivalent)
	unless(namespaces, metav1.LabelSelector{})
	unless(objects, metav1.LabelSelector{})
	unless(timeout, defaultTimeoutSeconds)
}

func defaultRules(rules []admissionv1.RuleWithOperations) {
	for i := range rules {
		unless(&rules[i].Scope, admissionv1.AllScopes)
	}
}

func defaultClient(c *admissionv1.WebhookClientConfig) {
	if c.Service != nil {
		unless(&c.Service.Port, defaultServicePort)
	}
}

func warnConfiguration(obj metav1.Object, isNew bool, hooks []hook) []string {
	texts := warnReserved(obj, isNew)
	at := kinds.NewPath("webhooks")
	for i, h := range hooks {
		texts = append(texts, warnExcluded(at.Index(i).Child("rules"), h.Rules)...)
	}
	return texts
}
