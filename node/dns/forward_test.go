package dns

import (
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	wire "github.com/miekg/dns"
)

// upstreamServer is a server of the world beyond the cluster.
type upstreamServer struct {
	mu    sync.Mutex
	asked int
	dead  bool
}

// startUpstream answers over UDP and TCP on one port of loopback, which it
// returns.
func startUpstream(t testing.TB) (*upstreamServer, string) {
	t.Helper()
	u := &upstreamServer{}
	p, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	l, err := net.Listen("tcp", p.LocalAddr().String())
	if err != nil {
		t.Skip("the port is taken for TCP:", err)
	}
	for _, srv := range []*wire.Server{{PacketConn: p, Handler: u}, {Listener: l, Handler: u}} {
		up := make(chan struct{})
		srv.NotifyStartedFunc = func() { close(up) }
		go func() { _ = srv.ActivateAndServe() }() // until Shutdown
		<-up
		t.Cleanup(func() { _ = srv.Shutdown() })
	}
	return u, p.LocalAddr().String()
}

func (u *upstreamServer) ServeDNS(w wire.ResponseWriter, q *wire.Msg) {
	u.mu.Lock()
	u.asked++
	dead := u.dead
	u.mu.Unlock()
	if dead {
		return
	}
	name := q.Question[0].Name
	m := new(wire.Msg).SetReply(q)
	soa, _ := wire.NewRR("example.com. 60 IN SOA ns.example.com. a.example.com. 1 1 1 1 30")
	switch {
	case strings.HasPrefix(name, "www."):
		rr, _ := wire.NewRR(name + " 60 IN A 203.0.113.1")
		m.Answer = []wire.RR{rr}
	case strings.HasPrefix(name, "big."):
		for i := range 100 {
			rr, _ := wire.NewRR(fmt.Sprintf("%s 60 IN A 203.0.113.%d", name, i))
			m.Answer = append(m.Answer, rr)
		}
		if _, udp := w.LocalAddr().(*net.UDPAddr); udp {
			m.Truncate(512)
		}
	default:
		m.Rcode = wire.RcodeNameError
		m.Ns = []wire.RR{soa}
	}
	_ = w.WriteMsg(m) // the test misses it
}

func (u *upstreamServer) set(dead bool) {
	u.mu.Lock()
	defer u.mu.Unlock()
	u.dead = dead
}

// times is how often it was asked.
func (u *upstreamServer) times() int {
	u.mu.Lock()
	defer u.mu.Unlock()
	return u.asked
}

// using points a server at upstream servers, as if from resolv.conf.
func using(s *Server, addrs ...string) {
	s.forward.mu.Lock()
	defer s.forward.mu.Unlock()
	s.forward.servers = nil
	for _, a := range addrs {
		s.forward.servers = append(s.forward.servers, &upstream{addr: a})
	}
}

func TestForward(t *testing.T) {
	u, addr := startUpstream(t)
	s := serve(t, Config{}, cluster()...)
	using(s, addr)
	for _, c := range []struct {
		name, want string
		records    int
		cached     bool
	}{
		{"www.example.com.", "NOERROR", 1, false},
		{"WWW.example.com.", "NOERROR", 1, true},
		{"nothing.example.com.", "NXDOMAIN", 0, false},
		{"nothing.example.com.", "NXDOMAIN", 0, true},
		{"big.example.com.", "NOERROR", 100, false},
		{"outside.default.svc.cluster.local.", "NOERROR", 2, true},
	} {
		before := u.times()
		r := ask(t, s, question(c.name, "A"), false)
		if wire.RcodeToString[r.Rcode] != c.want || len(r.Answer) != c.records {
			t.Errorf("%s: %v", c.name, r)
		}
		if len(r.Answer) > 0 && r.Answer[0].Header().Name != c.name {
			t.Errorf("%s: the answer is about %s", c.name, r.Answer[0].Header().Name)
		}
		if asked := u.times() - before; c.cached != (asked == 0) {
			t.Errorf("%s: the server was asked %d times, cached %v", c.name, asked, c.cached)
		}
	}
}

// askTillAnswered does what a resolver does: a process that is kept from running
// misses what the one good server says.
func askTillAnswered(t *testing.T, s *Server, name string) {
	t.Helper()
	const tries = 10
	for range tries {
		if r := ask(t, s, question(name, "A"), false); len(r.Answer) == 1 {
			return
		}
	}
	t.Fatalf("%s: no answer in %d tries", name, tries)
}

