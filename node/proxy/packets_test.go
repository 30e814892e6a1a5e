package proxy

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/vishvananda/netns"
	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/sampan-dev/sampan/client"
)

// service has TCP and UDP at port 8080, and node port 30080 if asked.
func service(name, ip string, change ...func(*corev1.ServiceSpec)) *corev1.Service {
	svc := &corev1.Service{ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: name}, Spec: corev1.ServiceSpec{
		ClusterIP: ip, ClusterIPs: []string{ip}, Ports: []corev1.ServicePort{
			{Name: "t", Port: 8080, Protocol: corev1.ProtocolTCP},
			{Name: "u", Port: 8080, Protocol: corev1.ProtocolUDP},
		}}}
	for _, fn := range change {
		fn(&svc.Spec)
	}
	return svc
}

func nodePort(port int32) func(*corev1.ServiceSpec) {
	return func(s *corev1.ServiceSpec) {
		for i := range s.Ports {
			s.Ports[i].NodePort = port
		}
	}
}

func externalLocal(s *corev1.ServiceSpec) {
	s.ExternalTrafficPolicy = corev1.ServiceExternalTrafficPolicyLocal
}

// slice leads to port 80 of pods here, and of addresses elsewhere.
func slice(svc *corev1.Service, pods []pod, elsewhere ...string) *discoveryv1.EndpointSlice {
	out := &discoveryv1.EndpointSlice{
		ObjectMeta:  metav1.ObjectMeta{Namespace: svc.Namespace, Name: svc.Name + "-1", Labels: map[string]string{discoveryv1.LabelServiceName: svc.Name}},
		AddressType: discoveryv1.AddressTypeIPv4,
	}
	for _, p := range svc.Spec.Ports {
		out.Ports = append(out.Ports, discoveryv1.EndpointPort{Name: &p.Name, Protocol: &p.Protocol, Port: new(int32(80))})
	}
	for _, p := range pods {
		out.Endpoints = append(out.Endpoints, discoveryv1.Endpoint{Addresses: []string{p.ip}, NodeName: new("here")})
	}
	for _, ip := range elsewhere {
		out.Endpoints = append(out.Endpoints, discoveryv1.Endpoint{Addresses: []string{ip}, NodeName: new("there")})
	}
	return out
}

func TestPackets(t *testing.T) {
	w := newWorld(t)
	a, b := w.pod("a"), w.pod("b")
	w.serve(w.outside, "o")
	one := service("one", "10.96.0.1", nodePort(30080), func(s *corev1.ServiceSpec) { s.ExternalIPs = []string{"203.0.113.1"} })
	far := service("far", "10.96.0.2", nodePort(30081), externalLocal)
	local := service("local", "10.96.0.3", nodePort(30082), externalLocal)
	none := service("none", "10.96.0.4", nodePort(30083))
	dns := service("dns", "10.96.0.10")
	inside := service("inside", "10.96.0.5", func(s *corev1.ServiceSpec) {
		s.InternalTrafficPolicy = new(corev1.ServiceInternalTrafficPolicyLocal)
	})
	guarded := service("guarded", "10.96.0.6", func(s *corev1.ServiceSpec) {
		s.LoadBalancerSourceRanges = []string{"10.88.0.0/16", "10.88.0.0/24"}
	})
	guarded.Status.LoadBalancer.Ingress = []corev1.LoadBalancerIngress{{IP: "203.0.113.2"}}
	w.start(one, slice(one, []pod{a}), far, slice(far, nil, outsideIP), local, slice(local, []pod{b}, outsideIP),
		none, dns, inside, slice(inside, nil, outsideIP), guarded, slice(guarded, []pod{a}))
	w.must(within(w.outside, func() error { return address("lo", "203.0.113.9/32") }))

	for _, c := range []struct{ what, from, to, want string }{
		{"a pod reaches a service as itself", "b", "10.96.0.1:8080", "a " + b.ip},
		{"and itself, masqueraded", "a", "10.96.0.1:8080", "a " + gateway},
		{"the host reaches a service", "host", "10.96.0.1:8080", "a " + gateway},
		{"the world reaches a node port", "outside", hostIP + ":30080", "a " + gateway},
		{"a pod reaches a node port", "b", hostIP + ":30080", "a " + b.ip},
		{"the host reaches its own node port", "host", hostIP + ":30080", "a " + gateway},
		{"a pod reaches an external address", "b", "203.0.113.1:8080", "a " + b.ip},
		{"the world reaches an external address", "outside", "203.0.113.1:8080", "a " + gateway},
		{"a pod reaches an endpoint elsewhere", "a", "10.96.0.2:8080", "o " + a.ip},
		{"a local node port without a local endpoint is silent to the world", "outside", hostIP + ":30081", "timeout"},
		{"but not to a pod", "a", hostIP + ":30081", "o " + a.ip},
		{"a local node port keeps the source", "outside", hostIP + ":30082", "b " + outsideIP},
		{"a service without endpoints refuses pods", "a", "10.96.0.4:8080", "refused"},
		{"and the host", "host", "10.96.0.4:8080", "refused"},
		{"and the world", "outside", hostIP + ":30083", "refused"},
		{"a port that no service has is refused", "a", "10.96.0.1:9999", "refused"},
		{"an internal service without a local endpoint is silent", "a", "10.96.0.5:8080", "timeout"},
		{"allowed sources reach a balancer's address", "b", "203.0.113.2:8080", "a " + b.ip},
		{"others do not", "outside", "203.0.113.2:8080", "timeout"},
	} {
		for _, network := range []string{"tcp", "udp"} {
			t.Run(c.what+"/"+network, func(t *testing.T) {
				w.patience = time.Minute
				if c.want == "timeout" {
					w.patience = 300 * time.Millisecond
				}
				from := map[string]pod{"a": a, "b": b, "host": {ns: w.host}, "outside": {ns: w.outside}}[c.from]
				if got := w.ask(from.ns, network, c.to); got != c.want {
					t.Errorf("%s from %s: %q, want %q", c.to, c.from, got, c.want)
				}
			})
		}
	}
	w.must(within(w.host, func() error { return address("br0", "10.96.0.10/32") }))
	w.serve(w.host, "host")
	w.patience = time.Minute
	if got := w.ask(a.ns, "tcp", "10.96.0.10:80"); got != "host "+a.ip {
		t.Errorf("an address that the node answers itself: %q", got)
	}
}

