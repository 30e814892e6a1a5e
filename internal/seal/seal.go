// Package seal encrypts what is stored, in the format of upstream's aesgcm
// provider, so that either server can read the other's secrets:
//
//	k8s:enc:aesgcm:v1:<key name>:<nonce, 12 bytes><ciphertext and tag>
//
// The place where the bytes are stored is authenticated with them: a value moved
// to another key of the store does not open.
package seal

import (
	"bytes"
	"crypto/aes"
	"crypto/cipher"
	"crypto/rand"
	"errors"
	"fmt"
	"strings"
)

// prefix begins every value that any of upstream's providers has encrypted;
// provider follows for this one.
const (
	prefix   = "k8s:enc:"
	provider = "aesgcm:v1:"
)

// MaxKeys bounds the keys that one Sealer tries: the one in use and those being
// rotated out.
const MaxKeys = 16

// ErrSealed says that the bytes do not open with any known key, or not at this place.
var ErrSealed = errors.New("sealed bytes cannot be opened")

// Key is one named AES key of 16, 24 or 32 bytes.
type Key struct {
	Name   string
	Secret []byte
}

// Sealer seals with its first key and opens with any. It may be used concurrently.
//
// Nonces are random: a key should not seal more than 2^32 values, which a server
// that writes 100 secrets a second reaches after 16 months.
type Sealer struct {
	names []string
	aeads []cipher.AEAD
}

// New returns a Sealer for keys, the one to seal with first.
func New(keys ...Key) (*Sealer, error) {
	if len(keys) == 0 || len(keys) > MaxKeys {
		return nil, fmt.Errorf("sealer with %d keys: want 1 to %d", len(keys), MaxKeys)
	}
	s := &Sealer{}
	for _, k := range keys {
		if k.Name == "" || strings.Contains(k.Name, ":") {
			return nil, fmt.Errorf("key name %q: must not be empty or have a colon", k.Name)
		}
		block, err := aes.NewCipher(k.Secret)
		if err != nil {
			return nil, fmt.Errorf("key %q: %w", k.Name, err)
		}
		aead, err := cipher.NewGCM(block)
		if err != nil {
			return nil, fmt.Errorf("key %q: %w", k.Name, err)
		}
		s.names = append(s.names, k.Name)
		s.aeads = append(s.aeads, aead)
	}
	return s, nil
}

// Seal encrypts plain for its place in the store.
func (s *Sealer) Seal(place string, plain []byte) ([]byte, error) {
	head := prefix + provider + s.names[0] + ":"
	aead := s.aeads[0]
	out := make([]byte, len(head)+aead.NonceSize(), len(head)+aead.NonceSize()+len(plain)+aead.Overhead())
	copy(out, head)
	nonce := out[len(head):]
	if _, err := rand.Read(nonce); err != nil {
		return nil, fmt.Errorf("seal %q: %w", place, err)
	}
	return aead.Seal(out, nonce, plain, []byte(place)), nil
}

// Open decrypts what Seal made. Bytes that were never sealed are returned as they
// are; stale says that they, or bytes sealed with an old key, should be sealed
// anew.
func (s *Sealer) Open(place string, sealed []byte) (plain []byte, stale bool, err error) {
	if !bytes.HasPrefix(sealed, []byte(prefix)) {
		return sealed, true, nil
	}
	for i, name := range s.names {
		data, ok := bytes.CutPrefix(sealed, []byte(prefix+provider+name+":"))
		aead := s.aeads[i]
		if !ok || len(data) < aead.NonceSize() {
			continue
		}
		plain, err := aead.Open(nil, data[:aead.NonceSize()], data[aead.NonceSize():], []byte(place))
		if err == nil {
			return plain, i > 0, nil
		}
	}
	return nil, false, fmt.Errorf("open %q: %w", place, ErrSealed)
}
