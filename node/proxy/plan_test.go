package proxy

import (
	"flag"
	"fmt"
	"net/netip"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/yaml"
)

var update = flag.Bool("update", false, "write what was seen into the transcripts")

// TestPlan reads blocks of a comment, a service and its slices as YAML, and
// what the node called "here" in the zone "east" does for them.
func TestPlan(t *testing.T) {
	raw, err := os.ReadFile("testdata/plan.txt")
	if err != nil {
		t.Fatal(err)
	}
	s := &site{name: "here", zone: "east", families: []uint8{unix.AF_INET, unix.AF_INET6}, local: []netip.Addr{netip.MustParseAddr("10.96.0.10")},
		pods: []netip.Prefix{netip.MustParsePrefix("10.0.0.0/31")}, nodes: []netip.Addr{netip.MustParseAddr("192.0.2.1")}, loopback: true}
	var out []string
	for _, block := range strings.Split(strings.TrimSpace(string(raw)), "\n\n") {
		head, _, _ := strings.Cut(block, "\n----")
		var svc *corev1.Service
		var all []*discoveryv1.EndpointSlice
		for i, doc := range strings.Split(head, "\n---\n") {
			if i == 0 {
				svc = &corev1.Service{}
				err = yaml.UnmarshalStrict([]byte(doc), svc)
			} else {
				slice := &discoveryv1.EndpointSlice{}
				err = yaml.UnmarshalStrict([]byte(doc), slice)
				all = append(all, slice)
			}
			if err != nil {
				t.Fatalf("%s: %v", head, err)
			}
		}
		out = append(out, strings.TrimSpace(head)+"\n----\n"+show(plan(svc, all, s)))
	}
	got := strings.TrimSpace(strings.Join(out, "\n")) + "\n"
	if *update {
		if err := os.WriteFile("testdata/plan.txt", []byte(got), 0o600); err != nil {
			t.Fatal(err)
		}
		return
	}
	if got != string(raw) {
		t.Errorf("seen:\n%s", got)
	}
}

func show(planned map[front]backing) string {
	var lines []string
	for f, b := range planned {
		where := [...]string{"address", "node", "address from outside", "node from outside"}[f.place]
		line := fmt.Sprintf("%s %d/%s -> %v", where, f.proto, f.to, b.endpoints)
		if len(b.endpoints) == 0 {
			line = fmt.Sprintf("%s %d/%s -> %s", where, f.proto, f.to, pickWord(b.drop))
		}
		if b.sticky > 0 {
			line += " sticky " + b.sticky.String()
		}
		if len(b.sources) > 0 {
			line += fmt.Sprint(" only from ", b.sources)
		}
		lines = append(lines, line+"\n")
	}
	if len(lines) == 0 {
		return "nothing\n"
	}
	slices.Sort(lines)
	return strings.Join(lines, "")
}

func pickWord(drop bool) string {
	if drop {
		return "silence"
	}
	return "refusal"
}

func TestChainNames(t *testing.T) {
	for _, c := range []chain{{n: 1}, {node: true, n: 12}, {outside: true, n: 3, sticky: time.Hour}, {true, true, maxEndpoints, time.Second}} {
		if got, ok := parseChain(c.String()); !ok || got != c {
			t.Errorf("%s is read as %+v", c, got)
		}
	}
	for _, name := range []string{"", chainReject, "pick-address-0", "pick-address-x", "pick-mars-1", "layout-0123"} {
		if c, ok := parseChain(name); ok {
			t.Errorf("%q is read as %+v", name, c)
		}
	}
}