func TestIPv6(t *testing.T) {
	w := newWorld(t)
	// Redirects to a pod count against the ICMPv6 errors that it may get, so the
	// one that is to be refused has spoken to nobody before.
	a, b, quiet := w.pod("a"), w.pod("b"), w.pod("quiet")
	six := func(svc *corev1.Service, pods ...pod) *discoveryv1.EndpointSlice {
		out := slice(svc, nil)
		out.AddressType = discoveryv1.AddressTypeIPv6
		for _, p := range pods {
			out.Endpoints = append(out.Endpoints, discoveryv1.Endpoint{Addresses: []string{p.ip6}, NodeName: new("here")})
		}
		return out
	}
	one, none := service("one", "fd96::1", nodePort(30080)), service("none", "fd96::2")
	sticky := service("sticky", "fd96::3", func(s *corev1.ServiceSpec) { s.SessionAffinity = corev1.ServiceAffinityClientIP })
	w.start(one, six(one, a), none, sticky, six(sticky, a, b))
	for _, c := range []struct {
		what     string
		from     netns.NsHandle
		to, want string
	}{
		{"a pod reaches a service as itself", b.ns, "[fd96::1]:8080", "a " + b.ip6},
		{"and itself, masqueraded", a.ns, "[fd96::1]:8080", "a " + gateway6},
		{"the host reaches a service", w.host, "[fd96::1]:8080", "a " + gateway6},
		{"the world reaches a node port", w.outside, "[" + hostIP6 + "]:30080", "a " + gateway6},
		{"a service without endpoints refuses", quiet.ns, "[fd96::2]:8080", "refused"},
	} {
		for _, network := range []string{"tcp", "udp"} {
			if got := w.ask(c.from, network, c.to); got != c.want {
				t.Errorf("%s/%s: %q, want %q", c.what, network, got, c.want)
			}
		}
	}
	first := w.who(b.ns, "tcp", "[fd96::3]:8080")
	for range 12 {
		if got := w.who(b.ns, "tcp", "[fd96::3]:8080"); got != first || got == "refused" {
			t.Fatalf("%q answers after %q", got, first)
		}
	}
}

// Run follows the API server, goes on without it, and leaves everything in
// place when it ends.
func TestRun(t *testing.T) {
	w := newWorld(t)
	a, b := w.pod("a"), w.pod("b")
	w.patience = 300 * time.Millisecond // before the tables are there, nobody answers
	svc := service("s", "10.96.0.1")
	w.api.Seed(svc, slice(svc, []pod{a}))
	p, err := New(w.cfg)
	w.must(err)
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- p.Run(ctx) }()
	until := func(want string) {
		t.Helper()
		got := ""
		for deadline := time.Now().Add(time.Minute); got != want; got = w.who(b.ns, "tcp", "10.96.0.1:8080") {
			if time.Now().After(deadline) {
				t.Fatalf("%q answers, want %q", got, want)
			}
		}
	}
	until("a")
	_, err = client.EndpointSlices.Update(t.Context(), w.api, slice(svc, []pod{b}))
	w.must(err)
	until("b")
	_, err = client.EndpointSlices.Update(t.Context(), w.api, slice(svc, nil))
	w.must(err)
	until("refused")
	_, err = client.EndpointSlices.Update(t.Context(), w.api, slice(svc, []pod{a}))
	w.must(err)
	until("a")
	cancel()
	<-ended
	until("a")
}

