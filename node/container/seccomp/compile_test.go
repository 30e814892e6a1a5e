package seccomp

import (
	"encoding/binary"
	"strings"
	"testing"

	moby "github.com/moby/profiles/seccomp"
	specs "github.com/opencontainers/runtime-spec/specs-go"
)

// call is a system call as a filter sees it.
type call struct {
	arch uint32
	nr   uint32
	args [6]uint64
}

// word is the 32-bit word of struct seccomp_data at off.
func (c *call) word(off uint32) uint32 {
	switch {
	case off == dataNr:
		return c.nr
	case off == dataArch:
		return c.arch
	case off >= dataArgs:
		v := c.args[(off-dataArgs)/8]
		if off%8 == 4 {
			v >>= 32
		}
		return uint32(v)
	}
	panic("load of the instruction pointer")
}

// execute interprets a program as the kernel would.
func execute(t testing.TB, code []byte, c *call) uint32 {
	var acc uint32
	for pc := 0; ; pc++ {
		i := code[pc*8 : pc*8+8]
		op, jt, jf, k := binary.LittleEndian.Uint16(i), int(i[2]), int(i[3]), binary.LittleEndian.Uint32(i[4:])
		yes := false
		switch op {
		case opLoad:
			acc = c.word(k)
			continue
		case opAnd:
			acc &= k
			continue
		case opJa:
			pc += int(k)
			continue
		case opRet:
			return k
		case opJeq:
			yes = acc == k
		case opJgt:
			yes = acc > k
		case opJge:
			yes = acc >= k
		default:
			t.Fatalf("instruction %d: operation %#x", pc, op)
		}
		if yes {
			pc += jt
		} else {
			pc += jf
		}
	}
}

func x86(name string, args ...uint64) *call {
	c := &call{arch: arches[specs.ArchX86_64].audit, nr: numbers()[0][name]}
	copy(c.args[:], args)
	return c
}

func TestOperators(t *testing.T) {
	const big = 1 << 40
	tests := []struct {
		op         specs.LinuxSeccompOperator
		value, two uint64
		match, not []uint64
	}{
		{specs.OpEqualTo, big + 5, 0, []uint64{big + 5}, []uint64{5, big, big + 6, 2*big + 5}},
		{specs.OpNotEqual, big + 5, 0, []uint64{5, big, big + 6}, []uint64{big + 5}},
		{specs.OpLessThan, big + 5, 0, []uint64{0, 7, big, big + 4}, []uint64{big + 5, big + 6, 2 * big}},
		{specs.OpLessEqual, big + 5, 0, []uint64{0, 7, big + 5}, []uint64{big + 6, 2 * big}},
		{specs.OpGreaterThan, big + 5, 0, []uint64{big + 6, 2 * big}, []uint64{0, 7, big + 5}},
		{specs.OpGreaterEqual, big + 5, 0, []uint64{big + 5, big + 6, 2 * big}, []uint64{0, 7, big + 4}},
		{specs.OpMaskedEqual, big | 0xf0, big | 0x10, []uint64{big | 0x10, big | 0x1f, 3*big | 0x10}, []uint64{0x10, big, big | 0x30}},
	}
	for _, tt := range tests {
		p, err := Compile(&specs.LinuxSeccomp{DefaultAction: specs.ActErrno, Syscalls: []specs.LinuxSyscall{{
			Names: []string{"read"}, Action: specs.ActAllow,
			Args: []specs.LinuxSeccompArg{{Index: 2, Op: tt.op, Value: tt.value, ValueTwo: tt.two}},
		}}})
		if err != nil {
			t.Fatal(err)
		}
		for _, v := range tt.match {
			if got := execute(t, p.Code, x86("read", 0, 0, v)); got != retAllow {
				t.Errorf("%s %#x with %#x: %#x, want allow", tt.op, tt.value, v, got)
			}
		}
		for _, v := range tt.not {
			if got := execute(t, p.Code, x86("read", 0, 0, v)); got != retErrno|1 {
				t.Errorf("%s %#x with %#x: %#x, want EPERM", tt.op, tt.value, v, got)
			}
		}
	}
}

// Moby's whole profile, each system call of each architecture, against a plain
// reading of the rules.
func TestDefaultProfile(t *testing.T) {
	spec := &specs.Spec{Process: &specs.Process{Capabilities: &specs.LinuxCapabilities{Bounding: []string{"CAP_SYS_CHROOT"}}}}
	profile, err := moby.GetDefaultProfile(spec)
	if err != nil {
		t.Fatal(err)
	}
	p, err := Compile(profile)
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("%d instructions", len(p.Code)/8)
	const most = 350 // 1,246 before runs had exceptions and x32 was masked, 547 before neighbours were joined
	if n := len(p.Code) / 8; n > most {
		t.Errorf("%d instructions, want at most %d: the kernel translates them for each process", n, most)
	}
	for _, name := range []specs.Arch{specs.ArchX86_64, specs.ArchX86, specs.ArchX32} {
		number := uint32(0)
		if name == specs.ArchX32 {
			name, number = specs.ArchX86_64, x32Bit
		}
		table := numbers()[arches[name].column]
		newest := uint32(0)
		for _, s := range profile.Syscalls {
			for _, n := range s.Names {
				newest = max(newest, table[n])
			}
		}
		names := map[uint32]string{}
		for n, nr := range table {
			names[nr] = n
		}
		for nr := uint32(0); nr < newest+5; nr++ {
			for _, args := range [][6]uint64{{}, {0x10000000}, {8}, {40, 40, 40}, {0xffffffff, 0x7e020000}} {
				want := plainly(profile, names[nr], args)
				if nr > newest {
					want = retErrno | 38
				}
				if got := execute(t, p.Code, &call{arches[name].audit, nr | number, args}); got != want {
					t.Errorf("%s %s (%d) %x: %#x, want %#x", name, names[nr], nr, args, got, want)
				}
			}
		}
	}
	if got := execute(t, p.Code, &call{arch: 0xdead}); got != retKillProcess {
		t.Errorf("an unknown architecture: %#x", got)
	}
	if got := execute(t, p.Code, &call{arch: arches[specs.ArchX86_64].audit, nr: x32Bit | numbers()[0]["read"]}); got != retAllow {
		t.Errorf("read in x32: %#x", got)
	}
}

