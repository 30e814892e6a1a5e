package atrest

import (
	"errors"
	"fmt"
	"maps"
	"slices"

	"google.golang.org/protobuf/encoding/protowire"
)

// envelope is what lies in the store behind a KMS v2 provider's prefix: upstream's
// message EncryptedObject.
type envelope struct {
	data   []byte
	keyID  string
	source []byte // the seed, as the plugin has encrypted it
	notes  map[string][]byte
	// seeded: the source is a seed that keys are derived from, as everything that
	// is written; otherwise it is the key itself.
	seeded bool
}

// The fields of EncryptedObject.
const (
	fieldData = iota + 1
	fieldKeyID
	fieldSource
	fieldNotes
	fieldSeeded
)

func (e *envelope) encode() []byte {
	out := make([]byte, 0, len(e.data)+len(e.source)+len(e.keyID)+64)
	out = appendBytes(out, fieldData, e.data)
	return e.appendHead(out)
}

func (e *envelope) appendHead(out []byte) []byte {
	out = appendBytes(out, fieldKeyID, []byte(e.keyID))
	out = appendBytes(out, fieldSource, e.source)
	for _, k := range slices.Sorted(maps.Keys(e.notes)) {
		out = appendBytes(out, fieldNotes, appendBytes(appendBytes(nil, 1, []byte(k)), 2, e.notes[k]))
	}
	if e.seeded {
		out = protowire.AppendTag(out, fieldSeeded, protowire.VarintType)
		out = protowire.AppendVarint(out, 1)
	}
	return out
}

// id tells one seed from all others.
func (e *envelope) id() string { return string(e.appendHead(nil)) }

func appendBytes(out []byte, number protowire.Number, v []byte) []byte {
	return protowire.AppendBytes(protowire.AppendTag(out, number, protowire.BytesType), v)
}

// decode reads an envelope. Its data is part of raw.
func decode(raw []byte) (*envelope, error) {
	e := &envelope{}
	err := fields(raw, func(number protowire.Number, v []byte, n uint64) error {
		switch number {
		case fieldData:
			e.data = v
		case fieldKeyID:
			e.keyID = string(v)
		case fieldSource:
			e.source = v
		case fieldNotes:
			return e.note(v)
		case fieldSeeded:
			if n > 1 {
				return fmt.Errorf("unknown encryptedDEKSourceType: %d", n)
			}
			e.seeded = n == 1
		}
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("envelope: %w", err)
	}
	if len(e.data) == 0 {
		return nil, errors.New("envelope: encrypted data is empty")
	}
	return e, e.check()
}

func (e *envelope) note(raw []byte) error {
	var key string
	var value []byte
	err := fields(raw, func(number protowire.Number, v []byte, _ uint64) error {
		switch number {
		case 1:
			key = string(v)
		case 2:
			value = v
		}
		return nil
	})
	if e.notes == nil {
		e.notes = map[string][]byte{}
	}
	e.notes[key] = value
	return err
}

// fields calls f for each field with its bytes or its number.
func fields(raw []byte, f func(number protowire.Number, v []byte, n uint64) error) error {
	for len(raw) > 0 {
		number, kind, n := protowire.ConsumeTag(raw)
		if n < 0 {
			return protowire.ParseError(n)
		}
		raw = raw[n:]
		var v []byte
		var x uint64
		switch kind {
		case protowire.BytesType:
			v, n = protowire.ConsumeBytes(raw)
		case protowire.VarintType:
			x, n = protowire.ConsumeVarint(raw)
		default:
			n = protowire.ConsumeFieldValue(number, kind, raw)
		}
		if n < 0 {
			return protowire.ParseError(n)
		}
		raw = raw[n:]
		if err := f(number, v, x); err != nil {
			return err
		}
	}
	return nil
}
