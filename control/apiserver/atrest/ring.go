// Package atrest seals what lies in the store. Without a configuration, Secrets
// are sealed with keys of the cluster's own: a Ring, whose keys Rotation changes
// under a running server. With an EncryptionConfiguration, upstream's file, a
// Keeper seals what the file says, with its keys or those of a KMS v2 plugin, and
// follows changes of the file.
//
// All formats are upstream's, so that either server can read the other's store.
package atrest

import (
	"bytes"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"

	"github.com/sampan-dev/sampan/internal/atomicfile"
	"github.com/sampan-dev/sampan/internal/seal"
)

// keySize makes AES-256 keys.
const keySize = 32

// firstKey is the name of a cluster's first key.
const firstKey = "key1"

// Ring seals with the first of a few keys, which are kept in a file, and opens with
// any. It may be used concurrently.
type Ring struct {
	path, old string
	sealer    atomic.Pointer[seal.Sealer]

	mu   sync.Mutex
	keys []seal.Key // those in the file, the one in use first
	gone []seal.Key // dropped from the file, good until the process ends
}

// ringFile is the form of a Ring's file.
type ringFile struct {
	Keys []ringKey `json:"keys"`
}

type ringKey struct {
	Name   string `json:"name"`
	Secret []byte `json:"secret"`
}

// OpenRing reads the keys at path. A cluster that has never changed its key has
// them at old, 32 bytes; where there is neither, a key is made there.
func OpenRing(path, old string) (*Ring, error) {
	r := &Ring{path: path, old: old}
	var file ringFile
	err := atomicfile.ReadJSON(path, &file)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		key, err := r.openKey()
		if err != nil {
			return nil, fmt.Errorf("key of the secrets: %w", err)
		}
		r.keys = []seal.Key{{Name: firstKey, Secret: key}}
	case err != nil:
		return nil, fmt.Errorf("keys of the secrets: %w", err)
	default:
		for _, k := range file.Keys {
			r.keys = append(r.keys, seal.Key{Name: k.Name, Secret: k.Secret})
		}
		if err := r.forgetOld(); err != nil {
			return nil, err
		}
	}
	if err := r.compare(); err != nil {
		return nil, err
	}
	return r, r.use()
}

// openKey reads the one key of a cluster, or makes it.
func (r *Ring) openKey() ([]byte, error) {
	key, err := os.ReadFile(r.old)
	if errors.Is(err, fs.ErrNotExist) {
		if _, err := os.Stat(r.printsPath()); err == nil {
			return nil, fmt.Errorf("%q is gone, with which Secrets are sealed: bring it back from a backup (or remove %q to give those Secrets up)", r.old, r.printsPath())
		}
		key = newKey()
		err = atomicfile.Write(r.old, key, 0o400)
	}
	if err == nil && len(key) != keySize {
		return nil, fmt.Errorf("%q has %d bytes, not %d: it is damaged, bring it back from a backup", r.old, len(key), keySize)
	}
	return key, err
}

// printsPath is where the fingerprints of the keys are. A key is any number of that
// length: without them one that a disk has spoilt would open nothing, and seal what
// nobody could open once the true one is back.
func (r *Ring) printsPath() string { return filepath.Join(filepath.Dir(r.path), "secrets.prints") }

// compare refuses keys that are not those whose fingerprints were kept, and keeps them.
// A file of fingerprints that cannot be read proves nothing, and is written anew.
func (r *Ring) compare() error {
	var kept map[string]string
	_ = atomicfile.ReadJSON(r.printsPath(), &kept) // none: they have never been kept
	now := map[string]string{}
	for _, k := range r.keys {
		now[k.Name] = fingerprint(k.Secret)
		if was, ok := kept[k.Name]; ok && was != now[k.Name] {
			return fmt.Errorf("keys of the secrets: %q in %q is not the key with which Secrets are sealed: it is damaged, bring the file back from a backup (or remove %q to give those Secrets up)",
				k.Name, filepath.Dir(r.path), r.printsPath())
		}
	}
	if maps.Equal(kept, now) {
		return nil
	}
	if err := atomicfile.WriteJSON(r.printsPath(), now); err != nil {
		return fmt.Errorf("keep the fingerprints of the keys of the secrets: %w", err)
	}
	return nil
}

