package proxy

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"slices"

	"github.com/google/nftables"
	"github.com/google/nftables/expr"
	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"

	"github.com/sampan-dev/sampan/internal/netfilter"
)

// tableName is that of the nftables tables, one an address family.
const tableName = "sampan-proxy"

// Limits of one transaction.
const (
	// chunk is how many elements one message carries: an attribute's length is
	// sixteen bits, an element less than 160 bytes.
	chunk = 400
	// socketBuffer holds a whole transaction, for it must be sent as one:
	// 50,000 services are about 30 MiB.
	socketBuffer = 64 << 20
)

// layoutVersion changes whenever the fixed rules do.
const layoutVersion = "3"

// tables are the kernel's tables and what is in them. It belongs to one
// goroutine.
type tables struct {
	cfg      *Config
	families []uint8
	ns       int // file descriptor of the network namespace, 0 for the current one
	mark     string

	conn   *nftables.Conn
	have   map[slot]string
	chains map[uint8]map[string]bool
}

func openTables(cfg *Config, families []uint8, ns int) (*tables, error) {
	sum := sha256.Sum256(fmt.Append(nil, layoutVersion, cfg.PodCIDRs, cfg.Local, cfg.NodeIPs))
	t := &tables{cfg: cfg, families: families, ns: ns, mark: "layout-" + hex.EncodeToString(sum[:8])}
	return t, t.dial()
}

func (t *tables) dial() (err error) {
	t.conn, err = connect(t.ns)
	return err
}

func connect(ns int) (*nftables.Conn, error) {
	if err := netfilter.Check(); err != nil {
		return nil, err
	}
	return nftables.New(nftables.WithNetNSFd(ns), nftables.AsLasting(), nftables.WithSockOptions(func(c *netlink.Conn) error {
		return errors.Join(c.SetWriteBuffer(socketBuffer), c.SetReadBuffer(socketBuffer))
	}))
}

func (t *tables) close() error { return t.conn.CloseLasting() }

// read learns what is in the kernel. A table that this version did not make is
// treated as missing: write replaces it.
func (t *tables) read() error {
	have, chains := map[slot]string{}, map[uint8]map[string]bool{}
	for _, family := range t.families {
		names, err := t.readChains(family)
		if err != nil {
			return err
		}
		if !names[t.mark] {
			continue
		}
		chains[family] = names
		l := layoutOf(family)
		sets := l.sets(&nftables.Table{Name: tableName, Family: l.family})
		for s := range numSets {
			elements, err := t.conn.GetSetElements(sets[setNames[s]])
			if err != nil {
				return t.failed(fmt.Errorf("read set %q: %w", setNames[s], err))
			}
			for _, e := range elements {
				have[slot{family, s, string(e.Key)}] = valueOf(s, e)
			}
		}
	}
	t.have, t.chains = have, chains
	return nil
}

func (t *tables) readChains(family uint8) (map[string]bool, error) {
	all, err := t.conn.ListChainsOfTableFamily(layoutOf(family).family)
	if err != nil {
		return nil, t.failed(fmt.Errorf("list chains: %w", err))
	}
	names := map[string]bool{}
	for _, c := range all {
		if c.Table.Name == tableName {
			names[c.Name] = true
		}
	}
	return names, nil
}

func valueOf(s set, e nftables.SetElement) string {
	switch {
	case s == setAllowed:
		return string(e.KeyEnd)
	case s.verdictMap():
		return verdictChain(e.Val)
	}
	return string(e.Val)
}

// verdictChain finds the chain's name in the attributes of a verdict, which the
// library leaves as they are.
func verdictChain(b []byte) string {
	for len(b) >= 4 {
		n, kind := int(binary.NativeEndian.Uint16(b)), binary.NativeEndian.Uint16(b[2:])
		if n < 4 || n > len(b) {
			break
		}
		if kind&^unix.NLA_F_NESTED == unix.NFTA_VERDICT_CHAIN {
			return string(bytes.TrimRight(b[4:n], "\x00"))
		}
		b = b[min(len(b), (n+3)&^3):]
	}
	return ""
}

// failed makes the connection anew, since answers to the rest of a batch may
// still be on their way, and forgets what was known.
func (t *tables) failed(err error) error {
	t.have, t.chains = nil, nil
	t.conn.CloseLasting()
	return errors.Join(err, t.dial())
}

