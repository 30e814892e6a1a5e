package dns

import (
	"context"
	"flag"
	"fmt"
	"net"
	"net/netip"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	wire "github.com/miekg/dns"
	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/sampan-dev/sampan/client"
	"github.com/sampan-dev/sampan/client/clienttest"
)

var update = flag.Bool("update", false, "write what was seen into the transcripts")

func meta(namespace, name string) metav1.ObjectMeta {
	return metav1.ObjectMeta{Namespace: namespace, Name: name}
}

func svc(name string, spec corev1.ServiceSpec) *corev1.Service {
	return &corev1.Service{ObjectMeta: meta("default", name), Spec: spec}
}

// point is an endpoint as a slice has it.
func point(ip, host string, ready bool) discoveryv1.Endpoint {
	e := discoveryv1.Endpoint{Addresses: []string{ip}, Conditions: discoveryv1.EndpointConditions{Ready: &ready}}
	if host != "" {
		e.Hostname = &host
	}
	return e
}

func slice(service, suffix string, kind discoveryv1.AddressType, points ...discoveryv1.Endpoint) *discoveryv1.EndpointSlice {
	m := meta("default", service+suffix)
	m.Labels = map[string]string{discoveryv1.LabelServiceName: service}
	return &discoveryv1.EndpointSlice{ObjectMeta: m, AddressType: kind, Endpoints: points,
		Ports: []discoveryv1.EndpointPort{{Name: new("http"), Protocol: new(corev1.ProtocolTCP), Port: new(int32(8080))}}}
}

// cluster is what the transcripts ask about.
func cluster() []client.Object {
	ports := []corev1.ServicePort{{Name: "http", Port: 80, Protocol: corev1.ProtocolTCP}, {Name: "dns", Port: 53, Protocol: corev1.ProtocolUDP}}
	headless := corev1.ServiceSpec{ClusterIP: "None", ClusterIPs: []string{"None"}}
	external := func(to string) corev1.ServiceSpec {
		return corev1.ServiceSpec{Type: corev1.ServiceTypeExternalName, ExternalName: to}
	}
	return []client.Object{
		&corev1.Namespace{ObjectMeta: meta("", "default")},
		&corev1.Namespace{ObjectMeta: meta("", "empty")},
		svc("web", corev1.ServiceSpec{ClusterIP: "10.96.0.7", ClusterIPs: []string{"10.96.0.7"}, Ports: ports}),
		svc("dual", corev1.ServiceSpec{ClusterIP: "10.96.0.8", ClusterIPs: []string{"10.96.0.8", "fd96::8"}, Ports: ports}),
		svc("db", headless),
		slice("db", "-1", discoveryv1.AddressTypeIPv4, point("10.0.0.1", "db-0", true), point("10.0.0.2", "db-1", false), point("10.0.0.3", "", true)),
		slice("db", "-2", discoveryv1.AddressTypeIPv6, point("fd00::1", "db-0", true)),
		svc("starting", headless),
		slice("starting", "-1", discoveryv1.AddressTypeIPv4, point("10.0.0.9", "s-0", false)),
		svc("alias", external("web.default.svc.cluster.local")),
		svc("outside", external("www.example.com")),
		svc("loop", external("loop.default.svc.cluster.local")),
	}
}

// serve starts a server that knows the cluster, and returns it synced.
func serve(t testing.TB, cfg Config, objects ...client.Object) *Server {
	t.Helper()
	api := clienttest.NewMemory()
	api.Seed(objects...)
	cfg.Transport = api
	s, err := New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- s.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		<-ended
	})
	<-s.mirror.services.Synced()
	<-s.mirror.slices.Synced()
	<-s.mirror.namespaces.Synced()
	return s
}

// ask is the answer to a question, whoever has to be asked.
func ask(t testing.TB, s *Server, m *wire.Msg, udp bool) *wire.Msg {
	t.Helper()
	packet, err := m.Pack()
	if err != nil {
		t.Fatal(err)
	}
	reply, later := s.answer(packet, netip.Addr{}, udp)
	if later != nil {
		reply = later(t.Context())
	}
	r := new(wire.Msg)
	if err := r.Unpack(reply); err != nil {
		t.Fatalf("reply %x: %v", reply, err)
	}
	if r.Id != m.Id || !r.Response {
		t.Errorf("reply %+v to question %d", r.MsgHdr, m.Id)
	}
	return r
}

func question(name, kind string) *wire.Msg {
	return new(wire.Msg).SetQuestion(name, wire.StringToType[kind])
}

