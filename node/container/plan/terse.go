package plan

import (
	"encoding/binary"
	"errors"
)

// A probe asks for a brief exec every few seconds, in each container that has one, and
// encoding and decoding it as JSON took longer than the kernel takes to carry it. What
// such a request says are three strings; what it is answered is a number, or why not.

// terseMark is the first byte of a terse message. JSON never begins with it.
const terseMark = 'x'

// Flags of a terse answer.
const (
	terseStage = 1 << iota
	terseError
)

// errTerse says that a terse message is cut off, or is none.
var errTerse = errors.New("decode keeper message: not a terse one")

// terse is v as a terse message, nil for whatever is not written as one.
func terse(v any) []byte {
	switch v := v.(type) {
	case Request:
		if v.Terse && v.Child != nil {
			return terseStrings([]byte{terseMark}, v.ID, v.Child.PIDNS, v.Child.Cgroup)
		}
	case Answer:
		if !v.Terse {
			return nil
		}
		flags, code := byte(0), v.Code
		if v.Stage {
			flags |= terseStage
		}
		if v.Exit != nil {
			code = v.Exit.Code
		} else {
			flags |= terseError
		}
		return terseStrings(binary.AppendVarint([]byte{terseMark, flags}, int64(code)), v.Error)
	}
	return nil
}

func terseStrings(b []byte, all ...string) []byte {
	for _, s := range all {
		b = append(binary.AppendUvarint(b, uint64(len(s))), s...)
	}
	return b
}

// decodeTerse reads what is behind the mark.
func decodeTerse(b []byte, v any) error {
	switch v := v.(type) {
	case *Request:
		*v = Request{Version: Version, Op: ExecIn, Brief: true, List: true, Terse: true, Child: &Child{}}
		return readTerse(b, &v.ID, &v.Child.PIDNS, &v.Child.Cgroup)
	case *Answer:
		if len(b) == 0 {
			return errTerse
		}
		code, n := binary.Varint(b[1:])
		if n <= 0 {
			return errTerse
		}
		*v = Answer{Version: Version, Terse: true, Stage: b[0]&terseStage != 0}
		if b[0]&terseError != 0 {
			v.Code = int(code)
		} else {
			v.Exit = &Exit{Code: int(code)}
		}
		return readTerse(b[1+n:], &v.Error)
	}
	return errTerse
}

// readTerse reads strings, and wants nothing to be left.
func readTerse(b []byte, into ...*string) error {
	for _, s := range into {
		size, n := binary.Uvarint(b)
		if n <= 0 || size > uint64(len(b)-n) {
			return errTerse
		}
		*s = string(b[n : n+int(size)])
		b = b[n+int(size):]
	}
	if len(b) > 0 {
		return errTerse
	}
	return nil
}
