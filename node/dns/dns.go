// Package dns answers the names of a cluster: services, their endpoints and
// pods, as the Kubernetes DNS specification 1.1.0 has it, from local mirrors of
// the API, so that an absent API server changes nothing. All other names go to
// the upstream servers of the node's resolv.conf, through a bounded cache.
//
// The names of the cluster never wait for an upstream server: they are answered
// where the packet is read; only the others get a goroutine, of which there is
// a limited number.
//
// Not done: DNSSEC, zone transfers, wildcard names.
package dns

import (
	"context"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"strings"
	"sync"

	wire "github.com/miekg/dns"

	"github.com/sampan-dev/sampan/client"
)

// Limits of a configuration.
const (
	defaultDomain = "cluster.local"
	defaultTTL    = 5
	maxTTL        = 30
)

// Config says what a Server answers, and where.
type Config struct {
	// Transport reads services, endpoint slices and namespaces.
	Transport client.Transport
	// Domain is the cluster's; "cluster.local" when empty.
	Domain string
	// Listen are addresses with ports, served over UDP and TCP. They need not be
	// there yet: the server answers as soon as they are.
	Listen []string
	// PacketConns and Listeners are served as well; Run closes them.
	PacketConns []net.PacketConn
	Listeners   []net.Listener
	// ResolvConf is the path of the file that names the upstream servers. It is
	// read again when it changes. Empty means that no other names are known.
	ResolvConf string
	// Neighbours knows names that some clients alone have; nil when there are none.
	Neighbours Neighbours
	// TTL in seconds of the cluster's names: how long clients may hold on to
	// what is no longer true. 1 to 30; 0 means 5, as everywhere else.
	TTL uint32
	// Log defaults to slog.Default().
	Log *slog.Logger
}

// Neighbours knows the names that a client's neighbours have, and nobody else asks for.
type Neighbours interface {
	// Names are the addresses that a name in canonical form means to the client with
	// the address from; none when it means nothing to it.
	Names(from netip.Addr, name string) []netip.Addr
	// Called is the name that an address has to a client, with a dot at its end; ""
	// for none.
	Called(from, ip netip.Addr) string
	// Confined says that nobody outside of the cluster is asked for this client.
	Confined(from netip.Addr) bool
}

// Server is a node's DNS server.
type Server struct {
	cfg     Config
	log     *slog.Logger
	mirror  *mirror
	zone    *zone
	forward *forwarder
}

// New checks cfg; nothing happens until Run.
func New(cfg Config) (*Server, error) {
	if cfg.Log == nil {
		cfg.Log = slog.Default()
	}
	if cfg.Domain == "" {
		cfg.Domain = defaultDomain
	}
	if cfg.TTL == 0 {
		cfg.TTL = defaultTTL
	}
	if cfg.TTL > maxTTL {
		return nil, fmt.Errorf("dns: a TTL of %d s is more than %d s", cfg.TTL, maxTTL)
	}
	domain := wire.CanonicalName(cfg.Domain)
	if _, ok := wire.IsDomainName(domain); !ok || domain == "." {
		return nil, fmt.Errorf("dns: domain %q is not a name", cfg.Domain)
	}
	var own []netip.AddrPort
	for _, s := range cfg.Listen {
		addr, err := netip.ParseAddrPort(s)
		if err != nil {
			return nil, fmt.Errorf("dns: listen address: %w", err)
		}
		own = append(own, addr)
	}
	m := newMirror(cfg.Transport, cfg.Log)
	return &Server{
		cfg:     cfg,
		log:     cfg.Log.With("component", "dns"),
		mirror:  m,
		zone:    &zone{domain: domain, ttl: cfg.TTL, records: m, own: own},
		forward: newForwarder(cfg.ResolvConf, own),
	}, nil
}

// Run serves until ctx ends. What it cannot listen on is tried again for ever.
func (s *Server) Run(ctx context.Context) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	var wg sync.WaitGroup
	s.mirror.run(ctx, &wg)
	for _, c := range s.cfg.PacketConns {
		wg.Go(func() { _ = s.serveUDP(ctx, c) }) // whoever gave it knows why it was closed
	}
	for _, l := range s.cfg.Listeners {
		wg.Go(func() { _ = s.serveTCP(ctx, l) })
	}
	for _, addr := range s.cfg.Listen {
		wg.Go(func() { s.listen(ctx, "udp", addr) })
		wg.Go(func() { s.listen(ctx, "tcp", addr) })
	}
	wg.Wait()
	return context.Cause(ctx)
}

// answer replies to one packet. When that needs an upstream server the reply is
// nil, and later makes it. Both are nil for what deserves no reply.
func (s *Server) answer(packet []byte, from netip.Addr, udp bool) (reply []byte, later func(context.Context) []byte) {
	var query wire.Msg
	if len(packet) < headerSize || packet[2]&0x80 != 0 {
		return nil, nil // not a question
	}
	if err := query.Unpack(packet); err != nil {
		return formatError(packet), nil
	}
	if rcode, ok := acceptable(&query); !ok {
		return s.pack(&query, failure(rcode), udp), nil
	}
	q := query.Question[0]
	if m := s.neighbour(q, from); m != nil {
		return s.pack(&query, m, udp), nil
	}
	if m, ok := s.local(q); ok {
		return s.pack(&query, m, udp), nil
	}
	if s.cfg.Neighbours != nil && s.cfg.Neighbours.Confined(from) {
		return s.pack(&query, failure(wire.RcodeServerFailure), udp), nil
	}
	if m, ok := s.forward.cached(q); ok {
		return s.pack(&query, m, udp), nil
	}
	return nil, func(ctx context.Context) []byte { return s.pack(&query, s.remote(ctx, q), udp) }
}

