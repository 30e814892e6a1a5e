package dns

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"os"
	"sync"
	"time"

	wire "github.com/miekg/dns"
	"golang.org/x/sync/singleflight"
)

// Limits of what is asked of upstream servers.
const (
	// maxWaiting bounds the questions that wait for upstream servers; more fail
	// at once, or get what was true before.
	maxWaiting = 1024
	// maxInFlight bounds the exchanges with upstream servers, a socket each.
	maxInFlight = 128
	// A server has perTry to answer, and a question maxTries. Together that is
	// less than the five seconds after which resolvers ask again.
	perTry   = 1500 * time.Millisecond
	maxTries = 3
	// A server that fails maxFailures times in a row is passed over for
	// penalty, unless all are.
	maxFailures = 2
	penalty     = 10 * time.Second
	// maxServers is how many lines of resolv.conf are looked at.
	maxServers = 6
	// lookEvery is how seldom resolv.conf is looked at for changes.
	lookEvery = 5 * time.Second
)

// forwarder asks upstream servers. It may be used concurrently.
type forwarder struct {
	path    string
	own     []netip.AddrPort // never asked: that would be a loop
	cache   *cache
	flights singleflight.Group
	waiting chan struct{}
	asking  chan struct{}

	mu      sync.Mutex
	looked  time.Time
	changed time.Time // modification time of what was read
	servers []*upstream
}

// upstream is a server; its fields belong to the forwarder's mutex.
type upstream struct {
	addr     string
	failures int
	until    time.Time // passed over before
}

func newForwarder(path string, own []netip.AddrPort) *forwarder {
	return &forwarder{path: path, own: own, cache: newCache(),
		waiting: make(chan struct{}, maxWaiting), asking: make(chan struct{}, maxInFlight)}
}

// wait takes one of the places to wait in, if there is one.
func (f *forwarder) wait() bool {
	select {
	case f.waiting <- struct{}{}:
		return true
	default:
		return false
	}
}

func (f *forwarder) waited() { <-f.waiting }

func keyOf(q wire.Question) key { return key{wire.CanonicalName(q.Name), q.Qtype} }

// cached answers without waiting: what is fresh, and while no server answers
// what was.
func (f *forwarder) cached(q wire.Question) (*wire.Msg, bool) {
	m, fresh := f.cache.get(keyOf(q))
	if m == nil || !fresh && !f.dead() {
		return nil, false
	}
	if !fresh && f.wait() { // somebody must notice when a server is back
		go func() {
			defer f.waited()
			f.shared(q)
		}()
	}
	return respell(m, q), true
}

// resolve answers from the cache or an upstream server, with what was true
// before, or with SERVFAIL. It returns when ctx ends, though the question goes
// on for the next who asks.
func (f *forwarder) resolve(ctx context.Context, q wire.Question) *wire.Msg {
	if m, ok := f.cached(q); ok {
		return m
	}
	if ctx.Err() == nil {
		done := f.flights.DoChan(flight(q), func() (any, error) { return f.ask(q) })
		select {
		case r := <-done:
			if m, ok := r.Val.(*wire.Msg); ok && r.Err == nil {
				return respell(m.Copy(), q)
			}
		case <-ctx.Done():
		}
	}
	if m, _ := f.cache.get(keyOf(q)); m != nil {
		return respell(m, q)
	}
	return failure(wire.RcodeServerFailure)
}

func (f *forwarder) shared(q wire.Question) {
	_, _, _ = f.flights.Do(flight(q), func() (any, error) { return f.ask(q) })
}

func flight(q wire.Question) string {
	k := keyOf(q)
	return fmt.Sprintf("%d %s", k.kind, k.name)
}

// respell gives the records of the name that was asked for the asker's
// spelling of it.
func respell(m *wire.Msg, q wire.Question) *wire.Msg {
	canonical := wire.CanonicalName(q.Name)
	for _, rr := range m.Answer {
		if h := rr.Header(); h.Name != q.Name && wire.CanonicalName(h.Name) == canonical {
			h.Name = q.Name
		}
	}
	return m
}

