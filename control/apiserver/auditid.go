package apiserver

import (
	"encoding/hex"
	"math/rand/v2"
)

// auditID names a request: a random UUID. Nothing is safe because nobody can guess
// it, so that no system call need be made for it.
func auditID() string {
	var raw [16]byte
	for i, n := range [2]uint64{rand.Uint64(), rand.Uint64()} {
		for j := range 8 {
			raw[8*i+j] = byte(n >> (8 * j))
		}
	}
	raw[6] = raw[6]&0x0f | 0x40 // version 4
	raw[8] = raw[8]&0x3f | 0x80 // of RFC 9562
	var text [36]byte
	at := 0
	for i, part := range [5][]byte{raw[:4], raw[4:6], raw[6:8], raw[8:10], raw[10:]} {
		if i > 0 {
			text[at] = '-'
			at++
		}
		at += hex.Encode(text[at:], part)
	}
	return string(text[:])
}
