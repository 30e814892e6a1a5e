// Package seccomp compiles the seccomp section of an OCI runtime spec to the
// classic BPF program that seccomp(2) loads. System calls are found by binary
// search, so that a profile of four hundred names costs ten comparisons.
//
// Where a profile refuses by default, system calls younger than every one that
// it names fail with ENOSYS, as runc has it: programs then fall back to an older
// call instead of failing for good.
package seccomp

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"syscall"

	specs "github.com/opencontainers/runtime-spec/specs-go"
)

// Offsets in struct seccomp_data.
const (
	dataNr   = 0
	dataArch = 4
	dataArgs = 16
)

// Return values of a filter.
const (
	retKillThread  = 0x00000000
	retKillProcess = 0x80000000
	retTrap        = 0x00030000
	retErrno       = 0x00050000
	retNotify      = 0x7fc00000
	retTrace       = 0x7ff00000
	retLog         = 0x7ffc0000
	retAllow       = 0x7fff0000
	retData        = 0x0000ffff
)

// Program is a compiled filter.
type Program struct {
	// Code is the BPF program, eight bytes an instruction.
	Code []byte
	// Flags are SECCOMP_FILTER_FLAG_* for seccomp(2).
	Flags uint32
	// Notifies says that it asks a listener about some calls: seccomp(2) gives that
	// listener's descriptor.
	Notifies bool
}

// Compile compiles a profile. A profile that is empty, or asks for something that
// cannot be done, is refused: never half a filter.
func Compile(p *specs.LinuxSeccomp) (*Program, error) {
	prog, err := compile(p)
	if err != nil {
		return nil, fmt.Errorf("seccomp profile: %w", err)
	}
	return prog, nil
}

func compile(p *specs.LinuxSeccomp) (*Program, error) {
	if p == nil || p.DefaultAction == "" {
		return nil, errors.New("no default action")
	}
	fallback, err := action(p.DefaultAction, p.DefaultErrnoRet)
	if err != nil {
		return nil, err
	}
	flags, err := filterFlags(p.Flags)
	if err != nil {
		return nil, err
	}
	notifies, err := asks(p)
	if err != nil {
		return nil, err
	}
	if notifies {
		const newListener = 8
		flags |= newListener
	}
	for _, name := range p.Architectures {
		if !knownArch(name) {
			return nil, fmt.Errorf("architecture %q is not known", name)
		}
	}
	wanted := slices.Concat(native()[:1], p.Architectures)
	a := &assembler{rets: map[uint32]label{}}
	next := a.ret(retKillProcess) // an architecture that the profile does not know
	for _, name := range native() {
		ar, ok := arches[name]
		if !ok || !slices.Contains(wanted, name) {
			continue
		}
		rules, err := collect(p.Syscalls, numbers()[ar.column])
		if err != nil {
			return nil, err
		}
		segments := segmentsOf(rules, fallback)
		mask := ^uint32(0)
		switch {
		case name != specs.ArchX86_64:
		case slices.Contains(wanted, specs.ArchX32): // the same numbers with one bit more
			mask = ^uint32(x32Bit)
		default: // a second set of numbers must not be a way around the first
			segments = append(segments, segment{start: x32Bit, ret: retErrno | uint32(syscall.ENOSYS)})
		}
		body := a.body(segments, mask)
		next = a.jump(opJeq, ar.audit, body, next)
	}
	a.load(dataArch)
	code, err := a.code()
	if err != nil {
		return nil, err
	}
	return &Program{Code: code, Flags: flags, Notifies: notifies}, nil
}

// asks says whether a profile has a listener asked about some calls. It cannot be asked
// about those that hand it its descriptor, or say that this has failed.
func asks(p *specs.LinuxSeccomp) (bool, error) {
	if p.DefaultAction == specs.ActNotify {
		return false, fmt.Errorf("%s cannot be the default action", specs.ActNotify)
	}
	if p.ListenerMetadata != "" && p.ListenerPath == "" {
		return false, errors.New("listenerMetadata without listenerPath")
	}
	notifies := false
	for i := range p.Syscalls {
		if p.Syscalls[i].Action != specs.ActNotify {
			continue
		}
		notifies = true
		for _, name := range p.Syscalls[i].Names {
			if name == "sendmsg" || name == "write" {
				return false, fmt.Errorf("%s cannot be used for the %s syscall", specs.ActNotify, name)
			}
		}
	}
	return notifies, nil
}

