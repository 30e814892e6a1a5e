// Package provider asks programs for credentials of registries: the kubelet's
// credential provider plugins (CredentialProviderConfig of kubelet.config.k8s.io,
// CredentialProviderRequest and -Response of credentialprovider.kubelet.k8s.io).
// A program is started when an image is to be pulled that it is for, with the
// question on its standard input; what it answers is kept for as long as it says.
package provider

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"golang.org/x/sync/singleflight"
	corev1 "k8s.io/api/core/v1"
	configv1 "k8s.io/kubelet/config/v1"
	wire "k8s.io/kubelet/pkg/apis/credentialprovider/v1"

	"github.com/sampan-dev/sampan/node/agent/keyring"
)

// Config is what Load needs.
type Config struct {
	// Path is the file of a CredentialProviderConfig, or a directory of such files;
	// Bin is where the programs are. Both are there, or neither is.
	Path, Bin string
	// Account finds a ServiceAccount.
	Account func(ctx context.Context, namespace, name string) (*corev1.ServiceAccount, error)
	// Token mints a token of the account for an audience, that ends with the pod.
	Token func(ctx context.Context, pod *corev1.Pod, account *corev1.ServiceAccount, audience string) (Token, error)
	// NoTokens refuses providers that want tokens of accounts.
	NoTokens bool
	// Ran is told of every program that has run; it may be nil.
	Ran func(name string, took time.Duration, err error)
	Log *slog.Logger
}

// Token is one of a service account; it is used until Until.
type Token struct {
	Value string
	// Issued and Until are when its life begins and ends.
	Issued, Until time.Time
}

// Set are the providers of one configuration, in its order. A nil Set has none. Its
// methods may be called from any goroutine.
type Set struct {
	list []*provider
	hash string
}

// provider is one program.
type provider struct {
	configv1.CredentialProvider
	cfg    Config
	path   string
	tokens tokens
	flight singleflight.Group

	mu    sync.Mutex
	known map[string]answer
	swept time.Time
}

// answer is what a program said, and how long that counts.
type answer struct {
	entries keyring.Entries
	until   time.Time
}

// Limits of what is kept of a program's answers.
const (
	// maxKept is how many answers are kept of one program; more are asked for anew.
	maxKept = 4096
	// sweepEvery is how often answers are dropped that count no more.
	sweepEvery = 15 * time.Minute
)

// everywhere is the key of answers that are for all images: no registry's name.
const everywhere = "<global>"

// Load reads the configuration and finds the programs; without Path and Bin the Set
// is nil. A provider whose program is not there is an error, as upstream.
func Load(cfg Config) (*Set, error) {
	if cfg.Path == "" && cfg.Bin == "" {
		return nil, nil
	}
	if _, err := os.Stat(cfg.Bin); err != nil {
		if errors.Is(err, os.ErrNotExist) {
			return nil, fmt.Errorf("plugin binary directory %s did not exist", cfg.Bin)
		}
		return nil, fmt.Errorf("error inspecting binary directory %s: %w", cfg.Bin, err)
	}
	said, hash, err := read(cfg.Path)
	if err != nil {
		return nil, err
	}
	if err := check(said, cfg.NoTokens); err != nil {
		return nil, fmt.Errorf("failed to validate credential provider config: %w", err)
	}
	if cfg.Ran == nil {
		cfg.Ran = func(string, time.Duration, error) {}
	}
	set := &Set{hash: hash}
	for _, p := range said {
		path, err := exec.LookPath(filepath.Join(cfg.Bin, p.Name))
		if err != nil {
			return nil, fmt.Errorf("credential provider %q: %w", p.Name, err)
		}
		set.list = append(set.list, &provider{CredentialProvider: p, cfg: cfg, path: path, known: map[string]answer{}, swept: time.Now()})
	}
	return set, nil
}

// Hash names the configuration, so that one can see whether nodes have the same; ""
// is none.
func (s *Set) Hash() string {
	if s == nil {
		return ""
	}
	return s.hash
}

