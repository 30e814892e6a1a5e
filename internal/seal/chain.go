package seal

import (
	"bytes"
	"fmt"
)

// Sealed begins every value that any of upstream's providers has encrypted.
const Sealed = "k8s:enc:"

// Link is one way to seal: what begins its values, and how. A Link without a
// Cipher leaves bytes as they are; its Prefix is ignored.
type Link struct {
	Prefix string // "k8s:enc:aesgcm:v1:key1:"
	Cipher Cipher
}

// Chain seals with its first link and opens with whichever fits. It may be used
// concurrently.
type Chain []Link

// Seal encrypts plain for its place in the store.
func (c Chain) Seal(place string, plain []byte) ([]byte, error) {
	if len(c) == 0 || c[0].Cipher == nil {
		return plain, nil
	}
	sealed, err := c[0].Cipher.Seal(place, plain)
	if err != nil {
		return nil, fmt.Errorf("seal %q: %w", place, err)
	}
	out := make([]byte, 0, len(c[0].Prefix)+len(sealed))
	return append(append(out, c[0].Prefix...), sealed...), nil
}

// Open decrypts what Seal made. stale says that the bytes are not as Seal would
// leave them now. Bytes that were never sealed open only with a link that leaves
// them so.
func (c Chain) Open(place string, sealed []byte) (plain []byte, stale bool, err error) {
	cause := ErrSealed
	for i, l := range c {
		if l.Cipher == nil {
			if !bytes.HasPrefix(sealed, []byte(Sealed)) {
				return sealed, i > 0, nil
			}
			continue
		}
		data, ok := bytes.CutPrefix(sealed, []byte(l.Prefix))
		if !ok {
			continue
		}
		plain, err := l.Cipher.Open(place, data)
		if err != nil {
			cause = fmt.Errorf("%w: %w", ErrSealed, err)
			continue
		}
		if s, tells := l.Cipher.(Staler); tells && s.Stale(data) {
			return plain, true, nil
		}
		return plain, i > 0, nil
	}
	return nil, false, fmt.Errorf("open %q: %w", place, cause)
}

// Staler is a Cipher whose own keys change: Stale says whether what it has sealed
// should be sealed anew.
type Staler interface{ Stale(sealed []byte) bool }
