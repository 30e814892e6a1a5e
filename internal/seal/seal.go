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
	"errors"
	"fmt"
	"strings"
)

// gcmPrefix begins the values of the aesgcm provider; the key's name follows.
const gcmPrefix = Sealed + "aesgcm:v1:"

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
type Sealer struct{ chain Chain }

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
		c, err := GCM(k.Secret)
		if err != nil {
			return nil, fmt.Errorf("key %q: %w", k.Name, err)
		}
		s.chain = append(s.chain, Link{Prefix: gcmPrefix + k.Name + ":", Cipher: c})
	}
	return s, nil
}

// Seal encrypts plain for its place in the store.
func (s *Sealer) Seal(place string, plain []byte) ([]byte, error) { return s.chain.Seal(place, plain) }

// Open decrypts what Seal made. Bytes that were never sealed are returned as they
// are; stale says that they, or bytes sealed with an old key, should be sealed
// anew.
func (s *Sealer) Open(place string, sealed []byte) (plain []byte, stale bool, err error) {
	if !bytes.HasPrefix(sealed, []byte(Sealed)) {
		return sealed, true, nil
	}
	return s.chain.Open(place, sealed)
}

// KeyOf is the name of the key that sealed bytes were sealed with by a Sealer; ""
// for all others.
func KeyOf(sealed []byte) string {
	rest, ok := bytes.CutPrefix(sealed, []byte(gcmPrefix))
	if !ok {
		return ""
	}
	name, _, ok := bytes.Cut(rest, []byte(":"))
	if !ok {
		return ""
	}
	return string(name)
}