// Find asks the providers that are for a repository, one after the other. One that
// fails is told of in the log, and has nothing.
func (s *Set) Find(ctx context.Context, pod *corev1.Pod, repository string) []keyring.Key {
	if s == nil {
		return nil
	}
	ring := keyring.Ring{}
	for _, p := range s.list {
		if !slices.ContainsFunc(p.MatchImages, func(pattern string) bool { return keyring.Matches(pattern, repository) }) {
			continue
		}
		entries, account, err := p.ask(ctx, pod, repository)
		if err != nil {
			p.cfg.Log.Warn("failed to provide credentials for an image", "provider", p.Name, "image", repository, "pod", pod.Namespace+"/"+pod.Name, "err", err)
			continue
		}
		ring.Add(keyring.Source{ServiceAccount: account}, entries)
	}
	return ring.Find(repository)
}

// ask returns a program's credentials for a repository, kept ones if there are such,
// and whose they are when they are a service account's.
func (p *provider) ask(ctx context.Context, pod *corev1.Pod, repository string) (keyring.Entries, *keyring.Object, error) {
	who, ok, err := p.identify(ctx, pod)
	if err != nil || !ok {
		return nil, nil, err
	}
	registry, _, _ := strings.Cut(repository, "/")
	for _, place := range []string{repository, registry, everywhere} {
		if found, ok := p.kept(join(place, who.cacheKey)); ok {
			return found, who.account, nil
		}
	}
	// Several pods that want one image at once start one program.
	flight := p.flight.DoChan(join(repository, digest(who.token), list(who.annotations)), func() (any, error) {
		return p.run(context.WithoutCancel(ctx), repository, who)
	})
	var said *wire.CredentialProviderResponse
	select {
	case got := <-flight:
		if got.Err != nil {
			return nil, nil, fmt.Errorf("failed to get credential from external registry credential provider: %w", got.Err)
		}
		said = got.Val.(*wire.CredentialProviderResponse)
	case <-ctx.Done():
		return nil, nil, context.Cause(ctx)
	}
	entries, err := p.take(said, who, map[wire.PluginCacheKeyType]string{
		wire.ImagePluginCacheKeyType: repository, wire.RegistryPluginCacheKeyType: registry, wire.GlobalPluginCacheKeyType: everywhere,
	})
	return entries, who.account, err
}

// take keeps what a program has said.
func (p *provider) take(said *wire.CredentialProviderResponse, who caller, places map[wire.PluginCacheKeyType]string) (keyring.Entries, error) {
	entries := keyring.Entries{}
	for name, auth := range said.Auth {
		if who.token != "" && auth.Password == who.token && p.TokenAttributes.CacheType != configv1.TokenServiceAccountTokenCacheType {
			return nil, errors.New("credential provider plugin returned the service account token as the password which is not allowed when service account cache type is not set to 'Token'")
		}
		entries[name] = keyring.Entry{Username: auth.Username, Password: auth.Password}
	}
	place, ok := places[said.CacheKeyType]
	if !ok {
		return nil, fmt.Errorf("credential provider plugin did not return a valid cacheKeyType: %s", said.CacheKeyType)
	}
	keep := p.DefaultCacheDuration.Duration
	if said.CacheDuration != nil {
		keep = said.CacheDuration.Duration
	}
	if keep > 0 {
		p.keep(join(place, who.cacheKey), answer{entries, time.Now().Add(keep)})
	}
	return entries, nil
}

// kept finds an answer that still counts.
func (p *provider) kept(key string) (keyring.Entries, bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	now := time.Now()
	if now.Sub(p.swept) > sweepEvery {
		p.sweep(now)
	}
	found, ok := p.known[key]
	return found.entries, ok && !now.After(found.until)
}

// keep remembers an answer, unless there are too many.
func (p *provider) keep(key string, a answer) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if len(p.known) >= maxKept {
		p.sweep(time.Now())
	}
	if len(p.known) < maxKept {
		p.known[key] = a
	}
}

// sweep drops what counts no more; p.mu is held.
func (p *provider) sweep(now time.Time) {
	p.swept = now
	for key, a := range p.known {
		if now.After(a.until) {
			delete(p.known, key)
		}
	}
}

// join makes one key of parts that may hold anything.
func join(parts ...string) string {
	var b strings.Builder
	for _, part := range parts {
		fmt.Fprintf(&b, "%d:%s", len(part), part)
	}
	return b.String()
}

// digest stands for a secret in keys; "" for none.
func digest(secret string) string {
	if secret == "" {
		return ""
	}
	return fmt.Sprintf("sha256:%x", sha256.Sum256([]byte(secret)))
}
