package seal

import (
	"bytes"
	"crypto/aes"
	"crypto/cipher"
	"crypto/hkdf"
	"crypto/rand"
	"crypto/sha256"
	"errors"
	"fmt"

	"golang.org/x/crypto/nacl/secretbox"
)

// Cipher seals bytes for their place and opens them again. It adds no name of its
// own. Ciphers may be used concurrently.
type Cipher interface {
	Seal(place string, plain []byte) ([]byte, error)
	Open(place string, sealed []byte) ([]byte, error)
}

// errShort and errForged say what is wrong with bytes that do not open.
var (
	errShort  = errors.New("too short")
	errForged = errors.New("not sealed with this key")
)

// GCM is AES-GCM with random nonces: nonce (12 bytes), ciphertext, tag. The place
// is authenticated.
func GCM(key []byte) (Cipher, error) {
	block, err := aes.NewCipher(key)
	if err != nil {
		return nil, err
	}
	aead, err := cipher.NewGCM(block)
	return gcm{aead}, err
}

type gcm struct{ aead cipher.AEAD }

func (g gcm) Seal(place string, plain []byte) ([]byte, error) { return g.append(nil, place, plain) }

// append seals behind head.
func (g gcm) append(head []byte, place string, plain []byte) ([]byte, error) {
	size := g.aead.NonceSize()
	out := make([]byte, len(head)+size, len(head)+size+len(plain)+g.aead.Overhead())
	copy(out, head)
	nonce := out[len(head):]
	if _, err := rand.Read(nonce); err != nil {
		return nil, err
	}
	return g.aead.Seal(out, nonce, plain, []byte(place)), nil
}

func (g gcm) Open(place string, sealed []byte) ([]byte, error) {
	size := g.aead.NonceSize()
	if len(sealed) < size {
		return nil, errShort
	}
	return g.aead.Open(nil, sealed[:size], sealed[size:], []byte(place))
}

// CBC is AES-CBC with PKCS #7 padding: IV (16 bytes), ciphertext. It authenticates
// nothing, neither bytes nor place: it is for those who have data in it.
func CBC(key []byte) (Cipher, error) {
	block, err := aes.NewCipher(key)
	return cbc{block}, err
}

type cbc struct{ block cipher.Block }

func (c cbc) Seal(_ string, plain []byte) ([]byte, error) {
	pad := aes.BlockSize - len(plain)%aes.BlockSize
	out := make([]byte, aes.BlockSize+len(plain)+pad)
	if _, err := rand.Read(out[:aes.BlockSize]); err != nil {
		return nil, err
	}
	body := out[aes.BlockSize:]
	copy(body, plain)
	for i := len(plain); i < len(body); i++ {
		body[i] = byte(pad)
	}
	cipher.NewCBCEncrypter(c.block, out[:aes.BlockSize]).CryptBlocks(body, body)
	return out, nil
}

func (c cbc) Open(_ string, sealed []byte) ([]byte, error) {
	if len(sealed) < 2*aes.BlockSize || len(sealed)%aes.BlockSize != 0 {
		return nil, errShort
	}
	body := bytes.Clone(sealed[aes.BlockSize:])
	cipher.NewCBCDecrypter(c.block, sealed[:aes.BlockSize]).CryptBlocks(body, body)
	pad := int(body[len(body)-1])
	if pad == 0 || pad > aes.BlockSize || !bytes.Equal(body[len(body)-pad:], bytes.Repeat([]byte{byte(pad)}, pad)) {
		return nil, errForged
	}
	return body[:len(body)-pad], nil
}

// nonceBox is the size of a secretbox's nonce.
const nonceBox = 24

// Box is NaCl's secretbox, XSalsa20 and Poly1305: nonce (24 bytes), box. The place
// is not authenticated.
func Box(key []byte) (Cipher, error) {
	b := &box{}
	if len(key) != len(b.key) {
		return nil, fmt.Errorf("key of %d bytes: want %d", len(key), len(b.key))
	}
	copy(b.key[:], key)
	return b, nil
}

type box struct{ key [32]byte }

func (b *box) Seal(_ string, plain []byte) ([]byte, error) {
	var nonce [nonceBox]byte
	if _, err := rand.Read(nonce[:]); err != nil {
		return nil, err
	}
	return secretbox.Seal(nonce[:], plain, &nonce, &b.key), nil
}

func (b *box) Open(_ string, sealed []byte) ([]byte, error) {
	var nonce [nonceBox]byte
	if len(sealed) < nonceBox+secretbox.Overhead {
		return nil, errShort
	}
	copy(nonce[:], sealed)
	plain, ok := secretbox.Open(nil, sealed[nonceBox:], &nonce, &b.key)
	if !ok {
		return nil, errForged
	}
	return plain, nil
}

// SeedSize is the size of a seed for Derived, and of the salt before what it seals.
const SeedSize = 32

// Derived is AES-256-GCM with a key of its own for every seal, derived from seed by
// HKDF-SHA256 over a random salt: salt (32 bytes), nonce, ciphertext, tag. There is
// no bound on what one seed may seal.
func Derived(seed []byte) (Cipher, error) {
	if len(seed) < SeedSize {
		return nil, fmt.Errorf("seed of %d bytes: want %d", len(seed), SeedSize)
	}
	return derived{seed}, nil
}

type derived struct{ seed []byte }

func (d derived) key(salt []byte) (gcm, error) {
	key, err := hkdf.Expand(sha256.New, d.seed, string(salt), SeedSize)
	if err != nil {
		return gcm{}, err
	}
	c, err := GCM(key)
	if err != nil {
		return gcm{}, err
	}
	return c.(gcm), nil
}

func (d derived) Seal(place string, plain []byte) ([]byte, error) {
	salt := make([]byte, SeedSize)
	if _, err := rand.Read(salt); err != nil {
		return nil, err
	}
	c, err := d.key(salt)
	if err != nil {
		return nil, err
	}
	return c.append(salt, place, plain)
}

func (d derived) Open(place string, sealed []byte) ([]byte, error) {
	if len(sealed) < SeedSize {
		return nil, errShort
	}
	c, err := d.key(sealed[:SeedSize])
	if err != nil {
		return nil, err
	}
	return c.Open(place, sealed[SeedSize:])
}