func TestShares(t *testing.T) {
	w := newWorld(t)
	var pods []pod
	for i := range 5 {
		pods = append(pods, w.pod(fmt.Sprint("p", i)))
	}
	svc := service("s", "10.96.0.1")
	w.start(svc, slice(svc, pods))
	seen := map[string]int{}
	const asked = 300
	for range asked {
		seen[w.who(pods[0].ns, "tcp", "10.96.0.1:8080")]++
	}
	// Six standard deviations of a fair share of one fifth.
	for _, p := range pods {
		if n := seen[p.name]; n < asked/5-42 || n > asked/5+42 {
			t.Errorf("%s answered %d of %d times", p.name, n, asked)
		}
	}
	if len(seen) != len(pods) {
		t.Errorf("answers %v", seen)
	}
}

func TestSticky(t *testing.T) {
	w := newWorld(t)
	var pods []pod
	for i := range 4 {
		pods = append(pods, w.pod(fmt.Sprint("p", i)))
	}
	svc := service("s", "10.96.0.1", nodePort(30080), func(s *corev1.ServiceSpec) { s.SessionAffinity = corev1.ServiceAffinityClientIP })
	s := w.start(svc, slice(svc, pods))
	for _, to := range []string{"10.96.0.1:8080", hostIP + ":30080"} {
		first := w.who(pods[0].ns, "tcp", to)
		for range 12 {
			if got := w.who(pods[0].ns, "tcp", to); got != first {
				t.Fatalf("%s: %q answers after %q", to, got, first)
			}
		}
	}
	first := w.who(pods[0].ns, "tcp", "10.96.0.1:8080")
	var rest []pod
	for _, p := range pods {
		if p.name != first {
			rest = append(rest, p)
		}
	}
	s.update(slice(svc, rest))
	second := w.who(pods[0].ns, "tcp", "10.96.0.1:8080")
	if second == first || !strings.HasPrefix(second, "p") {
		t.Fatalf("%q answers after %q was taken out", second, first)
	}
	s.update(slice(svc, pods))
	for range 12 {
		if got := w.who(pods[0].ns, "tcp", "10.96.0.1:8080"); got != second {
			t.Fatalf("%q answers after %q", got, second)
		}
	}
}

// A client that keeps its port must not talk to an endpoint that is gone.
func TestFlowsForgotten(t *testing.T) {
	w := newWorld(t)
	a, b := w.pod("a"), w.pod("b")
	svc := service("s", "10.96.0.1", nodePort(30080))
	s := w.start(svc, slice(svc, []pod{a}))
	for _, to := range []string{"10.96.0.1:8080", hostIP + ":30080"} {
		var c net.Conn
		w.must(within(b.ns, func() (err error) { c, err = net.Dial("udp", to); return err }))
		t.Cleanup(func() { c.Close() })
		if got, err := w.exchange(c); err != nil || !strings.HasPrefix(string(got), "a ") {
			t.Errorf("%s: %q answers (%v)", to, got, err)
		}
		for _, p := range []pod{b, a, b, a} {
			s.update(slice(svc, []pod{p}))
			if got, err := w.exchange(c); err != nil || !strings.HasPrefix(string(got), p.name+" ") {
				t.Errorf("%s: %q answers (%v), want %s", to, got, err, p.name)
			}
		}
	}
}

// What a connection was given stays with it while the proxy is away and when
// it comes back; the tables are taken over, not made anew.
func TestRestart(t *testing.T) {
	w := newWorld(t)
	a, b := w.pod("a"), w.pod("b")
	svc := service("s", "10.96.0.1", func(s *corev1.ServiceSpec) { s.SessionAffinity = corev1.ServiceAffinityClientIP })
	first := w.start(svc, slice(svc, []pod{a, b}))
	who := w.who(a.ns, "tcp", "10.96.0.1:8080")
	second := w.start()
	if len(second.tables.have) == 0 || len(second.tables.have) != len(first.tables.have) {
		t.Fatalf("%d elements, then %d", len(first.tables.have), len(second.tables.have))
	}
	if del, add := second.state.diff(second.tables.have, true); len(del)+len(add) > 0 {
		t.Errorf("read back: %v to delete, %v to add", del, add)
	}
	for range 8 {
		if got := w.who(a.ns, "tcp", "10.96.0.1:8080"); got != who {
			t.Fatalf("%q answers after %q", got, who)
		}
	}
	w.must(removeTables(second.tables.ns)) // somebody else's doing
	w.must(second.sync(true))
	if got := w.who(a.ns, "tcp", "10.96.0.1:8080"); got != "a" && got != "b" {
		t.Errorf("after somebody removed the tables: %q", got)
	}
	w.must(Cleanup(w.cfg.NetNS))
	w.must(Cleanup(w.cfg.NetNS))
	if names, err := second.tables.readChains(2); err != nil || len(names) > 0 {
		t.Errorf("chains %v (%v) after Cleanup", names, err)
	}
}

func TestOtherLayoutIsReplaced(t *testing.T) {
	w := newWorld(t)
	a := w.pod("a")
	svc := service("s", "10.96.0.1")
	w.start(svc, slice(svc, []pod{a}))
	w.cfg.Local = append(w.cfg.Local, netip.MustParseAddr("10.96.0.11"))
	w.start()
	if got := w.who(a.ns, "tcp", "10.96.0.1:8080"); got != "a" {
		t.Errorf("got %q", got)
	}
}
