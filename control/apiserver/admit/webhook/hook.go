package webhook

import (
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	admissionregistrationv1 "k8s.io/api/admissionregistration/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/sampan-dev/sampan/control/apiserver/admit/match"
	"github.com/sampan-dev/sampan/control/apiserver/cel"
	"github.com/sampan-dev/sampan/control/apiserver/webhook"
)

// defaultTimeout is how long a webhook may take that does not say.
const defaultTimeout = 10 * time.Second

// hook is one webhook, ready to be asked. It is read-only but for what it remembers
// of its calls.
type hook struct {
	// key names it among all of its sort; config is its configuration.
	key, config, name string
	rules             []admissionregistrationv1.RuleWithOperations
	match             *admissionregistrationv1.MatchPolicyType
	selectors         match.Selectors
	conditions        *match.Conditions
	sideEffects       *admissionregistrationv1.SideEffectClass
	client            webhook.ClientConfig
	timeout           time.Duration
	versions          []string
	// ignore says that a failed call is as if there had been none, again that a
	// mutating webhook wants to see what others changed after it.
	ignore, again bool
	// misses are the calls in a row that had no answer that counts.
	misses atomic.Int32
}

// book keeps the webhooks of the present configurations. A configuration that did
// not change keeps its webhooks, and with them their compiled conditions.
type book[T metav1.Object] struct {
	read func(config T) []*hook

	mu    sync.Mutex // guards what follows
	from  *[]T
	kept  map[edition][]*hook
	hooks []*hook
}

// edition is a configuration as one revision left it.
type edition struct {
	uid      types.UID
	revision string
}

// of returns the webhooks of the configurations, in their order.
func (b *book[T]) of(now *[]T) []*hook {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.from == now {
		return b.hooks
	}
	kept := make(map[edition][]*hook, len(*now))
	var hooks []*hook
	for _, config := range *now {
		key := edition{config.GetUID(), config.GetResourceVersion()}
		read, ok := b.kept[key]
		if !ok {
			read = b.read(config)
		}
		kept[key] = read
		hooks = append(hooks, read...)
	}
	b.from, b.kept, b.hooks = now, kept, hooks
	return hooks
}

func mutatingHooks(c *admissionregistrationv1.MutatingWebhookConfiguration) []*hook {
	hooks := make([]*hook, 0, len(c.Webhooks))
	same := map[string]int{}
	for i := range c.Webhooks {
		m := &c.Webhooks[i]
		h := newHook(c.Name, same, &admissionregistrationv1.ValidatingWebhook{
			Name: m.Name, ClientConfig: m.ClientConfig, Rules: m.Rules, FailurePolicy: m.FailurePolicy, MatchPolicy: m.MatchPolicy,
			NamespaceSelector: m.NamespaceSelector, ObjectSelector: m.ObjectSelector, SideEffects: m.SideEffects,
			TimeoutSeconds: m.TimeoutSeconds, AdmissionReviewVersions: m.AdmissionReviewVersions, MatchConditions: m.MatchConditions,
		})
		h.again = m.ReinvocationPolicy != nil && *m.ReinvocationPolicy == admissionregistrationv1.IfNeededReinvocationPolicy
		hooks = append(hooks, h)
	}
	return hooks
}

func validatingHooks(c *admissionregistrationv1.ValidatingWebhookConfiguration) []*hook {
	hooks := make([]*hook, 0, len(c.Webhooks))
	same := map[string]int{}
	for i := range c.Webhooks {
		hooks = append(hooks, newHook(c.Name, same, &c.Webhooks[i]))
	}
	return hooks
}

func newHook(config string, same map[string]int, v *admissionregistrationv1.ValidatingWebhook) *hook {
	h := &hook{
		key: fmt.Sprintf("%s/%s/%d", config, v.Name, same[v.Name]), config: config, name: v.Name,
		rules: v.Rules, match: v.MatchPolicy, selectors: match.NewSelectors(v.NamespaceSelector, v.ObjectSelector),
		conditions:  match.NewConditions(v.MatchConditions, v.FailurePolicy),
		sideEffects: v.SideEffects, client: clientOf(v.ClientConfig), timeout: defaultTimeout,
		versions: v.AdmissionReviewVersions,
		ignore:   v.FailurePolicy != nil && *v.FailurePolicy == admissionregistrationv1.Ignore,
	}
	same[v.Name]++
	if v.TimeoutSeconds != nil {
		h.timeout = time.Duration(*v.TimeoutSeconds) * time.Second
	}
	return h
}

func clientOf(c admissionregistrationv1.WebhookClientConfig) webhook.ClientConfig {
	out := webhook.ClientConfig{CABundle: c.CABundle, TellTimeout: true}
	if c.URL != nil {
		out.URL = *c.URL
	}
	if s := c.Service; s != nil {
		out.Service = &webhook.Service{Namespace: s.Namespace, Name: s.Name}
		if s.Path != nil {
			out.Service.Path = *s.Path
		}
		if s.Port != nil {
			out.Service.Port = *s.Port
		}
	}
	return out
}

// input is what match conditions speak of.
func (w *Webhooks) input(r *match.Request, found match.Found) (cel.Input, error) {
	obj, old, err := r.Objects(found)
	if err != nil {
		return cel.Input{}, err
	}
	return cel.Input{Object: obj, Old: old, Request: r.Review(found), Authority: r.Authority(w.cfg.Authz)}, nil
}