func TestSecondServer(t *testing.T) {
	dead, deadAddr := startUpstream(t)
	_, addr := startUpstream(t)
	dead.set(true)
	s := serve(t, Config{}, cluster()...)
	using(s, deadAddr, addr)
	for i := range maxFailures {
		askTillAnswered(t, s, fmt.Sprintf("www.%d.example.com.", i))
	}
	s.forward.mu.Lock()
	if u := s.forward.servers[0]; u.failures < maxFailures || u.until.IsZero() {
		t.Errorf("the silent one failed %d times and is passed over until %s", u.failures, u.until)
	}
	s.forward.servers[0].until = time.Now().Add(time.Hour) // however slow we are
	s.forward.mu.Unlock()
	before := dead.times()
	askTillAnswered(t, s, "www.example.com.")
	if dead.times() != before {
		t.Error("a server that failed twice is asked again at once")
	}
}

// Cluster names are answered at once though every upstream server is silent
// and all places to wait in are taken.
func TestSilentUpstream(t *testing.T) {
	u, addr := startUpstream(t)
	p, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s := serve(t, Config{PacketConns: []net.PacketConn{p}}, cluster()...)
	using(s, addr)
	ask(t, s, question("www.example.com.", "A"), false)
	u.set(true)
	for s.forward.wait() { // nobody ever gives these places back
	}
	c, err := net.Dial("udp", p.LocalAddr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	for i := range 2 * maxWaiting {
		packet, _ := question(fmt.Sprintf("%d.example.org.", i), "A").Pack()
		_, _ = c.Write(packet) // a flood may lose some of itself
	}
	client := wire.Client{Timeout: 2 * time.Second}
	for range 50 {
		var r *wire.Msg
		var err error
		for range 30 { // the flood may have lost this one too
			if r, _, err = client.Exchange(question("web.default.svc.cluster.local.", "A"), p.LocalAddr().String()); err == nil {
				break
			}
		}
		if err != nil || len(r.Answer) != 1 {
			t.Fatalf("%v, %v", r, err)
		}
	}
	s.forward.mu.Lock()
	s.forward.servers[0].until = time.Now().Add(time.Hour)
	s.forward.mu.Unlock()
	s.forward.cache.mu.Lock()
	for _, e := range s.forward.cache.items {
		e.Value.(*item).until = time.Now().Add(-time.Minute)
	}
	s.forward.cache.mu.Unlock()
	if r := ask(t, s, question("www.example.com.", "A"), false); len(r.Answer) != 1 || r.Answer[0].Header().Ttl != staleTTL {
		t.Errorf("no stale answer: %v", r)
	}
}

func TestResolvConf(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		path := filepath.Join(t.TempDir(), "resolv.conf")
		f := newForwarder(path, nil)
		for i, want := range []string{"192.0.2.1:53", "192.0.2.2:53"} {
			if err := os.WriteFile(path, fmt.Appendf(nil, "nameserver 192.0.2.%d\n", i+1), 0o600); err != nil {
				t.Fatal(err)
			}
			if err := os.Chtimes(path, time.Time{}, time.Now()); err != nil {
				t.Fatal(err)
			}
			if got := f.choose(); len(got) != 1 || got[0].addr != want {
				t.Errorf("%v, want %s", got, want)
			}
			time.Sleep(2 * lookEvery)
		}
	})
}

func TestCache(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCache()
		m := question("a.example.com.", "A")
		rr, _ := wire.NewRR("a.example.com. 60 IN A 192.0.2.1")
		m.Answer = []wire.RR{rr}
		k := key{"a.example.com.", wire.TypeA}
		c.put(k, m)
		for _, step := range []struct {
			wait  time.Duration
			found bool
			fresh bool
			ttl   uint32
		}{{0, true, true, 60}, {40 * time.Second, true, true, 20}, {30 * time.Second, true, false, staleTTL}, {2 * maxStale, false, false, 0}} {
			time.Sleep(step.wait)
			got, fresh := c.get(k)
			if (got != nil) != step.found || fresh != step.fresh || got != nil && got.Answer[0].Header().Ttl != step.ttl {
				t.Errorf("after %s: %v, fresh %v", step.wait, got, fresh)
			}
		}
		for i := range 100_000 {
			c.put(key{fmt.Sprintf("%d.example.com.", i), wire.TypeA}, m)
		}
		if c.bytes > maxCache || len(c.items) != c.order.Len() || len(c.items) < 1000 {
			t.Errorf("%d bytes in %d items", c.bytes, len(c.items))
		}
	})
}
