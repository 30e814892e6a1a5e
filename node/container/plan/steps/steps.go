// Package steps makes the little programs that become a container's processes: a
// list of system calls, and a loop over it of a hundred instructions, as an
// executable file.
//
// What the first process of a container has to do between its fork and its
// program, it can be told beforehand: namespaces, mounts, credentials, filters. A
// runtime of a language is of no use to it, and the start of one costs more than
// all that it does. Such a program has a memory of its own with nothing in it but
// its list, one thread (which entering a user namespace requires), and is nobody's
// file: it is written into memory for one process, or sealed there for those that a
// probe makes in one container again and again, and nobody else executes it.
//
// What needs a decision on the way, no list can say: then New, Exec and Pause
// return ErrStage, and the keeper starts itself as a stage, which can do anything.
// A list that fails before it has said Ready is no error either: the stage does
// it again, and finds the words for what is wrong.
package steps

import (
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"unsafe"

	"github.com/sampan-dev/sampan/node/container/plan"
)

// ErrStage says that a list of calls is not enough: this takes a stage.
var ErrStage = errors.New("this takes a stage")

// The descriptors of a little program after its stdio. Self is how it is executed.
const (
	Control = 3
	// Self is the program's own file, and Target the pidfd of the container that an
	// Exec goes into, or the mount namespace that a bare Init begins with.
	Self   = 4
	Target = 5
)

// Where the parts of a little program are loaded.
const (
	codeAddress = 0x400000
	listAddress = 0x600000
	dataAddress = 0x800000
	// scratch is memory for what comes from outside.
	scratchAddress = dataAddress + maxData
	scratchSize    = maxGo + pageSize
	pageSize       = 0x1000
	headersSize    = 64 + 4*56
)

// maxEntries and maxData bound a list: a container may have many mounts, but not
// so many that the parts of its program overlap.
const (
	maxEntries = 8192
	maxData    = 8 << 20
)

// What an ordinary container needs, and any other process.
const (
	initEntries, initData   = 768, 32 << 10
	otherEntries, otherData = 128, 8 << 10
)

// entry is one system call, or one of the operations that are none, as the loop
// reads it. The loop knows the offsets: see loop_linux_amd64.s.
type entry struct {
	Nr       int64
	Args     [6]uint64
	Indirect uint64 // one bit for each argument that is the address of the value
	Message  uint64 // what to report when it fails
	Length   uint64
	Errors   [2]int64 // errors that go on at Bad; allErrors for any
	Bad, OK  uint64   // addresses of entries
	Store    uint64   // where the result goes
	Check    uint64
}

const entrySize = 128

// Operations that are no system calls: SET gives its first argument as the result,
// and UNLESS goes to Bad when that is zero.
const (
	opSet    = -1
	opUnless = -2
)

const allErrors = -1

// Checks of a result.
const (
	// checkAbsolute wants the first argument to point at a slash.
	checkAbsolute = 1
	// checkSome ends the process without a word when the result is zero.
	checkSome = 2
)

// value is an argument: a number, or what is found at an address by then.
type value struct {
	n        uint64
	indirect bool
}

// slot is the address of a result.
type slot uint64

func n(i int) value          { return value{n: uint64(i)} }
func u(i uint64) value       { return value{n: i} }
func (s slot) value() value  { return value{uint64(s), true} }
func address(a uint64) value { return value{n: a} }

// list collects the calls and their data.
type list struct {
	entries []entry
	data    []byte
	// message is what the entries that follow report.
	message, length uint64
	strings         map[string]uint64
	err             error
}

func newList(entries, data int) *list {
	l := &list{strings: map[string]uint64{}, entries: make([]entry, 0, entries), data: make([]byte, 0, data)}
	l.say("", 0)
	return l
}

// say sets the words for the calls that follow. Without words a failure means
// that a stage has to find them.
func (l *list) say(what string, code int) {
	text, err := json.Marshal(what) // the words alone: encoding the whole report costs much more
	if err != nil {
		l.fail(err)
		return
	}
	b := fmt.Appendf(nil, `{"Error":%s,"Code":%d,"Numbers":true}`, text, code)
	b = append(b, make([]byte, plan.ReportNumbers)...) // the loop fills them in
	l.message, l.length = l.put(b), uint64(len(b))
}

func (l *list) fail(err error) {
	if l.err == nil {
		l.err = err
	}
}

// put adds bytes to the data, aligned, and returns their address.
func (l *list) put(b []byte) uint64 {
	for len(l.data)%8 != 0 {
		l.data = append(l.data, 0)
	}
	at := dataAddress + uint64(len(l.data))
	if l.data = append(l.data, b...); len(l.data) > maxData {
		l.fail(fmt.Errorf("%w: %d bytes of data", ErrStage, len(l.data)))
	}
	return at
}

// str is the address of a string that no call changes.
func (l *list) str(s string) value {
	at, ok := l.strings[s]
	if !ok {
		for i := range len(s) {
			if s[i] == 0 {
				l.fail(fmt.Errorf("%w: %q has a NUL", ErrStage, s))
			}
		}
		at = l.put(append([]byte(s), 0))
		l.strings[s] = at
	}
	return address(at)
}