// complete tells whether all tables are known to be there.
func (t *tables) complete() bool { return t.have != nil && len(t.chains) == len(t.families) }

// write makes one transaction of everything: missing tables, missing chains,
// and the changes of elements. On failure nothing has changed, and read must
// come before the next write. A new table is finished by a second one: see finish.
func (t *tables) write(del, add []element) error {
	for _, family := range t.families {
		if err := t.writeFamily(family, of(del, family), of(add, family)); err != nil {
			return t.failed(err)
		}
	}
	if err := t.conn.Flush(); err != nil {
		return t.failed(fmt.Errorf("write table %q: %w", tableName, t.why(err)))
	}
	if err := t.finish(); err != nil {
		return t.failed(fmt.Errorf("finish table %q: %w", tableName, t.why(err)))
	}
	for _, e := range del {
		delete(t.have, e.slot)
	}
	for _, e := range add {
		t.have[e.slot] = e.value
	}
	return nil
}

// why adds to a refusal what the kernel lacks, if that is why.
func (t *tables) why(err error) error {
	var families []nftables.TableFamily
	for _, f := range t.families {
		families = append(families, layoutOf(f).family)
	}
	return netfilter.Why(err, t.ns, families...)
}

// finish adds to new tables what the library has no words for, and their mark: a table
// without it is made anew.
func (t *tables) finish() error {
	for _, family := range t.families {
		if t.chains[family][t.mark] {
			continue
		}
		b := t.builder(family)
		if err := b.addMasquerade(t.ns, chainPostrouting); err != nil {
			return err
		}
		b.chain(t.mark)
		if err := t.conn.Flush(); err != nil {
			return err
		}
		t.chains[family][t.mark] = true
	}
	return nil
}

func (t *tables) builder(family uint8) builder {
	l := layoutOf(family)
	table := &nftables.Table{Name: tableName, Family: l.family}
	return builder{layout: l, conn: t.conn, table: table, sets: l.sets(table)}
}

func of(elements []element, family uint8) []element {
	return slices.DeleteFunc(slices.Clone(elements), func(e element) bool { return e.family != family })
}

func (t *tables) writeFamily(family uint8, del, add []element) error {
	b := t.builder(family)
	if t.chains[family] == nil {
		t.conn.AddTable(b.table) // so that deleting it cannot fail
		t.conn.DelTable(b.table)
		t.conn.AddTable(b.table)
		if err := b.build(t.cfg); err != nil {
			return err
		}
		t.chains[family] = map[string]bool{chainReject: true, chainDrop: true}
	}
	for _, e := range add {
		if c, ok := parseChain(e.value); ok && e.set.verdictMap() && !t.chains[family][e.value] {
			b.picker(c)
			t.chains[family][e.value] = true
		}
	}
	if err := bySet(del, b.sets, t.conn.SetDeleteElements); err != nil {
		return err
	}
	return bySet(add, b.sets, t.conn.SetAddElements)
}

// bySet hands over the elements in messages of bearable size.
func bySet(elements []element, sets map[string]*nftables.Set, do func(*nftables.Set, []nftables.SetElement) error) error {
	var each [numSets][]nftables.SetElement
	for _, e := range elements {
		each[e.set] = append(each[e.set], encode(e))
	}
	for s, all := range each {
		for part := range slices.Chunk(all, chunk) {
			if err := do(sets[setNames[s]], part); err != nil {
				return fmt.Errorf("set %q: %w", setNames[s], err)
			}
		}
	}
	return nil
}

func encode(e element) nftables.SetElement {
	out := nftables.SetElement{Key: []byte(e.key)}
	switch {
	case e.set == setAllowed:
		out.KeyEnd = []byte(e.value)
	case e.set.verdictMap():
		out.VerdictData = &expr.Verdict{Kind: expr.VerdictGoto, Chain: e.value}
	default:
		out.Val = []byte(e.value)
	}
	return out
}

// removeTables deletes both families' tables, there or not.
func removeTables(ns int) error {
	conn, err := connect(ns)
	if err != nil {
		return err
	}
	defer conn.CloseLasting()
	for _, family := range []nftables.TableFamily{nftables.TableFamilyIPv4, nftables.TableFamilyIPv6} {
		t := &nftables.Table{Name: tableName, Family: family}
		conn.AddTable(t)
		conn.DelTable(t)
	}
	if err := conn.Flush(); err != nil {
		return fmt.Errorf("remove table %q: %w", tableName, err)
	}
	return nil
}