// neighbour answers for the client's own neighbours, nil when the question is not about
// one of them.
func (s *Server) neighbour(q wire.Question, from netip.Addr) *wire.Msg {
	if s.cfg.Neighbours == nil || !from.IsValid() {
		return nil
	}
	name := wire.CanonicalName(q.Name)
	m := &wire.Msg{MsgHdr: wire.MsgHdr{Authoritative: true}}
	if ip, ok := reversed(name); ok {
		called := s.cfg.Neighbours.Called(from, ip)
		if called == "" {
			return nil
		}
		if q.Qtype == wire.TypePTR {
			m.Answer = []wire.RR{&wire.PTR{Hdr: header(q.Name, wire.TypePTR, s.zone.ttl), Ptr: called}}
		}
		return m
	}
	ips := s.cfg.Neighbours.Names(from, name)
	if len(ips) == 0 {
		return nil
	}
	m.Answer = s.zone.addresses(q.Name, ips, q.Qtype).rrs
	return m
}

// local answers without upstream servers.
func (s *Server) local(q wire.Question) (*wire.Msg, bool) {
	if q.Qtype == wire.TypeANY {
		m := &wire.Msg{Answer: []wire.RR{&wire.HINFO{Hdr: header(q.Name, wire.TypeHINFO, maxTTL), Cpu: "RFC8482"}}}
		return m, true
	}
	m, target := s.zone.answer(q)
	return m, m != nil && target == ""
}

// remote asks upstream servers, also for the end of a chain of names that
// began in the cluster.
func (s *Server) remote(ctx context.Context, q wire.Question) *wire.Msg {
	m, target := s.zone.answer(q)
	if m == nil {
		return s.forward.resolve(ctx, q)
	}
	end := s.forward.resolve(ctx, wire.Question{Name: target, Qtype: q.Qtype, Qclass: q.Qclass})
	m.Rcode = end.Rcode
	m.Answer = append(m.Answer, end.Answer...)
	m.Ns = end.Ns
	return m
}

const (
	headerSize = 12
	// maxUDP is the largest datagram that is sent: what crosses every link in one
	// piece (DNS flag day 2020).
	maxUDP = 1232
)

// acceptable tells whether a message is a question that may be answered, or how
// it is refused.
func acceptable(m *wire.Msg) (rcode int, ok bool) {
	switch {
	case m.Opcode != wire.OpcodeQuery:
		return wire.RcodeNotImplemented, false
	case len(m.Question) != 1:
		return wire.RcodeFormatError, false
	}
	if opt := m.IsEdns0(); opt != nil && opt.Version() != 0 {
		return wire.RcodeBadVers, false
	}
	q := m.Question[0]
	if q.Qclass != wire.ClassINET || q.Qtype == wire.TypeAXFR || q.Qtype == wire.TypeIXFR {
		return wire.RcodeRefused, false
	}
	return 0, true
}

func failure(rcode int) *wire.Msg { return &wire.Msg{MsgHdr: wire.MsgHdr{Rcode: rcode}} }

// formatError is the reply to what cannot be read past its header.
func formatError(packet []byte) []byte {
	b := make([]byte, headerSize)
	copy(b, packet[:2])
	b[2] = 0x80 | packet[2]&0x79 // answer, same opcode and wish for recursion
	b[3] = 0x80 | wire.RcodeFormatError
	return b
}

// pack makes m the reply to query, as large as the asker can take.
func (s *Server) pack(query, m *wire.Msg, udp bool) []byte {
	m.Id, m.Opcode, m.Response = query.Id, query.Opcode, true
	m.RecursionDesired, m.RecursionAvailable = query.RecursionDesired, true
	m.Question = query.Question
	m.Compress = true
	size := wire.MaxMsgSize
	if udp {
		size = wire.MinMsgSize
	}
	if opt := query.IsEdns0(); opt != nil {
		m.SetEdns0(maxUDP, false)
		if udp {
			size = max(wire.MinMsgSize, min(int(opt.UDPSize()), maxUDP))
		}
	} else if m.Rcode > 15 {
		m.Rcode = wire.RcodeServerFailure // the others need EDNS
	}
	m.Truncate(size)
	b, err := m.Pack()
	if err == nil {
		return b
	}
	s.log.Debug("reply cannot be packed", "question", query.Question, "err", err)
	refusal := new(wire.Msg).SetRcode(query, wire.RcodeServerFailure)
	if b, err = refusal.Pack(); err != nil {
		return nil
	}
	return b
}

// header is that of a record of the Internet class.
func header(name string, kind uint16, ttl uint32) wire.RR_Header {
	return wire.RR_Header{Name: name, Rrtype: kind, Class: wire.ClassINET, Ttl: ttl}
}

// below cuts the domain off a canonical name; the rest has no dot at its end.
func below(name, domain string) (rest string, ok bool) {
	if name == domain {
		return "", true
	}
	return strings.CutSuffix(name, "."+domain)
}
