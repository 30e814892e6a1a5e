package pressure

import (
	"os"
	"strconv"
	"strings"
)

// Flows is how many connections the kernel tracks, and of how many at most: beyond that it
// drops new ones, and says so in its own log alone.
type Flows struct{ Now, Max int64 }

// Flows reads them; there are none to read where nothing tracks connections.
func (m Machine) Flows() (Flows, bool) {
	now, err1 := m.number("sys/net/netfilter/nf_conntrack_count")
	most, err2 := m.number("sys/net/netfilter/nf_conntrack_max")
	return Flows{now, most}, err1 == nil && err2 == nil && most > 0
}

func (m Machine) number(path string) (int64, error) {
	raw, err := os.ReadFile(m.path(path))
	if err != nil {
		return 0, err
	}
	return strconv.ParseInt(strings.TrimSpace(string(raw)), 10, 64)
}

const (
	// crowded and sparse are the parts of the table, in tenths, from which on it is told of,
	// and below which it may be told of again.
	crowded, sparse = 9, 7
)

// Crowd remembers whether it has been told of a table that is nearly full.
type Crowd struct{ told bool }

// Judge says whether to tell now.
func (c *Crowd) Judge(f Flows) bool {
	switch {
	case !c.told && f.Now*10 >= f.Max*crowded:
		c.told = true
		return true
	case f.Now*10 < f.Max*sparse:
		c.told = false
	}
	return false
}
