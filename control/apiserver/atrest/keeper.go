package atrest

import (
	"bytes"
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sync/errgroup"
	"k8s.io/apimachinery/pkg/runtime/schema"

	"github.com/sampan-dev/sampan/internal/seal"
)

// reloadEvery is how often the file is looked at. Upstream's number.
const reloadEvery = time.Minute

// Keeper seals what an EncryptionConfiguration says. Its methods may be called
// concurrently.
type Keeper struct {
	path string
	log  *slog.Logger
	now  atomic.Pointer[state]

	mu     sync.Mutex // guards the change of the file
	failed error      // of the last look at the file
}

// state is one content of the file, in use.
type state struct {
	raw     []byte
	rules   []stateRule
	plugins []*plugin
}

type stateRule struct {
	resources []schema.GroupResource
	chain     seal.Chain
}

// OpenKeeper reads the file at path. A KMS plugin that does not answer yet is no
// error: what it seals cannot be read or written until it does.
func OpenKeeper(ctx context.Context, path string, log *slog.Logger) (*Keeper, error) {
	if log == nil {
		log = slog.New(slog.DiscardHandler)
	}
	k := &Keeper{path: path, log: log}
	next, err := open(path)
	if err != nil {
		return nil, err
	}
	for _, p := range next.plugins {
		if err := p.check(ctx); err != nil {
			log.Warn("KMS plugin", "name", p.name, "error", err)
		}
	}
	k.now.Store(next)
	return k, nil
}

// open makes the chains that the file at path asks for.
func open(path string) (*state, error) {
	c, raw, err := load(path)
	if err != nil {
		return nil, err
	}
	s := &state{raw: raw}
	for _, rule := range c.Resources {
		var r stateRule
		for _, name := range rule.Resources {
			r.resources = append(r.resources, schema.ParseGroupResource(name))
		}
		for _, p := range rule.Providers {
			links, err := s.links(p)
			if err != nil {
				return nil, errors.Join(fmt.Errorf("encryption configuration %q: %w", path, err), s.close())
			}
			r.chain = append(r.chain, links...)
		}
		s.rules = append(s.rules, r)
	}
	return s, nil
}

func (s *state) links(p provider) ([]seal.Link, error) {
	switch {
	case p.AESGCM != nil:
		return p.AESGCM.links("aesgcm:v1:", seal.GCM)
	case p.AESCBC != nil:
		return p.AESCBC.links("aescbc:v1:", seal.CBC)
	case p.Secretbox != nil:
		return p.Secretbox.links("secretbox:v1:", seal.Box)
	case p.KMS != nil:
		made, err := newPlugin(p.KMS)
		if err != nil {
			return nil, err
		}
		s.plugins = append(s.plugins, made)
		return []seal.Link{{Prefix: seal.Sealed + "kms:v2:" + p.KMS.Name + ":", Cipher: made}}, nil
	}
	return []seal.Link{{}}, nil
}

func (k *keyList) links(kind string, cipher func([]byte) (seal.Cipher, error)) (links []seal.Link, err error) {
	for _, key := range k.Keys {
		raw, err := base64.StdEncoding.DecodeString(key.Secret)
		if err != nil {
			return nil, fmt.Errorf("key %q: %w", key.Name, err)
		}
		c, err := cipher(raw)
		if err != nil {
			return nil, fmt.Errorf("key %q: %w", key.Name, err)
		}
		links = append(links, seal.Link{Prefix: seal.Sealed + kind + key.Name + ":", Cipher: c})
	}
	return links, nil
}

func (s *state) close() (err error) {
	for _, p := range s.plugins {
		err = errors.Join(err, p.close())
	}
	return err
}

// chain is what the first rule for a resource says; nil where none does.
func (s *state) chain(gr schema.GroupResource) seal.Chain {
	for _, r := range s.rules {
		for _, have := range r.resources {
			if have == gr || have.Resource == "*" && (have.Group == "*" || have.Group == gr.Group) {
				return r.chain
			}
		}
	}
	return nil
}

// For is the sealing of one resource, under whatever the file says at the moment.
// What no rule names is left as it is.
func (k *Keeper) For(gr schema.GroupResource) *Kept { return &Kept{keeper: k, resource: gr} }

// Kept seals one resource.
type Kept struct {
	keeper   *Keeper
	resource schema.GroupResource
}

// Named says whether the file has a rule for the resource.
func (k *Kept) Named() bool { return k.keeper.now.Load().chain(k.resource) != nil }

// Seal encrypts plain for its place in the store.
func (k *Kept) Seal(place string, plain []byte) ([]byte, error) {
	return k.keeper.now.Load().chain(k.resource).Seal(place, plain)
}

// Open decrypts what Seal made; stale says that it would be sealed otherwise now.
func (k *Kept) Open(place string, sealed []byte) (plain []byte, stale bool, err error) {
	chain := k.keeper.now.Load().chain(k.resource)
	if chain == nil {
		chain = seal.Chain{{}}
	}
	return chain.Open(place, sealed)
}

// Run looks after the plugins and the file until ctx ends.
func (k *Keeper) Run(ctx context.Context) error {
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error { return k.watch(ctx) })
	g.Go(func() error {
		timer := time.NewTimer(0)
		defer timer.Stop()
		for {
			select {
			case <-timer.C:
			case <-ctx.Done():
				return errors.Join(context.Cause(ctx), k.now.Load().close())
			}
			timer.Reset(k.poll(ctx))
		}
	})
	return g.Wait()
}

// poll asks every plugin how it is, and says when to ask again.
func (k *Keeper) poll(ctx context.Context) time.Duration {
	again := pollHealthy
	for _, p := range k.now.Load().plugins {
		if err := p.check(ctx); err != nil {
			k.log.Warn("KMS plugin", "name", p.name, "error", err)
			again = pollSick
		}
	}
	return again
}

// watch takes over changes of the file. A file that is wrong changes nothing but
// the health.
func (k *Keeper) watch(ctx context.Context) error {
	tick := time.NewTicker(reloadEvery)
	defer tick.Stop()
	for {
		select {
		case <-tick.C:
		case <-ctx.Done():
			return context.Cause(ctx)
		}
		if err := k.Reload(ctx); err != nil {
			k.log.Warn("reload the encryption configuration", "error", err)
		}
	}
}

// Reload looks at the file now and takes over what it says, once its plugins
// answer.
func (k *Keeper) Reload(ctx context.Context) (err error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	defer func() { k.failed = err }()
	old := k.now.Load()
	raw, err := os.ReadFile(k.path)
	if err != nil {
		return fmt.Errorf("encryption configuration: %w", err)
	}
	if bytes.Equal(raw, old.raw) {
		return nil
	}
	next, err := open(k.path)
	if err != nil {
		return err
	}
	for _, p := range next.plugins {
		if err := p.check(ctx); err != nil {
			return errors.Join(err, next.close())
		}
	}
	k.now.Store(next)
	k.log.Info("the encryption configuration has been reloaded")
	// Requests under way may still ask the old plugins; they end with their calls.
	time.AfterFunc(reloadEvery, func() { _ = old.close() })
	return nil
}

// Check is the health of the plugins and of the file: upstream's check
// "kms-providers".
func (k *Keeper) Check(ctx context.Context) error {
	var errs []error
	for _, p := range k.now.Load().plugins {
		errs = append(errs, p.check(ctx))
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	return errors.Join(append(errs, k.failed)...)
}