// words is an array of numbers that no call changes.
func (l *list) words(all ...uint64) value {
	b := make([]byte, 0, 8*len(all))
	for _, w := range all {
		b = binary.LittleEndian.AppendUint64(b, w)
	}
	at, ok := l.strings["\x00"+string(b)]
	if !ok {
		at = l.put(b)
		l.strings["\x00"+string(b)] = at
	}
	return address(at)
}

func (l *list) strs(all []string, more ...uint64) value {
	b := make([]byte, 0, 8*(len(all)+len(more)+1))
	for _, s := range all {
		b = binary.LittleEndian.AppendUint64(b, l.str(s).n)
	}
	for _, at := range more {
		b = binary.LittleEndian.AppendUint64(b, at)
	}
	return address(l.put(append(b, make([]byte, 8)...)))
}

func (l *list) slot() slot { return slot(l.put(make([]byte, 8))) }

// do appends a call.
func (l *list) do(nr int64, args ...value) ref {
	e := entry{Nr: nr, Message: l.message, Length: l.length}
	for i, a := range args {
		e.Args[i] = a.n
		if a.indirect {
			e.Indirect |= 1 << i
		}
	}
	if len(l.entries) >= maxEntries-1 {
		l.fail(fmt.Errorf("%w: more than %d system calls", ErrStage, maxEntries))
		return ref{l, len(l.entries) - 1}
	}
	l.entries = append(l.entries, e)
	return ref{l, len(l.entries) - 1}
}

// sys appends a system call.
func (l *list) sys(nr uintptr, args ...value) ref { return l.do(int64(nr), args...) }

// ref names an entry of a list.
type ref struct {
	l *list
	i int
}

func (r ref) entry() *entry { return &r.l.entries[r.i] }

// into keeps the result.
func (r ref) into(s slot) ref {
	r.entry().Store = uint64(s)
	return r
}

// keep keeps the result in a slot of its own.
func (r ref) keep() value {
	s := r.l.slot()
	r.into(s)
	return s.value()
}

// unless goes on after the errors: with the next entry, or where toBad says.
func (r ref) unless(errs ...int64) ref {
	copy(r.entry().Errors[:], errs)
	return r
}

func (r ref) mayFail() ref { return r.unless(allErrors) }

func (r ref) check(what uint64) ref {
	r.entry().Check = what
	return r
}

// place is the number of the next entry.
func (l *list) place() uint64 { return listAddress + uint64(len(l.entries))*entrySize }

// badHere and okHere send a tolerated error, or a success, to the next entry.
func (r ref) badHere() { r.entry().Bad = r.l.place() }
func (r ref) okHere()  { r.entry().OK = r.l.place() }

// file is the program. Its last call is one that does not return.
func (l *list) file() ([]byte, error) {
	code := loopCode()
	if len(code) == 0 {
		return nil, fmt.Errorf("%w: no loop for this architecture", ErrStage)
	}
	if l.err != nil {
		return nil, l.err
	}
	for i := range l.entries {
		e := &l.entries[i]
		next := listAddress + uint64(i+1)*entrySize
		if e.OK == 0 {
			e.OK = next
		}
		if e.Bad == 0 {
			e.Bad = next
		}
	}
	// The loop, where there is one, reads entries as they lie in memory here.
	list := unsafe.Slice((*byte)(unsafe.Pointer(unsafe.SliceData(l.entries))), len(l.entries)*entrySize)
	return elf(code, list, l.data), nil
}

// An entry has the size that the loop goes on by.
var _ [entrySize]byte = [unsafe.Sizeof(entry{})]byte{}

// elf is an executable of three parts and some empty memory, each at its address.
func elf(code, list, data []byte) []byte {
	le := binary.LittleEndian
	round := func(n int) int { return (n + pageSize - 1) &^ (pageSize - 1) }
	listAt := round(headersSize + len(code))
	dataAt := listAt + round(len(list))
	out := make([]byte, 0, dataAt+len(data))
	out = append(out, "\x7fELF\x02\x01\x01\x00\x00\x00\x00\x00\x00\x00\x00\x00"...)
	out = le.AppendUint16(out, 2) // ET_EXEC
	out = le.AppendUint16(out, elfMachine)
	out = le.AppendUint32(out, 1)
	out = le.AppendUint64(out, codeAddress+headersSize)
	out = le.AppendUint64(out, 64) // program headers
	out = le.AppendUint64(out, 0)
	out = le.AppendUint32(out, 0)
	for _, n := range []uint16{64, 56, 4, 0, 0, 0} {
		out = le.AppendUint16(out, n)
	}
	segment := func(flags uint32, offset, address, size, memory int) {
		out = le.AppendUint32(out, 1) // PT_LOAD
		out = le.AppendUint32(out, flags)
		for _, n := range []int{offset, address, address, size, memory, pageSize} {
			out = le.AppendUint64(out, uint64(n))
		}
	}
	const executable, writable, readable = 1, 2, 4
	segment(readable|executable, 0, codeAddress, headersSize+len(code), headersSize+len(code))
	segment(readable, listAt, listAddress, len(list), len(list))
	segment(readable|writable, dataAt, dataAddress, len(data), len(data))
	segment(readable|writable, dataAt, scratchAddress, 0, scratchSize)
	out = append(out, code...)
	out = append(out[:listAt], list...)
	return append(out[:dataAt], data...)
}
