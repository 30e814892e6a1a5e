package seccomp

import (
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"sync"

	specs "github.com/opencontainers/runtime-spec/specs-go"
)

// maxPrograms is how many compiled profiles a Cache keeps; a node has a handful.
const maxPrograms = 64

// Cache compiles each profile once. The zero value is ready, and safe for
// concurrent use.
type Cache struct {
	mu    sync.Mutex
	progs map[[sha256.Size]byte]*Program
}

// Compile is Compile, remembered.
func (c *Cache) Compile(p *specs.LinuxSeccomp) (*Program, error) {
	key := fingerprint(p)
	c.mu.Lock()
	defer c.mu.Unlock()
	if prog, ok := c.progs[key]; ok {
		return prog, nil
	}
	prog, err := Compile(p)
	if err != nil {
		return nil, err
	}
	if c.progs == nil || len(c.progs) >= maxPrograms {
		c.progs = map[[sha256.Size]byte]*Program{}
	}
	c.progs[key] = prog
	return prog, nil
}

func fingerprint(p *specs.LinuxSeccomp) (sum [sha256.Size]byte) {
	h := sha256.New()
	fmt.Fprintln(h, p.DefaultAction, number(p.DefaultErrnoRet), p.Architectures, p.Flags, p.Flags == nil)
	for i := range p.Syscalls {
		s := &p.Syscalls[i]
		h.Write([]byte(string(s.Action) + " " + number(s.ErrnoRet)))
		for _, n := range s.Names {
			h.Write([]byte(" " + n))
		}
		for _, a := range s.Args {
			h.Write([]byte("\t" + string(a.Op)))
			var b [24]byte
			binary.LittleEndian.PutUint64(b[:], uint64(a.Index))
			binary.LittleEndian.PutUint64(b[8:], a.Value)
			binary.LittleEndian.PutUint64(b[16:], a.ValueTwo)
			h.Write(b[:])
		}
		h.Write([]byte{'\n'})
	}
	h.Sum(sum[:0])
	return sum
}

func number(n *uint) string {
	if n == nil {
		return "-"
	}
	return fmt.Sprint(*n)
}
