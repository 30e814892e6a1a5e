package seccomp

import (
	"encoding/binary"
	"fmt"
)

// Classic BPF as seccomp allows it.
const (
	opLoad = 0x20 // LD W ABS
	opAnd  = 0x54 // ALU AND K
	opJa   = 0x05
	opJeq  = 0x15
	opJgt  = 0x25
	opJge  = 0x35
	opRet  = 0x06
)

// maxInstructions is the kernel's BPF_MAXINSNS.
const maxInstructions = 4096

// reach is how far a conditional jump is let go; the kernel's limit is 255, and
// the jump's own trampolines may come in between.
const reach = 250

// label is a position counted from the end of the program.
type label int

type instruction struct {
	op     uint16
	jt, jf uint8
	k      uint32
}

// assembler builds a program from its end, so that every jump knows its target.
// What is emitted falls through to what was emitted just before it.
type assembler struct {
	rev  []instruction
	rets map[uint32]label
}

func (a *assembler) emit(i instruction) label {
	a.rev = append(a.rev, i)
	return label(len(a.rev) - 1)
}

// ret returns the label of "return value", a fresh one when the last is far.
func (a *assembler) ret(value uint32) label {
	if l, ok := a.rets[value]; ok && len(a.rev)-int(l) < reach {
		return l
	}
	l := a.emit(instruction{op: opRet, k: value})
	a.rets[value] = l
	return l
}

// near returns a label that a conditional jump emitted next can reach.
func (a *assembler) near(l label) label {
	if len(a.rev)-int(l) <= reach {
		return l
	}
	if i := a.rev[l]; i.op == opRet {
		return a.ret(i.k)
	}
	return a.emit(instruction{op: opJa, k: uint32(len(a.rev) - int(l) - 1)})
}

// jump emits a comparison of the accumulator with k.
func (a *assembler) jump(op uint16, k uint32, yes, no label) label {
	yes = a.near(yes)
	no = a.near(no)
	n := len(a.rev)
	return a.emit(instruction{op: op, k: k, jt: uint8(n - int(yes) - 1), jf: uint8(n - int(no) - 1)})
}

// load emits a load of a word of struct seccomp_data; it falls through to the
// instruction emitted last.
func (a *assembler) load(offset uint32) label { return a.emit(instruction{op: opLoad, k: offset}) }

// code is the program as the kernel wants it, in this machine's byte order
// (little-endian on every machine that we are built for).
func (a *assembler) code() ([]byte, error) {
	if len(a.rev) > maxInstructions {
		return nil, fmt.Errorf("filter has %d instructions, the kernel takes %d", len(a.rev), maxInstructions)
	}
	out := make([]byte, 0, len(a.rev)*8)
	for n := len(a.rev) - 1; n >= 0; n-- {
		i := a.rev[n]
		out = binary.LittleEndian.AppendUint16(out, i.op)
		out = append(out, i.jt, i.jf)
		out = binary.LittleEndian.AppendUint32(out, i.k)
	}
	return out, nil
}
