package dns

import (
	"container/list"
	"sync"
	"time"

	wire "github.com/miekg/dns"
)

// Limits of what is remembered of other people's names.
const (
	// maxCache bounds the bytes of all answers together.
	maxCache = 8 << 20
	// overhead is what an answer costs besides its own bytes.
	overhead = 256
	// An answer is believed for as long as it says, within bounds; that a name
	// does not exist, for less.
	maxPositive = time.Hour
	maxNegative = 5 * time.Minute
	minBelieved = time.Second
	// maxStale is for how long beyond that it is given while no upstream server
	// answers; staleTTL is what is said of it (RFC 8767).
	maxStale = 24 * time.Hour
	staleTTL = 5
)

// key is a question.
type key struct {
	name string // canonical
	kind uint16
}

// cache keeps the answers used last. It may be used concurrently.
type cache struct {
	mu    sync.Mutex
	items map[key]*list.Element
	order *list.List // of *item, the one used last in front
	bytes int
}

type item struct {
	key    key
	packed []byte
	stored time.Time
	until  time.Time
}

func newCache() *cache { return &cache{items: map[key]*list.Element{}, order: list.New()} }

// get finds an answer and tells whether it is still fresh.
func (c *cache) get(k key) (m *wire.Msg, fresh bool) {
	c.mu.Lock()
	e, ok := c.items[k]
	if !ok {
		c.mu.Unlock()
		return nil, false
	}
	it := e.Value.(*item)
	now := time.Now()
	if now.After(it.until.Add(maxStale)) {
		c.drop(e)
		c.mu.Unlock()
		return nil, false
	}
	c.order.MoveToFront(e)
	c.mu.Unlock()

	m = new(wire.Msg)
	if m.Unpack(it.packed) != nil {
		return nil, false
	}
	fresh = now.Before(it.until)
	age := uint32(now.Sub(it.stored) / time.Second)
	for _, rrs := range [][]wire.RR{m.Answer, m.Ns, m.Extra} {
		for _, rr := range rrs {
			h := rr.Header()
			switch {
			case !fresh:
				h.Ttl = staleTTL
			case h.Ttl > age:
				h.Ttl -= age
			default:
				h.Ttl = 0
			}
		}
	}
	return m, fresh
}

// put remembers m; it must have been cleaned.
func (c *cache) put(k key, m *wire.Msg) {
	ttl := believed(m)
	if ttl == 0 {
		return
	}
	packed, err := m.Pack()
	if err != nil || len(packed) > maxCache/64 {
		return
	}
	now := time.Now()
	c.mu.Lock()
	defer c.mu.Unlock()
	if e, ok := c.items[k]; ok {
		c.drop(e)
	}
	c.items[k] = c.order.PushFront(&item{k, packed, now, now.Add(ttl)})
	c.bytes += len(packed) + len(k.name) + overhead
	for c.bytes > maxCache {
		c.drop(c.order.Back())
	}
}

func (c *cache) drop(e *list.Element) {
	it := c.order.Remove(e).(*item)
	delete(c.items, it.key)
	c.bytes -= len(it.packed) + len(it.key.name) + overhead
}

// believed is for how long an answer is fresh; 0 when it is not to be kept.
// What does not exist is believed for as long as its zone's SOA says (RFC 2308).
func believed(m *wire.Msg) time.Duration {
	if m.Rcode != wire.RcodeSuccess && m.Rcode != wire.RcodeNameError || m.Truncated {
		return 0
	}
	ttl, known := maxPositive, false
	for _, rr := range m.Answer {
		ttl, known = min(ttl, time.Duration(rr.Header().Ttl)*time.Second), true
	}
	if !known || m.Rcode == wire.RcodeNameError {
		ttl, known = maxNegative, false
		for _, rr := range m.Ns {
			if soa, ok := rr.(*wire.SOA); ok {
				ttl, known = min(ttl, time.Duration(min(soa.Hdr.Ttl, soa.Minttl))*time.Second), true
			}
		}
	}
	if !known {
		return 0
	}
	return max(ttl, minBelieved)
}