func filterFlags(in []specs.LinuxSeccompFlag) (uint32, error) {
	const tsync, log, specAllow, waitKillable = 1, 2, 4, 32
	if in == nil {
		return specAllow, nil
	}
	var out uint32
	for _, f := range in {
		switch f {
		case specs.LinuxSeccompFlagLog:
			out |= log
		case specs.LinuxSeccompFlagSpecAllow:
			out |= specAllow
		case specs.LinuxSeccompFlagWaitKillableRecv:
			out |= waitKillable
		case "SECCOMP_FILTER_FLAG_TSYNC": // one thread is all there is when the filter is loaded
		default:
			return 0, fmt.Errorf("flag %q is not known", f)
		}
	}
	return out &^ tsync, nil
}

func action(a specs.LinuxSeccompAction, errno *uint) (uint32, error) {
	data := uint32(syscall.EPERM)
	if errno != nil {
		if a != specs.ActErrno && a != specs.ActTrace { // config-linux.md, "errnoRet"
			return 0, fmt.Errorf("action %q gives no error number", a)
		}
		data = uint32(*errno) & retData
	}
	switch a {
	case specs.ActAllow:
		return retAllow, nil
	case specs.ActErrno:
		return retErrno | data, nil
	case specs.ActKill, specs.ActKillThread:
		return retKillThread, nil
	case specs.ActKillProcess:
		return retKillProcess, nil
	case specs.ActTrap:
		return retTrap, nil
	case specs.ActTrace:
		return retTrace | data, nil
	case specs.ActLog:
		return retLog, nil
	case specs.ActNotify:
		return retNotify, nil
	}
	return 0, fmt.Errorf("action %q is not supported", a)
}

// rule is what happens to a system call when all args match; none always match.
type rule struct {
	ret  uint32
	args []specs.LinuxSeccompArg
}

// collect sorts the rules by system call number. Names that this architecture has
// not got are left out.
func collect(in []specs.LinuxSyscall, numbers map[string]uint32) (map[uint32][]rule, error) {
	out := map[uint32][]rule{}
	for _, s := range in {
		ret, err := action(s.Action, s.ErrnoRet)
		if err != nil {
			return nil, err
		}
		for _, a := range s.Args {
			if a.Index > 5 {
				return nil, fmt.Errorf("argument %d of %q: a system call has six", a.Index, s.Names)
			}
			if _, err := compareOf(a.Op); err != nil {
				return nil, err
			}
		}
		for _, name := range s.Names {
			nr, ok := numbers[name]
			if !ok {
				continue
			}
			for _, args := range alternatives(s.Args) {
				out[nr] = append(out[nr], rule{ret, args})
			}
		}
	}
	return out, nil
}

// alternatives are the argument lists of a rule: all must match, except that two
// conditions on one argument are two ways to match (runc's reading of the spec).
func alternatives(args []specs.LinuxSeccompArg) [][]specs.LinuxSeccompArg {
	var seen [6]bool
	for _, a := range args {
		if seen[a.Index] {
			var out [][]specs.LinuxSeccompArg
			for _, one := range args {
				out = append(out, []specs.LinuxSeccompArg{one})
			}
			return out
		}
		seen[a.Index] = true
	}
	return [][]specs.LinuxSeccompArg{args}
}

// segment is a run of system call numbers, from start to the next segment, that
// are all decided alike.
type segment struct {
	start uint32
	ret   uint32
	rules []rule // conditional: decided by arguments
}

// span is a run of which some single numbers are excepted: to look for each of those
// takes one comparison, to tell a run of one from what is before and behind it two.
// The kernel takes 0.2 µs for each instruction that a process is given.
type span struct {
	segment
	but []segment
}

// maxExceptions bounds how many comparisons follow the search.
const maxExceptions = 6

// spansOf joins segments.
func spansOf(in []segment) []span {
	var out []span
	for i := 0; i < len(in); i++ {
		s := span{segment: in[i]}
		for ; s.rules == nil && len(s.but) < maxExceptions && i+2 < len(in); i += 2 {
			one, after := in[i+1], in[i+2]
			if after.start != one.start+1 || after.rules != nil || after.ret != s.ret {
				break
			}
			s.but = append(s.but, one)
		}
		out = append(out, s)
	}
	return out
}

// body emits the part for one architecture, whose numbers count without the bits that
// mask leaves out.
func (a *assembler) body(segments []segment, mask uint32) label {
	spans := spansOf(segments)
	labels := map[uint32]label{}
	for _, s := range segments {
		if s.rules != nil {
			labels[s.start] = a.conditional(s.rules, s.ret)
		}
	}
	root := a.search(spans, labels)
	if n := len(a.rev); int(root) != n-1 {
		a.emit(instruction{op: opJa, k: uint32(n - int(root) - 1)})
	}
	a.mask(mask)
	return a.load(dataNr)
}