// ask tries one server after the other, and remembers the answer.
func (f *forwarder) ask(q wire.Question) (*wire.Msg, error) {
	select {
	case f.asking <- struct{}{}:
		defer func() { <-f.asking }()
	case <-time.After(perTry):
		return nil, fmt.Errorf("ask for %q: %d questions are in flight", q.Name, maxInFlight)
	}
	servers := f.choose()
	if len(servers) == 0 {
		return nil, fmt.Errorf("ask for %q: no upstream server is configured in %q", q.Name, f.path)
	}
	var last error
	for try := range maxTries {
		u := servers[try%len(servers)]
		m, err := exchange(u.addr, q)
		f.report(u, err)
		if err != nil {
			last = err
			continue
		}
		if m.Rcode != wire.RcodeSuccess && m.Rcode != wire.RcodeNameError {
			last = fmt.Errorf("server %q answers %s", u.addr, wire.RcodeToString[m.Rcode])
			if try < len(servers)-1 {
				continue
			}
			break
		}
		f.cache.put(keyOf(q), m)
		return m, nil
	}
	return nil, fmt.Errorf("ask for %q: %w", q.Name, last)
}

// exchange asks one server over UDP, and over TCP when the answer was cut.
func exchange(addr string, q wire.Question) (*wire.Msg, error) {
	ctx, cancel := context.WithTimeout(context.Background(), perTry)
	defer cancel()
	q.Name = wire.CanonicalName(q.Name)
	m := &wire.Msg{MsgHdr: wire.MsgHdr{Id: wire.Id(), RecursionDesired: true}, Question: []wire.Question{q}}
	m.SetEdns0(maxUDP, false)
	for _, network := range []string{"udp", "tcp"} {
		c := wire.Client{Net: network, Timeout: perTry, UDPSize: maxUDP}
		r, _, err := c.ExchangeContext(ctx, m, addr)
		if err != nil {
			return nil, fmt.Errorf("ask server %q: %w", addr, err)
		}
		if len(r.Question) != 1 || !r.Response || keyOf(r.Question[0]) != keyOf(q) {
			return nil, fmt.Errorf("ask server %q: it answers another question", addr)
		}
		if !r.Truncated {
			return clean(r), nil
		}
	}
	return nil, fmt.Errorf("ask server %q: the answer is cut even over TCP", addr)
}

// clean keeps of an answer what does not concern this exchange alone.
func clean(r *wire.Msg) *wire.Msg {
	m := &wire.Msg{MsgHdr: wire.MsgHdr{Response: true, Rcode: r.Rcode, RecursionAvailable: true},
		Compress: true, Question: r.Question, Answer: r.Answer, Ns: r.Ns}
	for _, rr := range r.Extra {
		if rr.Header().Rrtype != wire.TypeOPT {
			m.Extra = append(m.Extra, rr)
		}
	}
	return m
}

func (f *forwarder) report(u *upstream, err error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if err == nil {
		u.failures, u.until = 0, time.Time{}
		return
	}
	if u.failures++; u.failures >= maxFailures {
		u.until = time.Now().Add(penalty)
	}
}

// dead tells whether all servers are being passed over.
func (f *forwarder) dead() bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	now := time.Now()
	for _, u := range f.servers {
		if !now.Before(u.until) {
			return false
		}
	}
	return len(f.servers) > 0
}

// choose orders the servers: those that answer come first, each group as
// resolv.conf has it.
func (f *forwarder) choose() []*upstream {
	f.mu.Lock()
	defer f.mu.Unlock()
	now := time.Now()
	if now.Sub(f.looked) >= lookEvery {
		f.looked = now
		f.look()
	}
	var good, bad []*upstream
	for _, u := range f.servers {
		if now.Before(u.until) {
			bad = append(bad, u)
		} else {
			good = append(good, u)
		}
	}
	return append(good, bad...)
}

// look reads the file again if it has changed. What cannot be read leaves
// things as they are.
func (f *forwarder) look() {
	if f.path == "" {
		return
	}
	info, err := os.Stat(f.path)
	if err != nil || info.ModTime().Equal(f.changed) {
		return
	}
	conf, err := wire.ClientConfigFromFile(f.path)
	if err != nil {
		return
	}
	f.changed, f.servers = info.ModTime(), nil
	for _, s := range conf.Servers[:min(len(conf.Servers), maxServers)] {
		addr, err := netip.ParseAddr(s)
		if err != nil || f.itself(addr) {
			continue
		}
		f.servers = append(f.servers, &upstream{addr: net.JoinHostPort(s, conf.Port)})
	}
}

func (f *forwarder) itself(ip netip.Addr) bool {
	for _, own := range f.own {
		if own.Addr() == ip && own.Port() == 53 {
			return true
		}
	}
	return false
}
