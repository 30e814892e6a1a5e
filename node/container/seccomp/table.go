package seccomp

import (
	_ "embed"
	"runtime"
	"strconv"
	"strings"
	"sync"

	specs "github.com/opencontainers/runtime-spec/specs-go"
)

//go:embed syscalls.txt
var syscallTable string

// x32Bit marks the system calls of the x32 ABI.
const x32Bit = 0x40000000

// arch is an architecture as the kernel's audit numbers it. x32 shares x86_64's.
type arch struct {
	audit  uint32
	column int
}

// arches are those that a filter can be compiled for. Others in a profile belong
// to other machines and are left out.
var arches = map[specs.Arch]arch{
	specs.ArchX86_64:  {0xc000003e, 0},
	specs.ArchX86:     {0x40000003, 1},
	specs.ArchAARCH64: {0xc00000b7, 2},
	specs.ArchARM:     {0x40000028, 3},
}

// knownArch says that the specification has an architecture, whether a filter can be
// compiled for it or not: profiles name those of other machines too.
func knownArch(name specs.Arch) bool {
	switch name {
	case specs.ArchX86, specs.ArchX86_64, specs.ArchX32, specs.ArchARM, specs.ArchAARCH64,
		specs.ArchMIPS, specs.ArchMIPS64, specs.ArchMIPS64N32, specs.ArchMIPSEL, specs.ArchMIPSEL64, specs.ArchMIPSEL64N32,
		specs.ArchPPC, specs.ArchPPC64, specs.ArchPPC64LE, specs.ArchS390, specs.ArchS390X,
		specs.ArchPARISC, specs.ArchPARISC64, specs.ArchRISCV64, specs.ArchLOONGARCH64, specs.ArchM68K, specs.ArchSH, specs.ArchSHEB:
		return true
	}
	return false
}

// native is the architecture of this machine, and those that it can also run.
func native() []specs.Arch {
	if runtime.GOARCH == "arm64" {
		return []specs.Arch{specs.ArchAARCH64, specs.ArchARM}
	}
	return []specs.Arch{specs.ArchX86_64, specs.ArchX86, specs.ArchX32}
}

// numbers are the system call numbers by column and name. Parsed once.
var numbers = sync.OnceValue(func() [4]map[string]uint32 {
	var out [4]map[string]uint32
	for i := range out {
		out[i] = make(map[string]uint32, 400)
	}
	for line := range strings.Lines(syscallTable) {
		f := strings.Fields(line)
		if len(f) != 5 || f[0] == "#" {
			continue
		}
		for i := range out {
			if n, err := strconv.ParseUint(f[i+1], 10, 32); err == nil {
				out[i][f[0]] = uint32(n)
			}
		}
	}
	return out
})
