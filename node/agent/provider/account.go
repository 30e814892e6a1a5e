package provider

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	configv1 "k8s.io/kubelet/config/v1"

	"github.com/sampan-dev/sampan/node/agent/keyring"
)

// caller is on whose behalf a program is asked: nobody's, unless it wants the tokens
// of service accounts.
type caller struct {
	account     *keyring.Object
	token       string
	annotations map[string]string
	// cacheKey tells apart whose answers are not to be mixed.
	cacheKey string
}

// identify finds the service account of a pod, with a token, for a program that wants
// one. It is not ok when the program is not to be asked at all: for want of an
// account, or of an annotation by which accounts choose it.
func (p *provider) identify(ctx context.Context, pod *corev1.Pod) (caller, bool, error) {
	wants := p.TokenAttributes
	if wants == nil {
		return caller{}, true, nil
	}
	name := pod.Spec.ServiceAccountName
	if name == "" {
		return caller{}, !*wants.RequireServiceAccount, nil
	}
	account, err := p.cfg.Account(ctx, pod.Namespace, name)
	if err != nil {
		return caller{}, false, fmt.Errorf("failed to get service account: %w", err)
	}
	shown := map[string]string{}
	for _, key := range wants.RequiredServiceAccountAnnotationKeys {
		value, ok := account.Annotations[key]
		if !ok {
			p.cfg.Log.Debug("credential provider is not asked: required annotation not found", "provider", p.Name, "annotation", key, "pod", pod.Namespace+"/"+pod.Name)
			return caller{}, false, nil
		}
		shown[key] = value
	}
	for _, key := range wants.OptionalServiceAccountAnnotationKeys {
		if value, ok := account.Annotations[key]; ok {
			shown[key] = value
		}
	}
	token, err := p.tokens.of(pod, account, func() (Token, error) {
		return p.cfg.Token(ctx, pod, account, wants.ServiceAccountTokenAudience)
	})
	if err != nil {
		return caller{}, false, fmt.Errorf("failed to get service account token: %w", err)
	}
	who := caller{token: token, annotations: shown, account: &keyring.Object{Namespace: pod.Namespace, Name: name, UID: string(account.UID)}}
	who.cacheKey = join(pod.Namespace, name, string(account.UID), list(shown))
	if wants.CacheType == configv1.TokenServiceAccountTokenCacheType {
		who.cacheKey = join(who.cacheKey, digest(token))
	}
	return who, true, nil
}

// list makes one key of annotations.
func list(annotations map[string]string) string {
	var parts []string
	for _, key := range slices.Sorted(maps.Keys(annotations)) {
		parts = append(parts, key, annotations[key])
	}
	return join(parts...)
}

// Rules of tokens, upstream's: a new one is asked for in the last fifth of the life of
// the old one, and a day after it was made.
const (
	maxTokenAge = 24 * time.Hour
	tokenParts  = 5
)

// maxTokens is how many tokens of pods are kept.
const maxTokens = 4096

// tokens keeps the tokens of pods: with one of its own for every pull, what a program
// answers to a token would never be found again.
type tokens struct {
	mu   sync.Mutex
	held map[string]Token
}

// of returns the token of a pod, made anew when it is time. While a new one can't be
// had the old one serves until its end.
func (t *tokens) of(pod *corev1.Pod, account *corev1.ServiceAccount, mint func() (Token, error)) (string, error) {
	key := join(string(pod.UID), string(account.UID))
	t.mu.Lock()
	held, ok := t.held[key]
	t.mu.Unlock()
	now := time.Now()
	if ok && now.Before(held.Until.Add(-held.Until.Sub(held.Issued)/tokenParts)) && now.Before(held.Issued.Add(maxTokenAge)) {
		return held.Value, nil
	}
	fresh, err := mint()
	if err != nil {
		if ok && now.Before(held.Until) {
			return held.Value, nil
		}
		return "", err
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.held == nil || len(t.held) >= maxTokens {
		t.drop(now)
	}
	t.held[key] = fresh
	return fresh.Value, nil
}

// drop forgets what has ended, and everything when that is not enough; t.mu is held.
func (t *tokens) drop(now time.Time) {
	maps.DeleteFunc(t.held, func(_ string, held Token) bool { return now.After(held.Until) })
	if t.held == nil || len(t.held) >= maxTokens {
		t.held = map[string]Token{}
	}
}
