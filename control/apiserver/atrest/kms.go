package atrest

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"net"
	"net/url"
	"sync"
	"time"

	"github.com/google/uuid"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"k8s.io/apimachinery/pkg/util/validation"
	kmsv2 "k8s.io/kms/apis/v2"

	"github.com/sampan-dev/sampan/internal/seal"
)

// How a plugin is dealt with; upstream's numbers.
const (
	pollHealthy = time.Minute
	pollSick    = 10 * time.Second
	// A check's result counts for so long.
	healthyFor = 20 * time.Second
	sickFor    = 3 * time.Second
	// writeFor is how long a seed seals without news from the plugin.
	writeFor = 3 * time.Minute
	// maxKeyID, maxSource and maxNotes bound what a plugin answers, in bytes.
	maxKeyID  = 1 << 10
	maxSource = 1 << 10
	maxNotes  = 32 << 10
	// maxSeeds bounds the seeds that are kept opened: one a key and start of a
	// server.
	maxSeeds = 1000
)

// plugin is one KMS v2 plugin as a cipher: envelope encryption with a seed that the
// plugin has sealed and that lies beside the data. The seed in use changes when the
// plugin tells of a new key.
type plugin struct {
	name    string
	timeout time.Duration
	conn    *grpc.ClientConn
	client  kmsv2.KeyManagementServiceClient

	checking sync.Mutex // one check at a time; taken before mu
	checked  time.Time
	health   error
	version  string

	mu    sync.Mutex
	seed  *seed
	until time.Time // when seed may no longer seal
	seeds map[string]seal.Cipher
}

// seed is what seals now.
type seed struct {
	cipher seal.Cipher
	head   envelope // without data
}

// newPlugin prepares the connection; nothing is asked yet.
func newPlugin(c *kmsConfig) (*plugin, error) {
	u, err := url.Parse(c.Endpoint)
	if err != nil {
		return nil, fmt.Errorf("KMS plugin %q: %w", c.Name, err)
	}
	address := u.Path
	if u.Host == "@" || len(address) > 1 && address[1] == '@' {
		address = "@" + address[2:] // an abstract socket: unix:///@name
	}
	p := &plugin{name: c.Name, timeout: c.Timeout.Duration, seeds: map[string]seal.Cipher{}}
	p.conn, err = grpc.NewClient("passthrough:///"+address, grpc.WithAuthority("localhost"),
		grpc.WithTransportCredentials(insecure.NewCredentials()), // a socket of this machine
		grpc.WithDefaultCallOptions(grpc.WaitForReady(true)),
		grpc.WithContextDialer(func(ctx context.Context, _ string) (net.Conn, error) {
			return (&net.Dialer{}).DialContext(ctx, "unix", address)
		}))
	if err != nil {
		return nil, fmt.Errorf("KMS plugin %q: %w", c.Name, err)
	}
	p.client = kmsv2.NewKeyManagementServiceClient(p.conn)
	return p, nil
}

func (p *plugin) close() error { return p.conn.Close() }

// check asks the plugin how it is, at most every few seconds, and brings the seed
// up to date.
func (p *plugin) check(ctx context.Context) error {
	p.checking.Lock()
	defer p.checking.Unlock()
	good := healthyFor
	if p.health != nil {
		good = sickFor
	}
	if !p.checked.IsZero() && time.Since(p.checked) < good {
		return p.health
	}
	p.health = p.ask(ctx)
	p.checked = time.Now()
	return p.health
}

func (p *plugin) ask(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, p.timeout)
	defer cancel()
	until := time.Now().Add(writeFor)
	status, err := p.client.Status(ctx, &kmsv2.StatusRequest{})
	if err != nil {
		return fmt.Errorf("failed to perform status section of the healthz check for KMS Provider %s, error: %w", p.name, err)
	}
	var errs []error
	if status.Healthz != "ok" {
		errs = append(errs, fmt.Errorf("got unexpected healthz status: %s", status.Healthz))
	}
	if status.Version != "v2" && status.Version != "v2beta1" {
		errs = append(errs, fmt.Errorf("expected KMSv2 API version v2, got %s", status.Version))
	} else if p.version == "" {
		p.version = status.Version
	}
	if p.version != "" && p.version != status.Version {
		errs = append(errs, fmt.Errorf("KMSv2 API version should not change after the initial status response version %s, got %s", p.version, status.Version))
	}
	if err := checkKeyID(status.KeyId); err != nil {
		errs = append(errs, err)
	} else {
		errs = append(errs, p.follow(ctx, status.KeyId, until))
	}
	if err := errors.Join(errs...); err != nil {
		return fmt.Errorf("kmsv2 Provider %s is not healthy, error: %w", p.name, err)
	}
	return nil
}