// Of two services that claim one address the older one has it, and when it
// lets go the other gets it; in the end nothing is left.
func TestClaims(t *testing.T) {
	s := newState(&site{families: []uint8{unix.AF_INET}})
	at := front{atAddress, unix.IPPROTO_TCP, netip.MustParseAddrPort("203.0.113.1:80")}
	to := func(ip string) map[front]backing {
		return map[front]backing{at: {endpoints: []netip.AddrPort{netip.MustParseAddrPort(ip + ":80")}, masquerade: true}}
	}
	endpoint := slot{unix.AF_INET, setEndpoint, fullKey(at) + "\x00\x00\x00\x00"}
	has := func(ip string) {
		t.Helper()
		if got := s.want[endpoint].value; ip != "" && got != string(netip.MustParseAddr(ip).AsSlice())+pad(80) || ip == "" && got != "" {
			t.Errorf("%q has it, want %s", got, ip)
		}
	}
	old, young := types.NamespacedName{Name: "old"}, types.NamespacedName{Name: "young"}
	s.set(young, time.Unix(2, 0), to("10.0.0.2"))
	has("10.0.0.2")
	s.set(old, time.Unix(1, 0), to("10.0.0.1"))
	has("10.0.0.1")
	s.set(old, time.Time{}, nil)
	has("10.0.0.2")
	s.clear()
	s.set(young, time.Unix(2, 0), to("10.0.0.2"))
	if del, add := s.diff(nil, false); len(del)+len(add) > 0 {
		t.Errorf("no change deletes %v and adds %v", del, add)
	}
	s.set(young, time.Time{}, nil)
	has("")
	if len(s.want)+len(s.claims)+len(s.fronts)+len(s.shown) > 0 {
		t.Errorf("left: %v %v %v %v", s.want, s.claims, s.fronts, s.shown)
	}
}

// BenchmarkTable measures a whole table's first writing and the change of one
// endpoint in it, three endpoints a service.
func BenchmarkTable(b *testing.B) {
	for _, n := range []int{1000, 10_000} {
		st, site := many(n)
		b.Run(fmt.Sprintf("first/%d", n), func(b *testing.B) {
			w := newWorld(b)
			for b.Loop() {
				t := w.tables(b, site)
				w.must(t.read())
				del, add := st.diff(t.have, true)
				w.must(t.write(del, add))
				b.StopTimer()
				w.must(t.close())
				w.must(Cleanup(w.cfg.NetNS))
				b.StartTimer()
			}
		})
		b.Run(fmt.Sprintf("change/%d", n), func(b *testing.B) {
			w := newWorld(b)
			t := w.tables(b, site)
			defer func() { w.must(t.close()) }()
			w.must(t.read())
			del, add := st.diff(t.have, true)
			w.must(t.write(del, add))
			st.clear()
			i := 0
			for b.Loop() {
				i++
				svc, slice := benchService(7, i%2)
				st.set(types.NamespacedName{Name: svc.Name}, time.Time{}, plan(svc, []*discoveryv1.EndpointSlice{slice}, site))
				del, add := st.diff(t.have, false)
				w.must(t.write(del, add))
				st.clear()
			}
		})
	}
}

func (w *world) tables(b *testing.B, s *site) *tables {
	ns, done, err := openNS(w.cfg.NetNS)
	w.must(err)
	b.Cleanup(done)
	t, err := openTables(&w.cfg, s.families, ns)
	w.must(err)
	return t
}

func many(n int) (*state, *site) {
	s := &site{name: "here", zone: "east", families: []uint8{unix.AF_INET}}
	st := newState(s)
	for i := range n {
		svc, slice := benchService(i, 0)
		st.set(types.NamespacedName{Name: svc.Name}, time.Time{}, plan(svc, []*discoveryv1.EndpointSlice{slice}, s))
	}
	return st, s
}

func benchService(i, shift int) (*corev1.Service, *discoveryv1.EndpointSlice) {
	svc := &corev1.Service{ObjectMeta: metav1.ObjectMeta{Name: fmt.Sprint("s", i)},
		Spec: corev1.ServiceSpec{ClusterIP: fmt.Sprintf("10.96.%d.%d", i/250, i%250+1), Ports: []corev1.ServicePort{{Port: 80}}}}
	slice := &discoveryv1.EndpointSlice{Ports: []discoveryv1.EndpointPort{{Port: new(int32(8080))}}}
	for e := range 3 {
		slice.Endpoints = append(slice.Endpoints, discoveryv1.Endpoint{Addresses: []string{fmt.Sprintf("10.%d.%d.%d", e+shift, i/250, i%250+1)}})
	}
	return svc, slice
}
