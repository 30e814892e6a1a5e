package authn

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync"
	"time"

	"github.com/coreos/go-oidc/v3/oidc"
)

// Limits of asking an issuer.
const (
	issuerWait   = 10 * time.Second
	maxDiscovery = 1 << 20
	// discoverAgain is how long an issuer whose description could not be read is
	// left alone.
	discoverAgain = 10 * time.Second
)

// keeper finds the keys of one issuer. They are fetched when the first of its tokens
// is shown, and again when one names a key that is not known.
type keeper struct {
	issuer string
	at     string // of the issuer's description; "" is the usual place
	now    func() time.Time
	client *http.Client

	mu     sync.Mutex // guards what follows
	keys   oidc.KeySet
	failed error
	since  time.Time
}

// keySet finds out where the issuer's keys are, once.
func (k *keeper) keySet(ctx context.Context) (oidc.KeySet, error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.keys != nil {
		return k.keys, nil
	}
	if k.failed != nil && k.now().Sub(k.since) < discoverAgain {
		return nil, k.failed
	}
	// Whoever asks may go away: that says nothing of the issuer.
	at, err := k.discover(context.WithoutCancel(ctx))
	if err != nil {
		k.failed, k.since = fmt.Errorf("authenticator not initialized: %w", err), k.now()
		return nil, k.failed
	}
	// The set outlives the request that was the first to need it.
	k.keys = oidc.NewRemoteKeySet(oidc.ClientContext(context.WithoutCancel(ctx), k.client), at)
	return k.keys, nil
}

// discover reads the issuer's description: where its keys are.
func (k *keeper) discover(ctx context.Context) (string, error) {
	at := k.at
	if at == "" {
		at = strings.TrimSuffix(k.issuer, "/") + ConfigurationPath
	}
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, at, nil)
	if err != nil {
		return "", err
	}
	answer, err := k.client.Do(r)
	if err != nil {
		return "", err
	}
	defer answer.Body.Close()
	if answer.StatusCode != http.StatusOK {
		return "", fmt.Errorf("get %q: status %d", at, answer.StatusCode)
	}
	var found struct {
		Issuer string `json:"issuer"`
		Keys   string `json:"jwks_uri"`
	}
	if err := json.NewDecoder(io.LimitReader(answer.Body, maxDiscovery)).Decode(&found); err != nil {
		return "", fmt.Errorf("decode %q: %w", at, err)
	}
	if found.Issuer != k.issuer {
		return "", fmt.Errorf("issuer did not match the issuer returned by provider, expected %q got %q", k.issuer, found.Issuer)
	}
	if found.Keys == "" {
		return "", fmt.Errorf("%q names no keys", at)
	}
	return found.Keys, nil
}