// plainly reads the rules one after the other.
func plainly(p *specs.LinuxSeccomp, name string, args [6]uint64) uint32 {
	for _, s := range p.Syscalls {
		for _, n := range s.Names {
			if n != name || !all(s.Args, args) {
				continue
			}
			ret, _ := action(s.Action, s.ErrnoRet)
			return ret
		}
	}
	ret, _ := action(p.DefaultAction, p.DefaultErrnoRet)
	return ret
}

func all(in []specs.LinuxSeccompArg, args [6]uint64) bool {
	for _, a := range in {
		v := args[a.Index]
		ok := map[specs.LinuxSeccompOperator]bool{
			specs.OpEqualTo: v == a.Value, specs.OpNotEqual: v != a.Value, specs.OpMaskedEqual: v&a.Value == a.ValueTwo,
			specs.OpLessThan: v < a.Value, specs.OpLessEqual: v <= a.Value,
			specs.OpGreaterThan: v > a.Value, specs.OpGreaterEqual: v >= a.Value,
		}[a.Op]
		if !ok {
			return false
		}
	}
	return true
}

func TestRefused(t *testing.T) {
	tests := map[string]*specs.LinuxSeccomp{
		"no default action":                      {},
		"cannot be the default action":           {DefaultAction: specs.ActNotify},
		"cannot be used for the write syscall":   {DefaultAction: specs.ActAllow, Syscalls: []specs.LinuxSyscall{{Names: []string{"write"}, Action: specs.ActNotify}}},
		"cannot be used for the sendmsg syscall": {DefaultAction: specs.ActAllow, Syscalls: []specs.LinuxSyscall{{Names: []string{"mkdir", "sendmsg"}, Action: specs.ActNotify}}},
		"six":                                    {DefaultAction: specs.ActAllow, Syscalls: []specs.LinuxSyscall{{Names: []string{"read"}, Action: specs.ActErrno, Args: []specs.LinuxSeccompArg{{Index: 6, Op: specs.OpEqualTo}}}}},
		"operator":                               {DefaultAction: specs.ActAllow, Syscalls: []specs.LinuxSyscall{{Names: []string{"read"}, Action: specs.ActErrno, Args: []specs.LinuxSeccompArg{{Op: "?"}}}}},
		"gives no error number":                  {DefaultAction: specs.ActAllow, DefaultErrnoRet: new(uint)},
		`"SCMP_ACT_KILL" gives no error number`:  {DefaultAction: specs.ActAllow, Syscalls: []specs.LinuxSyscall{{Names: []string{"read"}, Action: specs.ActKill, ErrnoRet: new(uint)}}},
		"architecture":                           {DefaultAction: specs.ActAllow, Architectures: []specs.Arch{specs.ArchMIPS, "?"}},
		"without listenerPath":                   {DefaultAction: specs.ActAllow, ListenerMetadata: "m"},
		"flag":                                   {DefaultAction: specs.ActAllow, Flags: []specs.LinuxSeccompFlag{"?"}},
	}
	for want, p := range tests {
		if _, err := Compile(p); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("error %v, want %q", err, want)
		}
	}
}

func TestNoRules(t *testing.T) {
	p, err := Compile(&specs.LinuxSeccomp{DefaultAction: specs.ActAllow})
	if err != nil {
		t.Fatal(err)
	}
	if got := execute(t, p.Code, x86("read")); got != retAllow {
		t.Errorf("read: %#x", got)
	}
	if got := execute(t, p.Code, &call{arch: arches[specs.ArchX86_64].audit, nr: x32Bit}); got != retErrno|38 {
		t.Errorf("x32 without x32: %#x", got)
	}
}

func TestCacheKnowsProfilesApart(t *testing.T) {
	var c Cache
	one := &specs.LinuxSeccomp{DefaultAction: specs.ActAllow, Syscalls: []specs.LinuxSyscall{{Names: []string{"read"}, Action: specs.ActErrno}}}
	two := &specs.LinuxSeccomp{DefaultAction: specs.ActAllow, Syscalls: []specs.LinuxSyscall{{Names: []string{"write"}, Action: specs.ActErrno}}}
	a, err := c.Compile(one)
	if err != nil {
		t.Fatal(err)
	}
	b, err := c.Compile(two)
	if err != nil {
		t.Fatal(err)
	}
	if again, err := c.Compile(one); err != nil || again != a || a == b {
		t.Errorf("compiled again, or taken for another: %v", err)
	}
}

func BenchmarkCompile(b *testing.B) {
	profile, err := moby.GetDefaultProfile(&specs.Spec{Process: &specs.Process{Capabilities: &specs.LinuxCapabilities{}}})
	if err != nil {
		b.Fatal(err)
	}
	for b.Loop() {
		if _, err := Compile(profile); err != nil {
			b.Fatal(err)
		}
	}
}