// show writes a reply with its records in order.
func show(r *wire.Msg) string {
	var b strings.Builder
	fmt.Fprintln(&b, wire.RcodeToString[r.Rcode])
	for _, part := range []struct {
		name string
		rrs  []wire.RR
	}{{"", r.Answer}, {"authority ", r.Ns}, {"additional ", r.Extra}} {
		var lines []string
		for _, rr := range part.rrs {
			lines = append(lines, part.name+strings.Join(strings.Fields(rr.String()), " "))
		}
		if part.name != "" || len(r.Answer) == 0 || r.Answer[0].Header().Rrtype != wire.TypeCNAME {
			slices.Sort(lines) // a chain has its order, the others none
		}
		for _, l := range lines {
			fmt.Fprintln(&b, l)
		}
	}
	return b.String()
}

func TestZone(t *testing.T) {
	s := serve(t, Config{Listen: []string{"127.0.0.1:0"}}, cluster()...)
	raw, err := os.ReadFile("testdata/zone.txt")
	if err != nil {
		t.Fatal(err)
	}
	var out strings.Builder
	for _, block := range strings.Split(strings.TrimSpace(string(raw)), "\n\n") {
		head, _, _ := strings.Cut(block, "----")
		var replies string
		for _, line := range strings.Split(strings.TrimSpace(head), "\n") {
			if name, kind, ok := strings.Cut(line, " "); ok && name != "#" {
				replies += show(ask(t, s, question(name, kind), false))
			}
		}
		fmt.Fprintf(&out, "%s\n----\n%s\n", strings.TrimSpace(head), replies)
	}
	got := strings.TrimSpace(out.String()) + "\n"
	if *update {
		if err := os.WriteFile("testdata/zone.txt", []byte(got), 0o600); err != nil {
			t.Fatal(err)
		}
		return
	}
	if got != string(raw) {
		t.Errorf("seen:\n%s", got)
	}
}

func TestTransports(t *testing.T) {
	p, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	objects := cluster()
	var points []discoveryv1.Endpoint
	for i := range 100 {
		points = append(points, point(fmt.Sprintf("10.1.0.%d", i), "", true))
	}
	objects = append(objects, svc("many", corev1.ServiceSpec{ClusterIP: "None"}), slice("many", "-1", discoveryv1.AddressTypeIPv4, points...))
	serve(t, Config{PacketConns: []net.PacketConn{p}, Listeners: []net.Listener{l}}, objects...)
	q := question("many.default.svc.cluster.local.", "A")
	exchange := func(network, addr string) *wire.Msg {
		t.Helper()
		r, _, err := (&wire.Client{Net: network, UDPSize: 4096}).Exchange(q, addr)
		if err != nil {
			t.Fatal(err)
		}
		r.Compress = true
		return r
	}
	if r := exchange("udp", p.LocalAddr().String()); !r.Truncated || r.Len() > 512 {
		t.Errorf("without EDNS: %d bytes, truncated %v", r.Len(), r.Truncated)
	}
	if r := exchange("tcp", l.Addr().String()); r.Truncated || len(r.Answer) != 100 {
		t.Errorf("TCP: %d records, truncated %v", len(r.Answer), r.Truncated)
	}
	q.SetEdns0(4096, false)
	if r := exchange("udp", p.LocalAddr().String()); !r.Truncated || len(r.Answer) < 40 || r.IsEdns0() == nil {
		t.Errorf("with EDNS: %d records, truncated %v", len(r.Answer), r.Truncated)
	}
}

// An address may be listened on before the host has it, and is served over
// UDP and TCP.
func TestListen(t *testing.T) {
	c, err := (&net.ListenConfig{Control: freebind}).ListenPacket(t.Context(), "udp", "192.0.2.53:0")
	if err != nil {
		t.Fatal(err)
	}
	c.Close()
	free, err := net.ListenPacket("udp", "127.0.0.53:0")
	if err != nil {
		t.Skip("127.0.0.53 is no address here:", err)
	}
	addr := free.LocalAddr().String()
	free.Close()
	serve(t, Config{Listen: []string{addr}}, cluster()...)
	for _, network := range []string{"udp", "tcp"} {
		var r *wire.Msg
		for deadline := time.Now().Add(time.Minute); time.Now().Before(deadline); {
			if r, _, err = (&wire.Client{Net: network}).Exchange(question("web.default.svc.cluster.local.", "A"), addr); err == nil {
				break
			}
		}
		if err != nil || len(r.Answer) != 1 {
			t.Errorf("%s: %v, %v", network, r, err)
		}
	}
}