// fingerprint tells keys apart and says nothing of them.
func fingerprint(secret []byte) string {
	sum := sha256.Sum256(append([]byte("sampan: a key of the secrets: "), secret...))
	return hex.EncodeToString(sum[:8])
}

func newKey() []byte {
	key := make([]byte, keySize)
	_, _ = rand.Read(key) // never fails: the process would end before
	return key
}

// forgetOld removes the old file once the ring's own has its key, or no longer
// needs it.
func (r *Ring) forgetOld() error {
	if err := atomicfile.Remove(r.old); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("keys of the secrets: %w", err)
	}
	return nil
}

// use makes the sealer of the keys. The caller holds mu, or is alone.
func (r *Ring) use() error {
	s, err := seal.New(append(append([]seal.Key{}, r.keys...), r.gone...)...)
	if err != nil {
		return fmt.Errorf("keys of the secrets: %w", err)
	}
	r.sealer.Store(s)
	return nil
}

// Seal encrypts plain for its place in the store.
func (r *Ring) Seal(place string, plain []byte) ([]byte, error) {
	return r.sealer.Load().Seal(place, plain)
}

// Open decrypts what Seal made, now or with a former key.
func (r *Ring) Open(place string, sealed []byte) (plain []byte, stale bool, err error) {
	return r.sealer.Load().Open(place, sealed)
}

// Keys are the names of the keys in the file, the one in use first.
func (r *Ring) Keys() []string {
	r.mu.Lock()
	defer r.mu.Unlock()
	names := make([]string, 0, len(r.keys))
	for _, k := range r.keys {
		names = append(names, k.Name)
	}
	return names
}

// Current says whether sealed bytes are sealed with the key in use.
func (r *Ring) Current(sealed []byte) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return bytes.HasPrefix(sealed, []byte(seal.Sealed)) && seal.KeyOf(sealed) == r.keys[0].Name
}

// Advance puts a new key in use. It is on disk before it seals anything; the
// former keys stay.
func (r *Ring) Advance() (name string, err error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if len(r.keys)+len(r.gone) >= seal.MaxKeys {
		return "", fmt.Errorf("there are %d keys already: restart the server, and finish the rotation under way", seal.MaxKeys)
	}
	highest := 0
	for _, k := range append(append([]seal.Key{}, r.keys...), r.gone...) {
		if n, err := strconv.Atoi(strings.TrimPrefix(k.Name, "key")); err == nil {
			highest = max(highest, n)
		}
	}
	before := r.keys
	name = "key" + strconv.Itoa(highest+1)
	r.keys = append([]seal.Key{{Name: name, Secret: newKey()}}, before...)
	if err := r.save(); err != nil {
		r.keys = before
		return "", err
	}
	if err := r.use(); err != nil {
		return "", err
	}
	return name, r.forgetOld()
}

// Retire drops all keys but the one in use from the file. This process still opens
// with them: its caches and watches may have old bytes for a while.
func (r *Ring) Retire() error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if len(r.keys) == 1 {
		return nil
	}
	before, gone := r.keys, r.keys[1:]
	r.keys = before[:1:1]
	if err := r.save(); err != nil {
		r.keys = before
		return err
	}
	r.gone = append(r.gone, gone...)
	return nil
}

func (r *Ring) save() error {
	var file ringFile
	for _, k := range r.keys {
		file.Keys = append(file.Keys, ringKey{Name: k.Name, Secret: k.Secret})
	}
	if err := atomicfile.WriteJSON(r.path, file); err != nil {
		return fmt.Errorf("keep the keys of the secrets: %w", err)
	}
	return r.compare()
}