// segmentsOf cuts the numbers into runs.
func segmentsOf(rules map[uint32][]rule, fallback uint32) []segment {
	out := []segment{{ret: fallback}}
	add := func(s segment) {
		if last := len(out) - 1; out[last].start == s.start { // no number was left for it
			out = out[:last]
		}
		if n := len(out); n > 0 && s.rules == nil && out[n-1].rules == nil && out[n-1].ret == s.ret {
			return
		}
		out = append(out, s)
	}
	nrs := slices.Sorted(maps.Keys(rules))
	for _, nr := range nrs {
		s := segment{start: nr, ret: fallback}
		for _, r := range rules[nr] {
			if len(r.args) == 0 { // unconditional: what comes after has no say
				s.ret = r.ret
				break
			}
			s.rules = append(s.rules, r)
		}
		add(s)
		add(segment{start: nr + 1, ret: fallback})
	}
	if len(nrs) > 0 {
		add(segment{start: nrs[len(nrs)-1] + 1, ret: unknown(fallback)})
	}
	return out
}

// unknown is what happens to system calls younger than the profile.
func unknown(fallback uint32) uint32 {
	switch fallback &^ retData {
	case retErrno, retKillThread, retKillProcess:
		return retErrno | uint32(syscall.ENOSYS)
	}
	return fallback
}

// search emits a binary search over the spans; labels are those of conditional
// numbers.
func (a *assembler) search(s []span, labels map[uint32]label) label {
	if len(s) == 1 {
		decided := a.decided(s[0].segment, labels)
		for _, one := range slices.Backward(s[0].but) {
			decided = a.jump(opJeq, one.start, a.decided(one, labels), decided)
		}
		return decided
	}
	mid := len(s) / 2
	high := a.search(s[mid:], labels)
	low := a.search(s[:mid], labels)
	return a.jump(opJge, s[mid].start, high, low)
}

// decided is where a run is decided.
func (a *assembler) decided(s segment, labels map[uint32]label) label {
	if s.rules != nil {
		return labels[s.start]
	}
	return a.ret(s.ret)
}

// conditional emits the rules of one system call; otherwise is for no match.
func (a *assembler) conditional(rules []rule, otherwise uint32) label {
	next := a.ret(otherwise)
	for _, r := range slices.Backward(rules) {
		match := a.ret(r.ret)
		for _, arg := range slices.Backward(r.args) {
			match = a.compare(arg, match, next)
		}
		next = match
	}
	return next
}

// comparison of 64 bits as two of 32.
type comparison struct {
	low     uint16 // of the low words when the high words are equal
	greater bool   // a greater high word decides
	negate  bool
}

func compareOf(op specs.LinuxSeccompOperator) (comparison, error) {
	switch op {
	case specs.OpEqualTo, specs.OpMaskedEqual:
		return comparison{low: opJeq}, nil
	case specs.OpNotEqual:
		return comparison{low: opJeq, negate: true}, nil
	case specs.OpGreaterEqual:
		return comparison{low: opJge, greater: true}, nil
	case specs.OpGreaterThan:
		return comparison{low: opJgt, greater: true}, nil
	case specs.OpLessThan:
		return comparison{low: opJge, greater: true, negate: true}, nil
	case specs.OpLessEqual:
		return comparison{low: opJgt, greater: true, negate: true}, nil
	}
	return comparison{}, fmt.Errorf("operator %q is not known", op)
}

func (a *assembler) compare(arg specs.LinuxSeccompArg, yes, no label) label {
	c, err := compareOf(arg.Op)
	if err != nil {
		return no // collect has refused it
	}
	if c.negate {
		yes, no = no, yes
	}
	value, mask := arg.Value, ^uint64(0)
	if arg.Op == specs.OpMaskedEqual {
		value, mask = arg.ValueTwo, arg.Value
	}
	low := uint32(dataArgs + 8*arg.Index)
	a.jump(c.low, uint32(value), yes, no)
	a.mask(uint32(mask))
	lowTest := a.load(low)
	high := a.jump(opJeq, uint32(value>>32), lowTest, no)
	if c.greater {
		a.jump(opJgt, uint32(value>>32), yes, high)
	}
	a.mask(uint32(mask >> 32))
	return a.load(low + 4)
}

func (a *assembler) mask(m uint32) {
	if m != ^uint32(0) {
		a.emit(instruction{op: opAnd, k: m})
	}
}