func TestRefusals(t *testing.T) {
	s := serve(t, Config{}, cluster()...)
	for what, c := range map[string]struct {
		change func(*wire.Msg)
		want   int
	}{
		"a zone transfer":  {func(m *wire.Msg) { m.Question[0].Qtype = wire.TypeAXFR }, wire.RcodeRefused},
		"another class":    {func(m *wire.Msg) { m.Question[0].Qclass = wire.ClassCHAOS }, wire.RcodeRefused},
		"an update":        {func(m *wire.Msg) { m.Opcode = wire.OpcodeUpdate }, wire.RcodeNotImplemented},
		"two questions":    {func(m *wire.Msg) { m.Question = append(m.Question, m.Question[0]) }, wire.RcodeFormatError},
		"no upstream":      {func(m *wire.Msg) { m.Question[0].Name = "example.com." }, wire.RcodeServerFailure},
		"a future version": {func(m *wire.Msg) { m.SetEdns0(1232, false).IsEdns0().SetVersion(1) }, wire.RcodeBadVers},
	} {
		m := question("web.default.svc.cluster.local.", "A")
		c.change(m)
		if r := ask(t, s, m, true); r.Rcode != c.want {
			t.Errorf("%s: %s", what, wire.RcodeToString[r.Rcode])
		}
	}
	if reply, _ := s.answer([]byte("\x12\x34\x01\x00\x00\x01\x00\x00\x00\x00\x00\x00\xff"), netip.Addr{}, true); len(reply) != headerSize || reply[3]&15 != wire.RcodeFormatError {
		t.Errorf("a broken question: %x", reply)
	}
	if reply, later := s.answer([]byte("\x12\x34\x81\x00\x00\x01\x00\x00\x00\x00\x00\x00"), netip.Addr{}, true); reply != nil || later != nil {
		t.Errorf("an answer is answered: %x", reply)
	}
}

// Before the mirrors are full, a missing name is not known to be missing.
func TestUnsynced(t *testing.T) {
	s, err := New(Config{Transport: clienttest.NewMemory()})
	if err != nil {
		t.Fatal(err)
	}
	if r := ask(t, s, question("web.default.svc.cluster.local.", "A"), true); r.Rcode != wire.RcodeServerFailure {
		t.Error(r)
	}
}

func TestReversed(t *testing.T) {
	for _, ip := range []string{"10.96.0.7", "fd96::8", "2001:db8:1:2:3:4:5:6"} {
		name, err := wire.ReverseAddr(ip)
		if err != nil {
			t.Fatal(err)
		}
		if got, ok := reversed(name); !ok || got.String() != ip {
			t.Errorf("%s: %s", name, got)
		}
	}
	for _, name := range []string{"1.2.3.in-addr.arpa.", "x.0.96.10.in-addr.arpa.", "0.ip6.arpa.", "."} {
		if got, ok := reversed(name); ok {
			t.Errorf("%s: %s", name, got)
		}
	}
}

// Whatever comes in, the reply is a message that belongs to it.
func FuzzPacket(f *testing.F) {
	for _, name := range []string{"web.default.svc.cluster.local.", "_http._tcp.db.default.svc.cluster.local.", "7.0.96.10.in-addr.arpa.", "."} {
		packet, _ := question(name, "SRV").SetEdns0(1232, true).Pack()
		f.Add(packet)
	}
	f.Add([]byte{0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11})
	s := serve(f, Config{}, cluster()...)
	f.Fuzz(func(t *testing.T, packet []byte) {
		for _, udp := range []bool{true, false} {
			reply, later := s.answer(packet, netip.Addr{}, udp)
			if later != nil {
				reply = later(t.Context())
			}
			if reply == nil {
				continue
			}
			var m wire.Msg
			if err := m.Unpack(reply); err != nil || !m.Response || reply[0] != packet[0] || reply[1] != packet[1] {
				t.Errorf("reply %x to %x: %v", reply, packet, err)
			}
			if udp && len(reply) > maxUDP {
				t.Errorf("%d bytes over UDP", len(reply))
			}
		}
	})
}

func BenchmarkClusterName(b *testing.B) {
	s := serve(b, Config{}, cluster()...)
	packet, err := question("web.default.svc.cluster.local.", "A").Pack()
	if err != nil {
		b.Fatal(err)
	}
	b.ReportAllocs()
	for b.Loop() {
		if reply, _ := s.answer(packet, netip.Addr{}, true); len(reply) == 0 {
			b.Fatal("no reply")
		}
	}
}
