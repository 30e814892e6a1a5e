package volume

import (
	"context"
	"fmt"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
)

// Lives of projected tokens.
const (
	// defaultTokenSeconds is what a projection without expirationSeconds asks for.
	defaultTokenSeconds = 3600
	// renewAt is the part of a token's life after which a new one is fetched:
	// 80 %, as upstream, so that a day without an API server does no harm to
	// the usual one-year and one-hour tokens alike.
	renewAt = 0.8
	// maxTokenAge renews even long-lived tokens daily (upstream's).
	maxTokenAge = 24 * time.Hour
	// maxTokens bounds the tokens remembered for a pod.
	maxTokens = 64
)

type tokenKey struct {
	uid, audience string
	seconds       int64
}

type heldToken struct {
	token   string
	minted  time.Time // a clock that shows less was set back: the token is not valid yet
	renew   time.Time
	expires time.Time
}

// tokenCache keeps the tokens in use, so that preparing a pod's volumes again
// doesn't mint new ones.
type tokenCache struct {
	mint Tokens
	mu   sync.Mutex
	held map[string]map[tokenKey]heldToken
}

func newTokenCache(mint Tokens) *tokenCache {
	return &tokenCache{mint: mint, held: map[string]map[tokenKey]heldToken{}}
}

// get returns a token that isn't due for renewal, and when it will be. If
// minting fails a token that is still valid is handed out again.
func (c *tokenCache) get(ctx context.Context, pod *corev1.Pod, r TokenRequest) (string, time.Time, error) {
	key := tokenKey{uid: string(pod.UID), audience: r.Audience, seconds: r.Seconds}
	now := time.Now()
	old, ok := c.lookup(key)
	if ok && now.Before(old.renew) && !now.Round(0).Before(old.minted) {
		return old.token, old.renew, nil
	}
	token, expires, err := c.mint(ctx, pod, r)
	if err != nil && ok && now.Before(old.expires) {
		return old.token, now.Add(time.Minute), nil
	}
	if err != nil {
		return "", time.Time{}, fmt.Errorf("failed to fetch token: %w", err)
	}
	life := min(time.Duration(renewAt*float64(expires.Sub(now))), maxTokenAge)
	// Round strips what Go knows of the time besides the clock, which is by what tokens end.
	fresh := heldToken{token: token, minted: now.Round(0), renew: now.Add(max(life, time.Second)).Round(0), expires: expires}
	c.store(key, fresh)
	return token, fresh.renew, nil
}

func (c *tokenCache) lookup(key tokenKey) (heldToken, bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	t, ok := c.held[key.uid][key]
	return t, ok
}

func (c *tokenCache) store(key tokenKey, t heldToken) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.held[key.uid] == nil || len(c.held[key.uid]) >= maxTokens {
		c.held[key.uid] = map[tokenKey]heldToken{}
	}
	c.held[key.uid][key] = t
}

func (c *tokenCache) forget(uid string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	delete(c.held, uid)
}

// token adds a service-account token file. It is private (0600) when one user
// runs all containers or an fsGroup shares it, as upstream does.
func (m *maker) token(ctx context.Context, s *corev1.ServiceAccountTokenProjection) error {
	seconds := int64(defaultTokenSeconds)
	if s.ExpirationSeconds != nil {
		seconds = *s.ExpirationSeconds
	}
	token, renew, err := m.v.tokens.get(ctx, m.pod, TokenRequest{Audience: s.Audience, Seconds: seconds})
	if err != nil {
		return err
	}
	m.renew(renew)
	return m.private(s.Path, []byte(token))
}

// oneUser is the runAsUser that all containers share, -1 if they don't.
func oneUser(pod *corev1.Pod) int {
	user := -1
	first := true
	each(pod, func(c *corev1.Container) {
		u := -1
		if sc := pod.Spec.SecurityContext; sc != nil && sc.RunAsUser != nil {
			u = int(*sc.RunAsUser)
		}
		if c.SecurityContext != nil && c.SecurityContext.RunAsUser != nil {
			u = int(*c.SecurityContext.RunAsUser)
		}
		if !first && u != user {
			u = -1
		}
		user, first = u, false
	})
	return user
}