// follow keeps the seed for as long as the plugin's key is the same, and makes
// another when it is not.
func (p *plugin) follow(ctx context.Context, keyID string, until time.Time) error {
	p.mu.Lock()
	if p.seed != nil && p.seed.head.keyID == keyID {
		p.until = until
		p.mu.Unlock()
		return nil
	}
	p.mu.Unlock()
	raw := make([]byte, seal.SeedSize)
	_, _ = rand.Read(raw) // never fails: the process would end before
	answer, err := p.client.Encrypt(ctx, &kmsv2.EncryptRequest{Plaintext: raw, Uid: uuid.NewString()})
	if err != nil {
		return fmt.Errorf("failed to encrypt DEK, error: %w", err)
	}
	head := envelope{keyID: answer.KeyId, source: answer.Ciphertext, notes: answer.Annotations, seeded: true}
	if err := head.check(); err != nil {
		return err
	}
	if head.keyID != keyID {
		return errors.New("the plugin encrypts with another key than its status tells")
	}
	cipher, err := seal.Derived(raw)
	if err != nil {
		return err
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.seed, p.until = &seed{cipher: cipher, head: head}, until
	p.keep(head.id(), cipher)
	return nil
}

// keep remembers an opened seed. The caller holds mu.
func (p *plugin) keep(id string, c seal.Cipher) {
	if len(p.seeds) >= maxSeeds {
		clear(p.seeds)
	}
	p.seeds[id] = c
}

// Seal encrypts plain with the seed in use.
func (p *plugin) Seal(place string, plain []byte) ([]byte, error) {
	p.mu.Lock()
	s, until := p.seed, p.until
	p.mu.Unlock()
	if s == nil {
		return nil, fmt.Errorf("KMS plugin %q has not given a key yet", p.name)
	}
	if time.Now().After(until) {
		return nil, fmt.Errorf("the key of KMS plugin %q expired at %s: the plugin does not answer well", p.name, until.Format(time.RFC3339))
	}
	data, err := s.cipher.Seal(place, plain)
	if err != nil {
		return nil, err
	}
	e := s.head
	e.data = data
	return e.encode(), nil
}

// Open decrypts what Seal made; a seed that is not known is opened by the plugin.
func (p *plugin) Open(place string, sealed []byte) ([]byte, error) {
	e, err := decode(sealed)
	if err != nil {
		return nil, err
	}
	id := e.id()
	p.mu.Lock()
	c := p.seeds[id]
	p.mu.Unlock()
	if c == nil {
		ctx, cancel := context.WithTimeout(context.Background(), p.timeout)
		defer cancel()
		answer, err := p.client.Decrypt(ctx, &kmsv2.DecryptRequest{Ciphertext: e.source, KeyId: e.keyID, Annotations: e.notes, Uid: uuid.NewString()})
		if err != nil {
			return nil, fmt.Errorf("failed to decrypt DEK, error: %w", err)
		}
		if e.seeded {
			c, err = seal.Derived(answer.Plaintext)
		} else {
			c, err = seal.GCM(answer.Plaintext)
		}
		if err != nil {
			return nil, err
		}
		p.mu.Lock()
		p.keep(id, c)
		p.mu.Unlock()
	}
	return c.Open(place, e.data)
}

// Stale says whether sealed bytes are of another key than the plugin uses now.
func (p *plugin) Stale(sealed []byte) bool {
	e, err := decode(sealed)
	if err != nil {
		return false
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.seed != nil && (p.seed.head.keyID != e.keyID || !e.seeded)
}

func checkKeyID(id string) error {
	if id == "" || len(id) > maxKeyID {
		return fmt.Errorf("key id of %d bytes: want 1 to %d", len(id), maxKeyID)
	}
	return nil
}

// check bounds what a plugin has given.
func (e *envelope) check() error {
	if err := checkKeyID(e.keyID); err != nil {
		return err
	}
	if len(e.source) == 0 || len(e.source) > maxSource {
		return fmt.Errorf("encrypted DEK source of %d bytes: want 1 to %d", len(e.source), maxSource)
	}
	size := 0
	for k, v := range e.notes {
		if problems := validation.IsDNS1123Subdomain(k); len(problems) > 0 {
			return fmt.Errorf("annotation %q: %s", k, problems[0])
		}
		size += len(k) + len(v)
	}
	if size > maxNotes {
		return fmt.Errorf("annotations of %d bytes: at most %d", size, maxNotes)
	}
	return nil
}
